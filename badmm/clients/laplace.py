"""Where a hard client starts again: the mode of its loss and cavity, with the curvature there as the precision.

A posterior as wide as the prior can make E[e^a] astronomically large; at the mode of ℓ + ρ/2 ‖θ − m_c‖²_{S_c} nothing
is, and that mode is a convex problem in d unknowns for convex ℓ and S_c positive definite. Under the delta method it is
the solution.
"""

from __future__ import annotations

from badmm.clients.charts import mean_chart
from badmm.clients.newton import newton
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.distributions import Gaussian
from badmm.families.gaussian import GaussianFamily

SHARPEN = 1e8
"""The precision, over that of the start, at which the expectations are those at the mean, to about 1e-8."""
NEAR = 1e-6
"""Posterior standard deviations to which the mode is found: it starts another search."""
NARROWINGS, WIDE = 300, 2.0
"""Powers of 4 that are tried, and the excess of the target precision at which one is too few."""


def laplace(problem: ClientProblem, q: Gaussian, max_evaluations: int) -> Evaluation | None:
    """The client at the Laplace approximation of its problem, searched from q's mean; None where it finds none."""
    family = problem.family
    if not isinstance(family, GaussianFamily) or not family.precision_varies:
        return None
    at = problem.try_at(Gaussian.of(q.mean, q.operator.scaled(SHARPEN)))
    if at is None:
        return None
    *_, at = at, *newton(problem, at, max_evaluations, mean_chart, NEAR)
    assert isinstance(at.posterior, Gaussian)
    _, hessian = family.moments(at.natural_gradient, at.posterior)
    _, cavity = family.canonical(problem.cavity)
    assert hessian is not None
    return _narrowed(problem, Gaussian.of(at.posterior.mean, cavity.shifted(hessian / problem.rho)), max_evaluations)


def _narrowed(problem: ClientProblem, q: Gaussian, max_evaluations: int) -> Evaluation | None:
    """q with its precision times 4^j, j ≥ 0 the first for which the objective would not fall with a larger one.

    E[ℓ] may be astronomically large where the loss's curvature at the mode is not, and the diagonal family keeps none
    of the loss's correlations. The objective has one minimum along j: bisection by its slope.
    """
    wide, narrow = -1, -1
    best: Evaluation | None = None
    power = 0
    while q.operator.is_definite and problem.evaluations < max_evaluations and power <= NARROWINGS:
        at = problem.try_at(Gaussian.of(q.mean, q.operator.scaled(4.0**power)))
        if at is None or _is_wide(problem, at):
            wide = power
        else:
            narrow, best = power, at
        if narrow >= 0 and narrow - wide <= 1:
            break
        power = 2 * power + 1 if narrow < 0 else (wide + narrow) // 2
    return best


def _is_wide(problem: ClientProblem, at: Evaluation) -> bool:
    """Whether tr((E[∇²ℓ]/ρ + S_c) S⁻¹) is well above d: a smaller covariance would lower the objective."""
    family, q = problem.family, at.posterior
    assert isinstance(family, GaussianFamily) and isinstance(q, Gaussian)
    _, hessian = family.moments(at.natural_gradient, q)
    assert hessian is not None
    target = family.canonical(problem.cavity)[1].shifted(hessian / problem.rho)
    return q.operator.trace(target.array) > WIDE * q.dim
