"""Losses that are linear in the statistics of a family, and so conjugate to it: rates, variances, probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from badmm import checks
from badmm.checks import Array
from badmm.families.factorised import Factorised
from badmm.families.family import FamilyGeometry, Natural


class ConjugateLoss:
    """ℓ(θ) = Σ_s c_s s(θ) + constant, elementwise over P coordinates, in functions s that are statistics of a family.

    coefficients: c_s (P,) by function, named as in the kernels' STATISTICS: "theta", "log(theta)", "1/theta". Under a
    family that has them ∇_μ E[ℓ] = c / (the statistic's factor), whatever the posterior: one round is exact.
    """

    def __init__(self, coefficients: Mapping[str, ArrayLike], constant: float = 0.0) -> None:
        given = {name: np.atleast_1d(checks.real_array(c, name)) for name, c in coefficients.items()}
        if len({c.shape for c in given.values()}) != 1:
            shapes = ", ".join(f"{name} {c.shape}" for name, c in given.items()) or "none"
            raise ValueError(f"coefficients: expected arrays of one shape (P,), got {shapes}")
        self._coefficients, self.constant = given, constant
        self.dim = len(next(iter(given.values())))

    def natural_gradient(self, posterior: Factorised) -> Natural:
        """∇_μ E[ℓ], the same at every posterior; a statistic that the loss does not have gets 0."""
        slots = posterior.ns.STATISTICS
        lost = [name for name, c in self._coefficients.items() if name not in dict(slots) and c.any()]
        if lost:
            raise ValueError(f"natural_gradient: expected a family with the statistic {lost[0]}, got {posterior}")
        zero = np.zeros(self.dim)
        return tuple(self._coefficients.get(name, zero) / factor for name, factor in slots)

    def constant_natural_gradient(self, family: FamilyGeometry) -> Natural | None:
        """∇_μ E[ℓ] under a family that the loss is conjugate to."""
        return family.linear(self._coefficients)

    def expected_loss(self, posterior: Factorised) -> float:
        """Σ_s c_s E[s(θ)] + constant, in nats."""
        terms = [c * posterior.expected(name) for name, c in self._coefficients.items() if c.any()]
        return float(np.sum(terms)) + self.constant


class ConjugateRate(ConjugateLoss):
    """ℓ(θ) = −events · log θ + total · θ + constant, elementwise over P rates.

    Under a gamma, T = (log θ, −θ): ∇_μ E[ℓ] = (−events, −total), and λ_0 − ∇_μ E[ℓ] = (shape + events, rate + total) is
    the conjugate update. Under an exponential, T = −θ, it is conjugate where there are no events.
    """

    def __init__(self, events: Array, total: Array, constant: float) -> None:
        self.events, self.total = np.atleast_1d(events), np.atleast_1d(total)
        super().__init__({"log(theta)": -self.events, "theta": self.total}, constant)


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


class NormalVariance(ConjugateLoss):
    """Values y_i ~ N(mean, θ) with known means: ℓ = ½n log(2πθ) + Σ(y − mean)²/(2θ), conjugate to the inverse gamma.

    values (n,) for one variance or (n, P) for P variances; mean a scalar or of the same shape.
    """

    def __init__(self, values: ArrayLike, mean: ArrayLike = 0.0) -> None:
        y = np.atleast_1d(checks.real_array(values, "values"))
        m = checks.real_array(mean, "mean")
        if y.ndim > 2 or (m.ndim and m.shape != y.shape):
            raise ValueError(f"mean: expected a scalar or the shape of values {y.shape}, got {m.shape}")
        count = np.full(y.shape[1:], float(len(y)))
        coefficients = {"log(theta)": 0.5 * count, "1/theta": 0.5 * np.square(y - m).sum(axis=0)}
        super().__init__(coefficients, 0.5 * float(np.log(2.0 * np.pi)) * y.size)


class Trials(ConjugateLoss):
    """Successes k_i of n_i trials with probability θ: ℓ = −Σ k log θ − Σ (n − k) log(1 − θ), conjugate to the beta.

    successes (n,) for one probability or (n, P) for P of them; trials a scalar or of the same shape, at least as many.
    """

    def __init__(self, successes: ArrayLike, trials: ArrayLike = 1.0) -> None:
        k = np.atleast_1d(checks.counts(successes, "successes"))
        n = np.broadcast_to(checks.counts(trials, "trials"), k.shape)
        checks.require(n >= k, n, "trials", "at least as many as successes")
        choose = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
        coefficients = {"log(theta)": -k.sum(axis=0), "log(1 - theta)": -(n - k).sum(axis=0)}
        super().__init__(coefficients, -float(np.sum(choose)))
