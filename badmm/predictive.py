"""Predictions from a Gaussian posterior, averaged over it or plugged in at its mean, and scores for them.

Averaging over q(θ) integrates the prediction: exactly for linear regression, by a trapezoidal rule on the predictor
z = xᵀθ ~ N(xᵀm, xᵀS⁻¹x) for logistic regression, by seeded draws of θ for softmax regression. The plug-in prediction
uses θ = m alone. Scores: accuracy or root mean squared error, negative log-likelihood a point (nats), and the
expected calibration error (Guo et al., ICML 2017, section 2: equal-width bins of the top probability).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.special import expit, softmax
from scipy.stats import norm

Array = NDArray[np.floating[Any]]
_FLOOR = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Scores:
    """Scores on held-out data: `accuracy` (classification) or `rmse` (regression), `nll` in nats a point, `ece`.

    For regression `ece` is the mean absolute difference between nominal and actual coverage of central intervals.
    """

    nll: float
    ece: float
    accuracy: float | None = None
    rmse: float | None = None

    def as_dict(self) -> dict[str, float]:
        """The scores that apply, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def predictor_variance(X: Array, precision: Array | float) -> Array:
    """xᵀS⁻¹x for every row x of X (n, d); the precision S is a scalar, a vector (d,) or a matrix (d, d)."""
    precision = np.asarray(precision, dtype=float)
    if precision.ndim == 2:
        half = solve_triangular(cholesky(precision, lower=True), X.T, lower=True)
        return np.sum(half**2, axis=0)
    return np.sum(X**2 / precision, axis=-1)


def draw(mean: Array, precision: Array | float, count: int, seed: int) -> Array:
    """`count` draws (count, d) from N(m, S⁻¹); θ = m + L⁻ᵀε with S = LLᵀ, ε from PCG64 with this seed."""
    precision = np.asarray(precision, dtype=float)
    noise = np.random.default_rng(seed).standard_normal((count, len(mean)))
    if precision.ndim == 2:
        return mean + solve_triangular(cholesky(precision, lower=True), noise.T, lower=True, trans="T").T
    return mean + noise / np.sqrt(precision)


def linear_scores(X: Array, y: Array, mean: Array, precision: Array | float | None, noise_variance: float) -> Scores:
    """Scores of N(xᵀm, xᵀS⁻¹x + σ²) on X (n, d), y (n,); `precision=None` plugs in the mean (variance σ² alone)."""
    spread = 0.0 if precision is None else predictor_variance(X, precision)
    scale = np.sqrt(spread + np.full(len(y), noise_variance))
    residual = y - X @ mean
    tail = 2 * norm.sf(
        np.abs(residual) / scale
    )  # a point lies in the central interval of level p iff its tail is > 1 - p
    levels = np.linspace(0.05, 0.95, 19)
    coverage = np.mean(tail[:, None] > 1 - levels, axis=0)
    return Scores(
        nll=float(-np.mean(norm.logpdf(residual, scale=scale))),
        ece=float(np.mean(np.abs(coverage - levels))),
        rmse=float(np.sqrt(np.mean(residual**2))),
    )


def logistic_probability(X: Array, mean: Array, precision: Array | float | None) -> Array:
    """p(y = 1 | x) (n,) for every row of X: E[σ(z)], or σ(xᵀm) where `precision` is None."""
    center = X @ mean
    if precision is None:
        return expit(center)
    deviation = np.sqrt(predictor_variance(X, precision))
    # the rule's error is exp(-2π² / (step·sd)), so the step shrinks where the predictor is wide
    step = 0.55 / max(float(deviation.max()), 1.1)
    nodes = np.arange(-8.5, 8.5 + step, step)
    weights = norm.pdf(nodes)
    return expit(center[:, None] + deviation[:, None] * nodes) @ (weights / weights.sum())


def softmax_probability(
    X: Array, mean: Array, precision: Array | float | None, num_classes: int, *, draws: int = 512, seed: int = 0
) -> Array:
    """Class probabilities (n, C) for θ (d·C,) flattened row-major from (features, classes).

    The average of softmax(xᵀΘ) over `draws` seeded draws of θ, or the value at the mean where `precision` is None.
    """
    shape = (X.shape[1], num_classes)
    if precision is None:
        return softmax(X @ mean.reshape(shape), axis=1)
    total = np.zeros((len(X), num_classes))
    for theta in draw(mean, precision, draws, seed):
        total += softmax(X @ theta.reshape(shape), axis=1)
    return total / draws


def class_scores(probability: Array, labels: NDArray[np.integer[Any]], bins: int = 10) -> Scores:
    """Scores of class probabilities (n, C), or (n,) for p(y = 1), against labels (n,) in 0..C−1."""
    if probability.ndim == 1:
        probability = np.stack([1 - probability, probability], axis=1)
    confidence, predicted = probability.max(axis=1), probability.argmax(axis=1)
    right = predicted == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    chosen = np.maximum(probability[np.arange(len(labels)), labels], _FLOOR)
    return Scores(
        nll=float(-np.mean(np.log(chosen))),
        ece=float(np.abs(gaps).sum() / len(labels)),
        accuracy=float(right.mean()),
    )
