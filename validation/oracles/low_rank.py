"""The central solution of a suite problem over Gaussians with precision diag(D) + UUᵀ, U (d, r).

Stationarity over (m, D, U), with g, H of the pooled loss, Ŝ = S_0 + H, Σ = S⁻¹ and E = Σ(S − Ŝ)Σ:

    S_0 (m − m_0) + g = 0,   diag E = 0,   E U = 0

Quasi-Newton descents of log det S + tr(Ŝ S⁻¹) at a fixed Ŝ, turn by turn with Newton's method in m, lead near a
minimum; Levenberg–Marquardt on the three equations does the rest. No code is shared with solver, kernels or derivation.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares, minimize

from ..problems import SuiteProblem
from .central import Array, Objective, Solution, central, newton_mean

TURNS = 15


def solve_low_rank(problem: SuiteProblem, rank: int) -> Solution:
    """A stationary point of the pooled problem within the family, a local minimum where the descents end at one."""
    s0, d = problem.prior_precision, problem.dim
    objective = Objective(problem, "full_gaussian", 1.0)
    start = central(problem.name, "full_gaussian")
    mean, parts = start.mean, _components(start.precision, rank)
    H = objective(mean, start.precision)[1]
    for _ in range(TURNS):
        parts = _descended(s0 * np.eye(d) + H, parts, rank)
        mean, H = newton_mean(objective, mean, _matrix(parts, d), s0)

    def equations(x: Array) -> Array:
        S = _matrix(x[d:], d)
        if np.linalg.eigvalsh(S)[0] <= 0:
            return np.full(d * (rank + 2), 1e3)
        g, curvature = objective(x[:d], S)
        sigma, unit = np.linalg.inv(S), np.sqrt(np.diag(S))
        gap = unit[:, None] * (sigma @ (S - s0 * np.eye(d) - curvature) @ sigma) * unit
        along = gap @ (x[2 * d :].reshape(d, rank) / unit[:, None])
        return np.concatenate([(s0 * x[:d] + g) / unit, np.diag(gap), along.ravel()])

    found = least_squares(equations, np.concatenate([mean, parts]), method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    residual = float(np.abs(found.fun).max())
    return Solution("full_gaussian", found.x[:d], _matrix(found.x[d:], d), residual, int(found.nfev))


def _matrix(parts: Array, d: int) -> Array:
    factor = parts[d:].reshape(d, -1)
    return np.asarray(np.diag(parts[:d]) + factor @ factor.T)


def _components(S: Array, rank: int) -> Array:
    """D and U of a precision's own diagonal and largest principal components, half of each."""
    values, vectors = np.linalg.eigh(S)
    factor = vectors[:, -rank:] * np.sqrt(0.5 * values[-rank:])
    return np.concatenate([0.5 * np.diag(S), factor.ravel()])


def _descended(target: Array, parts: Array, rank: int) -> Array:
    """A minimum of log det S + tr(Ŝ S⁻¹) near (D, U)."""
    d = len(target)
    unit = np.sqrt(np.diag(target))
    scaled = target / np.outer(unit, unit)
    scales = np.concatenate([unit**2, np.repeat(unit, rank)])

    def value(x: Array) -> tuple[float, Array]:
        S = _matrix(x, d)
        if np.linalg.eigvalsh(S)[0] <= 0:
            return 1e10, np.zeros_like(x)
        sigma = np.linalg.inv(S)
        slope = sigma - sigma @ scaled @ sigma
        gradient = np.concatenate([np.diag(slope), (2.0 * slope @ x[d:].reshape(d, rank)).ravel()])
        return float(np.linalg.slogdet(S)[1] + np.sum(scaled * sigma)), gradient

    return np.asarray(minimize(value, parts / scales, jac=True, method="BFGS", options={"gtol": 1e-9}).x * scales)
