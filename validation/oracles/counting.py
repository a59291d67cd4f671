"""What the oracles of families of whole numbers share: points, and the log-odds' log-partition."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from ..calls import Array
from ..ulps import Terms
from .family import FactorisingOracle, Pair, Point, Slots, SlotTerms, cast


class Counting(FactorisingOracle):
    """One natural parameter; theta is a whole number."""

    discrete = True
    largest = 60  # of the test points

    def thetas(self, rng: np.random.Generator, count: int, dtype: str) -> Array:
        """Whole numbers."""
        return rng.integers(0, self.largest + 1, count).astype(dtype)

    def near(self, rng: np.random.Generator, step: Array, ratio: float, dtype: str) -> Pair:
        """Pairs a step apart, no further than exp reaches."""
        q, p, detail = super().near(rng, step, ratio, "float64")
        return Pair(cast((p[0] + np.clip(q[0] - p[0], -40.0, 40.0),), dtype), cast(p, dtype), detail)

    def far(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Pair:
        """Pairs as far apart as probabilities that float64 holds."""
        q, p = (self.spread_out(rng, size) for _ in range(2))
        return Pair(cast(q, dtype), cast(p, dtype), "far apart")

    def spread_out(self, rng: np.random.Generator, size: tuple[int, ...]) -> Slots:
        """Natural parameters of every size."""
        return (20.0 * rng.normal(size=size),)


class LogOdds(Counting):
    """A(x) = n log(1 + e^x)."""

    domains = ("real",)
    standard_domains = ("real",)
    decades = 0.9  # of x: a probability that float32 cannot tell from 1 has no inverse
    edge_decades = 0.9
    tolerances = dict.fromkeys(
        ("expectation_from_natural", "natural_from_expectation", "natural_gradient", "log_density", "whiten"), 1e-14
    )
    n: Any = 1

    def log_partition(self, natural: Point) -> Terms:
        """n log(1 + e^x)."""
        return [self.n * mpmath.log1p(mpmath.exp(natural[0]))]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """The log-odds themselves."""
        return [[standard[0]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """The log-odds themselves."""
        return [[natural[0]]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """n/(1 + e^-x)."""
        return [[self.n / (1 + mpmath.exp(-natural[0]))]]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """log(mu/(n - mu))."""
        return [[mpmath.log(mu[0]), -mpmath.log(self.n - mu[0])]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """dL/dx (1 + e^x)(1 + e^-x)/n."""
        x, by_x = point
        return [[by_x * (1 + mpmath.exp(x)) * (1 + mpmath.exp(-x)) / self.n]]


class Waiting(Counting):
    """A(r) = -k log(1 - e^-r), T = -theta."""

    domains = ("positive",)
    standard_domains = ("positive",)
    tolerances = dict.fromkeys(
        (
            "natural_from_standard",
            "standard_from_natural",
            "expectation_from_natural",
            "natural_from_expectation",
            "whiten",
        ),
        1e-14,
    ) | {"log_density": 1e-13}
    k: Any = 1

    def log_partition(self, natural: Point) -> Terms:
        """-k log(1 - e^-r)."""
        return [-self.k * mpmath.log(-mpmath.expm1(-natural[0]))]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """log(1 + k/m)."""
        return [[mpmath.log1p(self.k / standard[0])]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """k/(e^r - 1)."""
        return [[self.k / mpmath.expm1(natural[0])]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """-k/(e^r - 1)."""
        return [[-self.k / mpmath.expm1(natural[0])]]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """log(1 - k/mu)."""
        return [[mpmath.log1p(-self.k / mu[0])]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """-dL/dm."""
        return [[-point[1]]]

    def ordinary(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Slots:
        """Rates over 1e-3 .. 30."""
        return cast((10.0 ** rng.uniform(-3.0, 1.4, size),), dtype)

    def spread_out(self, rng: np.random.Generator, size: tuple[int, ...]) -> Slots:
        """Rates over 1e-6 .. 30."""
        return (10.0 ** rng.uniform(-6.0, 1.4, size),)
