"""Solutions of the suite's problems computed in one place; no code is shared with solver, kernels or derivation.

    min_q  E_q[Σ_k ℓ_k(θ)] / τ + KL(q‖p_0)

Stationarity, with g = Σ E_q[∇ℓ]/τ and H = Σ E_q[∇²ℓ]/τ:  S_0 (m − m_0) + g = 0  and  S = S_0 + H (its diagonal under
the diagonal family). Expectations of the logistic loss are composite Gauss–Legendre quadrature over xᵀθ (the solver
uses trapezoids), of the Poisson loss closed forms; softmax, and the isotropic family (a MAP estimate), take ∇ℓ and ∇²ℓ
at the mean. Solved by alternating Newton steps in m with fixed-point steps in S, accelerated by Anderson mixing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.special import expit

from ..problems import SuiteProblem, problem, problems, stress_problems

Array = NDArray[np.float64]
FAMILIES = ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian")
_HALF_RANGE = 10.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class Solution:
    """Mean (d,), precision (scalar, (d,) or (d, d)), and the relative residual of the stationarity conditions."""

    family: str
    mean: Array
    precision: Array
    residual: float
    iterations: int

    @property
    def natural(self) -> tuple[Array, ...]:
        """(S m, S), or (s m,) under the isotropic family."""
        if self.family == "isotropic_gaussian":
            return (self.precision * self.mean,)
        product = self.precision @ self.mean if self.precision.ndim == 2 else self.precision * self.mean
        return (product, self.precision)


def distance(natural: tuple[Array, ...], solution: Solution) -> float:
    """max over slots of ‖λ − λ*‖₂ / ‖λ*‖₂ (Frobenius for matrices), λ the natural parameters."""
    pairs = zip(natural, solution.natural, strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def sigmoid_expectations(center: Array, variance: Array) -> tuple[Array, Array]:
    """E[σ(a)], E[σ′(a)] for a ~ N(center, variance), each (n,).

    Composite 16-point Gauss–Legendre on z ∈ [−10, 10], a = center + sd z, with panels at most 1/3 in z and 2 in a: the
    poles of σ at ±iπ then leave an error below 1e-16.
    """
    deviation = np.sqrt(variance)
    width = min(1 / 3, 2.0 / max(float(deviation.max()), 1e-300))
    panels = int(np.ceil(2 * _HALF_RANGE / width))
    half = _HALF_RANGE / panels
    middles = -_HALF_RANGE + half * (2 * np.arange(panels) + 1)
    z = (middles[:, None] + half * _NODES).ravel()
    weights = np.tile(half * _WEIGHTS, panels) * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    first, second = np.zeros_like(center), np.zeros_like(center)
    # σ(a) = ½ + ½ tanh(a/2) and the ½ tanh is odd: its expectation is accurate near a = 0
    for block in np.array_split(np.arange(len(center)), max(1, len(center) * len(z) // 2_000_000)):
        t = np.tanh(0.5 * (center[block, None] + deviation[block, None] * z))
        first[block] = 0.5 + 0.5 * (t @ weights)
        second[block] = 0.25 * ((1.0 - t) * (1.0 + t)) @ weights
    return first, second


class Objective:
    """g (d,) and H (d, d) of the pooled loss at a mean and precision."""

    def __init__(self, problem: SuiteProblem, family: str, temperature: float, delta: bool = False) -> None:
        self.X, self.y = problem.pooled()
        self.problem, self.family, self.temperature = problem, family, temperature
        self.at_mean = delta or family == "isotropic_gaussian" or problem.kind == "softmax"
        self.mask = np.ones((problem.dim, problem.dim))
        """1 where S may have entries."""

    def __call__(self, mean: Array, precision: Array) -> tuple[Array, Array]:
        if self.problem.kind == "softmax":
            g, H = self._softmax(mean)
        else:
            slope, weight = self._predictor(self.X @ mean, self._variance(precision))
            g, H = self.X.T @ slope, (self.X.T * weight) @ self.X
        return g / self.temperature, H / self.temperature

    def _variance(self, precision: Array) -> Array:
        if self.at_mean:
            return np.zeros(len(self.X))
        if precision.ndim == 1:
            return np.asarray(self.X**2 @ (1.0 / precision))
        return np.asarray(np.sum(self.X.T * np.linalg.solve(precision, self.X.T), axis=0))

    def _predictor(self, center: Array, variance: Array) -> tuple[Array, Array]:
        if self.problem.kind == "poisson":
            rate = np.exp(center + 0.5 * variance)
            return rate - self.y, rate
        if self.at_mean:
            return expit(center) - self.y, expit(center) * expit(-center)
        first, second = sigmoid_expectations(center, variance)
        return first - self.y, second

    def _softmax(self, mean: Array) -> tuple[Array, Array]:
        classes = self.problem.num_classes
        logits = self.X @ mean.reshape(-1, classes)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = odds / odds.sum(axis=1, keepdims=True)
        g = (self.X.T @ (p - np.eye(classes)[self.y])).ravel()
        # rows of the Jacobian of the logits times √(diag p − p pᵀ), one data point at a time
        inner = p[:, :, None] * np.eye(classes) - p[:, :, None] * p[:, None, :]
        H = np.einsum("ni,nj,ncd->icjd", self.X, self.X, inner, optimize=True)
        return g, H.reshape(self.problem.dim, self.problem.dim)


def newton_mean(objective: Objective, mean: Array, precision: Array, s0: float) -> tuple[Array, Array]:
    """argmin over m at a fixed S (a convex problem) and H there; a step that does not lower ‖residual‖ is halved."""

    def residual(m: Array) -> tuple[Array, Array]:
        with np.errstate(over="ignore", invalid="ignore"):
            g, H = objective(m, precision)
        return s0 * m + g, H

    r, H = residual(mean)
    for _ in range(100):
        norm = float(np.linalg.norm(r))
        step = np.linalg.solve(H + s0 * np.eye(len(mean)), r)
        size = 1.0
        while True:
            trial, curvature = residual(mean - size * step)
            if np.isfinite(trial).all() and np.linalg.norm(trial) < norm:
                break
            size *= 0.5
            if size < 1e-4:
                # nothing lower: the residual is rounding
                return mean, H
        mean, r, H = mean - size * step, trial, curvature
        if np.linalg.norm(step) <= 1e-13 * np.linalg.norm(mean):
            break
    return mean, H


def _residual(objective: Objective, mean: Array, precision: Array, s0: float) -> float:
    """Relative residual of both stationarity conditions, the larger; the mean's is relative to (S_0 + H) m, the size of
    the terms that cancel there."""
    g, H = objective(mean, precision)
    first = np.linalg.norm(s0 * mean + g) / np.linalg.norm(s0 * mean + H @ mean)
    if objective.family == "isotropic_gaussian":
        return float(first)
    target = _precision_of(H * objective.mask, s0, objective.family)
    return float(max(first, np.linalg.norm(precision - target) / np.linalg.norm(precision)))


def _precision_of(H: Array, s0: float, family: str) -> Array:
    return s0 + np.diag(H) if family == "diagonal_gaussian" else s0 * np.eye(len(H)) + H


def anderson(step: Callable[[Array], Array], x: Array, tolerance: float, memory: int = 6) -> tuple[Array, int]:
    """Fixed point of x ↦ step(x) by Anderson mixing of type II, and the number of steps.

    Stops where ‖step(x) − x‖∞ ≤ tolerance; raises RuntimeError where that takes more than 200 steps.
    """
    points: list[Array] = []
    images: list[Array] = []
    for iteration in range(200):
        image = step(x)
        points, images = (points + [x])[-memory:], (images + [image])[-memory:]
        if np.max(np.abs(image - x)) <= tolerance:
            return image, iteration + 1
        gaps = np.array([a - b for a, b in zip(images, points, strict=True)])
        if len(gaps) == 1:
            x = image
            continue
        weights = np.linalg.lstsq((gaps[1:] - gaps[:-1]).T, gaps[-1], rcond=1e-10)[0]
        x = images[-1] - weights @ np.diff(np.array(images), axis=0)
    raise RuntimeError(f"the fixed point was not reached to {tolerance:.0e} within 200 steps")


def solve_central(
    problem: SuiteProblem, family: str, temperature: float = 1.0, blocks: Sequence[int] = (), delta: bool = False
) -> Solution:
    """The minimiser of the pooled problem within the family; raises ValueError for an unknown family.

    blocks: under the full family, sizes of consecutive blocks outside which S is 0. delta: the fixed point of
    expectations at the mean, which is the mode with the curvature there.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {family!r}")
    s0, dim = problem.prior_precision, problem.dim
    mode = Objective(problem, "isotropic_gaussian", temperature)
    mean, H = newton_mean(mode, np.zeros(dim), np.ones(dim), s0)
    if family == "isotropic_gaussian":
        precision = np.asarray(s0)
        return Solution(family, mean, precision, _residual(mode, mean, precision, s0), 1)
    objective = Objective(problem, family, temperature, delta)
    if blocks:
        objective.mask = block_diag(*(np.ones((size, size)) for size in blocks))
    H = H * objective.mask
    state: dict[str, Any] = {"mean": mean}

    def sweep(logs: Array) -> Array:
        precision = _unpack(logs, family, dim)
        state["mean"], curvature = newton_mean(objective, state["mean"], precision, s0)
        return _pack(_precision_of(curvature * objective.mask, s0, family), family)

    # mixing stops above the rounding of an ill-conditioned S, and plain sweeps, which contract, do the rest
    logs, iterations = anderson(sweep, _pack(_precision_of(H, s0, family), family), 1e-11)
    for _ in range(3):
        logs = sweep(logs)
    precision = _unpack(logs, family, dim)
    mean, _ = newton_mean(objective, state["mean"], precision, s0)
    return Solution(family, mean, precision, _residual(objective, mean, precision, s0), iterations)


def _pack(precision: Array, family: str) -> Array:
    """log S, or the logarithm of its Cholesky factor's diagonal and the rest of it scaled: always a valid S back."""
    if family == "diagonal_gaussian":
        return np.log(precision)
    factor = np.linalg.cholesky(precision)
    diagonal = np.diag(factor)
    below = np.tril(factor / diagonal, -1)
    return np.concatenate([np.log(diagonal), below[np.tril_indices(len(factor), -1)]])


def _unpack(logs: Array, family: str, dim: int) -> Array:
    if family == "diagonal_gaussian":
        return np.asarray(np.exp(logs))
    factor = np.zeros((dim, dim))
    factor[np.tril_indices(dim, -1)] = logs[dim:]
    factor = (factor + np.eye(dim)) * np.exp(logs[:dim])
    return factor @ factor.T


@cache
def central(name: str, family: str, delta: bool = False) -> Solution:
    """The central solution of a problem of the suite by its name, computed once for all that split the same rows."""
    loss = problem(name).loss
    first = next(case for case in (*problems(), *stress_problems()) if case.loss == loss)
    return central(first.name, family, delta) if first.name != name else solve_central(first, family, delta=delta)
