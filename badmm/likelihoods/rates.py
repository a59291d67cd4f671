"""Likelihoods of a positive rate θ that are linear in log θ and θ: conjugate to every family with these statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from badmm import checks
from badmm.checks import Array
from badmm.families.factorised import Factorised
from badmm.families.family import Family, Natural


class ConjugateRate:
    """ℓ(θ) = −events · log θ + total · θ + constant, elementwise over P rates.

    Under a gamma, T = (log θ, −θ): ∇_μ E[ℓ] = (−events, −total), and λ_0 − ∇_μ E[ℓ] = (shape + events, rate + total) is
    the conjugate update. Under an exponential, T = −θ, it is conjugate where there are no events.
    """

    def __init__(self, events: Array, total: Array, constant: float) -> None:
        self.events, self.total, self.constant = np.atleast_1d(events), np.atleast_1d(total), constant
        self.dim = len(self.events)

    @property
    def _coefficients(self) -> dict[str, Array]:
        return {"log(theta)": -self.events, "theta": self.total}

    def natural_gradient(self, posterior: Factorised) -> Natural:
        """(−events, −total) under a gamma, −total under an exponential without events, whatever the posterior."""
        slots = posterior.ns.STATISTICS
        lost = [name for name, value in self._coefficients.items() if name not in dict(slots) and value.any()]
        if lost:
            raise ValueError(f"natural_gradient: expected a family with the statistic {lost[0]}, got {posterior}")
        return tuple(self._coefficients[name] / factor for name, factor in slots)

    def constant_natural_gradient(self, family: Family) -> Natural | None:
        """∇_μ E[ℓ] under a family that the loss is conjugate to."""
        return family.linear(self._coefficients)

    def expected_loss(self, posterior: Factorised) -> float:
        """−events · E[log θ] + total · E[θ] + constant, in nats."""
        terms = [c * posterior.expected(name) for name, c in self._coefficients.items() if c.any()]
        return float(np.sum(terms)) + self.constant


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
