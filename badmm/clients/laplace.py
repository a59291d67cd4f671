"""Where a hard client starts again: the mode of its loss and cavity, with the curvature there as the precision.

A posterior as wide as the prior can make E[e^a] astronomically large; at the mode of ℓ + ρ/2 ‖θ − m_c‖²_{S_c} nothing
is, and that mode is a convex problem in d unknowns for convex ℓ and S_c positive definite.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from badmm.checks import Array
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.distributions import Gaussian
from badmm.families.gaussian import GaussianFamily
from badmm.families.precision import Precision

SHARPEN = 1e8
"""The precision at which the expectations are those at the mean, to about 1e-8."""
STEPS = 50


def laplace(problem: ClientProblem, q: Gaussian, max_evaluations: int) -> Evaluation | None:
    """The client at the Laplace approximation of its problem; None where the whole Hessian is not known or not enough.

    Newton steps from q's mean, halved until the gradient falls: m⁺ = m − (∇²ℓ/ρ + S_c)⁻¹ (∇ℓ/ρ + S_c m − ξ_c).
    """
    family = problem.family
    assert isinstance(family, GaussianFamily)
    if not family.precision_varies:
        return None
    sharp = q.operator.scaled(SHARPEN)
    at = _at(problem, Gaussian.of(q.mean, sharp))
    xi, cavity = family.canonical(problem.cavity)
    for _ in range(STEPS):
        if at is None or problem.evaluations >= max_evaluations:
            return None
        slope = _slope(problem, at, xi, cavity)
        step = _newton_step(problem, at, slope, cavity)
        if step is None:
            return None
        found = _halved(problem, at, slope, step, sharp, xi, cavity)
        if found is None:
            break
        at = found
        if float(np.linalg.norm(step)) <= 1e-6 * float(np.linalg.norm(_mean(at))):
            break
    if at is None or at.hessian is None:
        return None
    return _narrowed(problem, Gaussian.of(_mean(at), cavity.shifted(at.hessian / problem.rho)), cavity)


def _narrowed(problem: ClientProblem, q: Gaussian, cavity: Precision) -> Evaluation | None:
    """q with its precision times 4^j, j the first for which 4^{j+1} no longer lowers L + ρ KL(q‖q_c).

    The diagonal family keeps none of the loss's correlations, and can be far too wide at the curvature of the mode.
    """
    if not q.operator.is_definite:
        return None
    trace = q.operator.trace(cavity.array)
    best: tuple[float, Evaluation | None] = (np.inf, None)
    for power in range(30):
        at = _at(problem, Gaussian.of(q.mean, q.operator.scaled(4.0**power)))
        if at is None:
            continue
        value = at.loss + 0.5 * problem.rho * (trace / 4.0**power + q.dim * np.log(4.0) * power)
        if not value < best[0]:
            break
        best = (value, at)
    return best[1]


def _mean(at: Evaluation) -> Array:
    assert isinstance(at.posterior, Gaussian)
    return at.posterior.mean


def _at(problem: ClientProblem, q: Gaussian) -> Evaluation | None:
    at = problem.try_evaluate(problem.family.natural(q), q)
    return at if at is not None and at.gradient is not None else None


def _slope(problem: ClientProblem, at: Evaluation, xi: Array, cavity: Precision) -> Array:
    assert at.gradient is not None
    return np.asarray(at.gradient / problem.rho + cavity.matvec(_mean(at)) - xi)


def _newton_step(problem: ClientProblem, at: Evaluation, slope: Array, cavity: Precision) -> Array | None:
    if at.curvature is None:
        return None
    try:
        return np.asarray(cho_solve(cho_factor(cavity.plus(at.curvature / problem.rho), lower=True), slope))
    except LinAlgError:
        return None


def _halved(
    problem: ClientProblem, at: Evaluation, slope: Array, step: Array, sharp: Precision, xi: Array, cavity: Precision
) -> Evaluation | None:
    size, t = float(np.linalg.norm(slope)), 1.0
    while t > 1e-8:
        trial = _at(problem, Gaussian.of(_mean(at) - t * step, sharp))
        if trial is not None and float(np.linalg.norm(_slope(problem, trial, xi, cavity))) < size * (1 - 1e-4 * t):
            return trial
        t *= 0.5
    return None
