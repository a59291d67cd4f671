"""Likelihoods of a positive rate θ that are conjugate to the gamma family: E[ℓ] is linear in μ = (E log θ, −E θ)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln

from badmm import checks
from badmm.checks import Array
from badmm.families.distributions import Gamma


class ConjugateRate:
    """ℓ(θ) = −events · log θ + total · θ + constant, elementwise over P rates: ∇_μ E[ℓ] = (−events, −total).

    So λ_0 − ∇_μ E[ℓ] = (shape + events, rate + total), the conjugate update.
    """

    def __init__(self, events: Array, total: Array, constant: float) -> None:
        self.events, self.total, self.constant = np.atleast_1d(events), np.atleast_1d(total), constant
        self.dim = len(self.events)

    def natural_gradient(self, posterior: Gamma) -> tuple[Array, Array]:
        """(−events, −total), whatever the posterior."""
        return -self.events, -self.total

    def constant_natural_gradient(self, family: str, dim: int) -> tuple[Array, ...] | None:
        """(−events, −total) under the gamma family."""
        return (-self.events, -self.total) if family == "gamma" else None

    def expected_loss(self, posterior: Gamma) -> float:
        """−events · (ψ(shape) − log rate) + total · shape / rate + constant, in nats."""
        log_mean = digamma(posterior.shape) - np.log(posterior.rate)
        return float(np.sum(self.total * posterior.mean - self.events * log_mean)) + self.constant


class PoissonRate(ConjugateRate):
    """Counts c_i ~ Poisson(θ e_i) with known exposures e_i > 0 (in any unit; θ is per that unit).

    counts (n,) for one rate or (n, P) for P rates; exposure a scalar or of the same shape. Raises `ValueError` for
    counts that are not non-negative whole numbers and exposures that are not positive.
    """

    def __init__(self, counts: ArrayLike, exposure: ArrayLike = 1.0) -> None:
        c = np.atleast_1d(checks.counts(counts, "counts"))
        e = checks.real_array(exposure, "exposure")
        checks.require(e > 0, e, "exposure", "positive")
        if c.ndim > 2 or (e.ndim and e.shape != c.shape):
            raise ValueError(f"exposure: expected a scalar or the shape of counts {c.shape}, got {e.shape}")
        e = np.broadcast_to(e, c.shape)
        constant = float(np.sum(gammaln(c + 1.0) - c * np.log(e)))
        super().__init__(c.sum(axis=0), e.sum(axis=0), constant)


class ExponentialRate(ConjugateRate):
    """Intervals t_i ~ Exponential(θ) (θ per unit of t): ℓ = −n log θ + θ Σ t. intervals (n,) or (n, P), positive."""

    def __init__(self, intervals: ArrayLike) -> None:
        t = np.atleast_1d(checks.real_array(intervals, "intervals"))
        checks.require(t > 0, t, "intervals", "positive")
        if t.ndim > 2:
            raise ValueError(f"intervals: expected 1 or 2 axes, got shape {t.shape}")
        super().__init__(np.full(t.shape[1:], float(len(t))), t.sum(axis=0), 0.0)
