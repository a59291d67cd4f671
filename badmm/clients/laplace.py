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

SHARPEN = 1e8
"""The precision at which the expectations are those at the mean, to about 1e-8."""
STEPS = 50


def laplace(problem: ClientProblem, q: Gaussian, max_evaluations: int) -> Evaluation | None:
    """The client at the Laplace approximation of its problem; None where the whole Hessian is not known or not enough.

    Newton steps from q's mean, halved until the gradient falls: m⁺ = m − (∇²ℓ/ρ + S_c)⁻¹ (∇ℓ/ρ + S_c m − ξ_c).
    """
    if problem.family.fixed_precision is not None:
        return None
    sharp = q.precision * SHARPEN
    at = _at(problem, q.mean, sharp)
    for _ in range(STEPS):
        if at is None or problem.evaluations >= max_evaluations:
            return None
        slope = _slope(problem, at)
        step = _newton_step(problem, at, slope)
        if step is None:
            return None
        found = _halved(problem, at, slope, step, sharp)
        if found is None:
            break
        at = found
        if float(np.linalg.norm(step)) <= 1e-6 * float(np.linalg.norm(_mean(at))):
            break
    if at is None or at.hessian is None:
        return None
    curvature = np.diag(at.hessian) if q.precision.ndim == 1 and at.hessian.ndim == 2 else at.hessian
    precision = problem.cavity[1] + curvature / problem.rho
    return _narrowed(problem, Gaussian._trusted(_mean(at), precision), max_evaluations)


def _narrowed(problem: ClientProblem, q: Gaussian, max_evaluations: int) -> Evaluation | None:
    """q with its precision times 4^j, j the first for which 4^{j+1} no longer lowers L + ρ KL(q‖q_c).

    The diagonal family keeps none of the loss's correlations, and can be far too wide at the curvature of the mode.
    """
    if not problem.family.in_domain(problem.family.natural(q)):
        return None
    trace = float(
        np.sum(problem.cavity[1] * q.covariance if q.precision.ndim == 2 else problem.cavity[1] / q.precision)
    )
    best: tuple[float, Evaluation | None] = (np.inf, None)
    for power in range(30):
        if problem.evaluations >= max_evaluations:
            break
        narrow = Gaussian._trusted(q.mean, q.precision * 4.0**power)
        at = problem.try_evaluate(problem.family.natural(narrow), narrow)
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


def _at(problem: ClientProblem, mean: Array, precision: Array) -> Evaluation | None:
    q = Gaussian._trusted(mean, precision)
    at = problem.try_evaluate(problem.family.natural(q), q)
    return at if at is not None and at.gradient is not None else None


def _slope(problem: ClientProblem, at: Evaluation) -> Array:
    assert at.gradient is not None
    cavity, mean = problem.cavity[1], _mean(at)
    product = cavity @ mean if cavity.ndim == 2 else cavity * mean
    return np.asarray(at.gradient / problem.rho + product - problem.cavity[0])


def _newton_step(problem: ClientProblem, at: Evaluation, slope: Array) -> Array | None:
    if at.hessian is None or at.hessian.ndim != 2:
        return None
    cavity = problem.cavity[1]
    matrix = at.hessian / problem.rho + (cavity if cavity.ndim == 2 else np.diag(cavity))
    try:
        return np.asarray(cho_solve(cho_factor(matrix, lower=True), slope))
    except LinAlgError:
        return None


def _halved(problem: ClientProblem, at: Evaluation, slope: Array, step: Array, sharp: Array) -> Evaluation | None:
    size, t = float(np.linalg.norm(slope)), 1.0
    while t > 1e-8:
        trial = _at(problem, _mean(at) - t * step, sharp)
        if trial is not None and float(np.linalg.norm(_slope(problem, trial))) < size * (1 - 1e-4 * t):
            return trial
        t *= 0.5
    return None
