"""The exact posterior: closed form for linear regression, sampled for logistic regression.

Sampling is elliptical slice sampling (Murray, Adams, MacKay, AISTATS 2010) with a Gaussian close to the posterior
instead of the prior (Nishihara, Murray, Adams, JMLR 2014). It leaves the exact posterior invariant whatever that
Gaussian is, accepts every step, and has no parameter to tune.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from badmm.checks import Array


def linear_posterior(X: Array, y: Array, noise_variance: float, prior_precision: float) -> tuple[Array, Array]:
    """Return mean (d,) and precision (d, d) of the posterior of linear regression under N(0, I/prior_precision)."""
    precision = X.T @ X / noise_variance + prior_precision * np.eye(X.shape[1])
    return np.asarray(np.linalg.solve(precision, X.T @ y / noise_variance)), np.asarray(precision, dtype=float)


def logistic_log_posterior(X: Array, y: Array, prior_precision: float) -> Callable[[Array], float]:
    """Return θ ↦ log p(θ | X, y), up to a constant, for labels y in {0, 1} and prior N(0, I/prior_precision)."""

    def log_posterior(theta: Array) -> float:
        z = X @ theta
        return float(y @ z - np.logaddexp(0, z).sum() - 0.5 * prior_precision * theta @ theta)

    return log_posterior


def sample(log_posterior: Callable[[Array], float], mean: Array, precision: Array, count: int, seed: int) -> Array:
    """Return draws (count, d) by elliptical slice sampling with ellipses from N(mean, precision⁻¹)."""
    rng = np.random.default_rng(seed)
    factor = cholesky(precision, lower=True)

    def log_ratio(centred: Array) -> float:
        half = factor.T @ centred
        return log_posterior(mean + centred) + 0.5 * float(half @ half)

    state = np.zeros_like(mean)
    value = log_ratio(state)
    draws = np.empty((count, len(mean)))
    for index in range(count):
        other = solve_triangular(factor, rng.standard_normal(len(mean)), lower=True, trans="T")
        threshold = value + np.log(rng.uniform())
        angle = rng.uniform(0, 2 * np.pi)
        low, high = angle - 2 * np.pi, angle
        while True:
            proposal = state * np.cos(angle) + other * np.sin(angle)
            value = log_ratio(proposal)
            if value > threshold:
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = rng.uniform(low, high)
        state = proposal
        draws[index] = mean + state
    return draws
