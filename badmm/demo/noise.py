"""Regression with unknown noise: the Gaussian-gamma's one round against the conjugate formulas on the pooled data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

import badmm
from badmm.checks import Array
from badmm.demo.problems import DemoProblem
from badmm.families.structures.gaussian_gamma import GaussianGamma
from badmm.likelihoods import GaussianRegression

LEVEL = 0.95


@dataclass(frozen=True)
class UnknownNoise:
    """A regression after one round: the largest relative difference to the pooled formulas, of coefficients, noise and
    intervals; the noise's standard deviation; how many intervals exclude 0."""

    difference: float
    noise: float
    resolved: int
    coefficients: int

    def __str__(self) -> str:
        return (
            f"noise unknown (Gaussian-gamma): after one round {self.resolved} of {self.coefficients} Student-t "
            f"intervals exclude 0, noise sd {self.noise:.4g}; {self.difference:.1e} from the pooled formulas"
        )


def unknown_noise(problem: DemoProblem) -> UnknownNoise:
    """One round over the problem's clients; the prior of τ has mean 1/noise_variance and weighs as two rows."""
    variance, d = problem.noise_variance, problem.dimension
    assert variance is not None
    prior = badmm.GaussianGamma(np.zeros(d), problem.prior_precision * variance, 1.0, variance)
    clients = [GaussianRegression(client.X, client.y) for client in problem.clients]
    q = badmm.solve(clients, family="gaussian_gamma", prior=prior, rounds=1).posterior
    assert isinstance(q, GaussianGamma)
    mean, interval, noise = pooled(problem.train_X, problem.train_y, problem.prior_precision * variance, 1.0, variance)
    own = q.interval(LEVEL)
    pairs = (q.mean, mean), (own, interval), (np.array([q.noise_variance]), np.array([noise]))
    difference = max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)
    resolved = int(np.sum(np.sign(own[:, 0]) == np.sign(own[:, 1])))
    return UnknownNoise(difference, float(np.sqrt(q.noise_variance)), resolved, d)


def pooled(X: Array, y: Array, precision: float, shape: float, rate: float) -> tuple[Array, Array, float]:
    """Mean (d,), intervals (d, 2) and E[1/τ] by a QR of the rows and the prior's, mean 0 and S_0 = precision · I."""
    d = X.shape[1]
    rows, target = np.vstack([X, np.sqrt(precision) * np.eye(d)]), np.concatenate([y, np.zeros(d)])
    q, r = np.linalg.qr(rows)
    mean = np.linalg.solve(r, q.T @ target)
    a, beta = shape + 0.5 * len(y), rate + 0.5 * float(np.sum((target - rows @ mean) ** 2))
    half = stdtrit(2.0 * a, 0.5 + 0.5 * LEVEL) * np.sqrt(beta / a * np.sum(np.linalg.inv(r) ** 2, axis=1))
    return mean, np.stack([mean - half, mean + half], axis=-1), beta / (a - 1.0)
