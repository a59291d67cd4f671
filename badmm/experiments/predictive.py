"""Predictions from a Gaussian posterior, averaged over it or plugged in at its mean, and their scores.

Averaging over q(θ) integrates the prediction: exactly for linear regression, by quadrature on the predictor
z = xᵀθ ~ N(xᵀm, xᵀS⁻¹x) for logistic regression, by seeded draws of θ for softmax regression. The plug-in prediction
uses θ = m. Scores are accuracy or root mean squared error, negative log-likelihood per point (nats), and the expected
calibration error (Guo et al., ICML 2017, section 2: equal-width bins of the top probability).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, softmax

import badmm_kernels
from badmm.checks import Array
from badmm.families.distributions import Gaussian

_FLOOR = np.finfo(np.float64).tiny
_LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True)
class Scores:
    """Scores on held-out data: `accuracy` (classification) or `rmse` (regression), `nll` in nats per point, `ece`.

    For regression `ece` is the mean absolute difference between nominal and actual coverage of central intervals.
    """

    nll: float
    ece: float
    accuracy: float | None = None
    rmse: float | None = None

    def as_dict(self) -> dict[str, float]:
        """Return the applicable scores by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def linear_scores(X: Array, y: Array, posterior: Gaussian, noise_variance: float, *, averaged: bool = True) -> Scores:
    """Score N(xᵀm, xᵀS⁻¹x + σ²), or N(xᵀm, σ²) if not `averaged`, on X (n, d) and y (n,)."""
    spread = posterior.predictor_variance(X) if averaged else 0.0
    scale = np.sqrt(spread + np.full(len(y), noise_variance))
    residual = y - X @ posterior.mean
    z = residual / scale
    # a point is in the central interval of level p iff its tail probability exceeds 1 − p
    tail = 2 * ndtr(-np.abs(z))
    levels = np.linspace(0.05, 0.95, 19)
    coverage = np.mean(tail[:, None] > 1 - levels, axis=0)
    return Scores(
        nll=float(-np.mean(-(z**2) / 2 - _LOG_ROOT_2PI - np.log(scale))),
        ece=float(np.mean(np.abs(coverage - levels))),
        rmse=float(np.sqrt(np.mean(residual**2))),
    )


def logistic_probability(X: Array, posterior: Gaussian, *, averaged: bool = True) -> Array:
    """Return p(y = 1 | x) (n,) for every row of X: E[σ(z)], or σ(xᵀm) if not `averaged`."""
    center = X @ posterior.mean
    if not averaged:
        return expit(center)
    # of a label 0 the loss is log(1 + eᵃ), and its derivative σ(a)
    logistic = badmm_kernels.load_likelihood("logistic")
    return np.asarray(logistic.expected_loss(center, posterior.predictor_variance(X), np.zeros(len(X)))[1])


def softmax_probability(
    X: Array, posterior: Gaussian, num_classes: int, *, averaged: bool = True, draws: int = 512, seed: int = 0
) -> Array:
    """Return class probabilities (n, C) for θ (d·C,) flattened row-major from (features, classes).

    They are the average of softmax(xᵀΘ) over `draws` seeded draws of θ, or its value at the mean if not `averaged`.
    """
    shape = (X.shape[1], num_classes)
    if not averaged:
        return softmax(X @ posterior.mean.reshape(shape), axis=1)
    total = np.zeros((len(X), num_classes))
    for theta in posterior.sample(draws, seed):
        total += softmax(X @ theta.reshape(shape), axis=1)
    return total / draws


def class_scores(probability: Array, labels: NDArray[np.integer[Any]], bins: int = 10) -> Scores:
    """Score class probabilities (n, C), or (n,) for p(y = 1), against labels (n,) in 0..C−1."""
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
