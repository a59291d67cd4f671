"""The beta family: T = (log theta, log(1 - theta)), lambda = (alpha, beta), base measure 1/(theta (1 - theta))."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from ...calls import Array, Call
from ...points import generator, spread
from ...ulps import Terms
from ..family import FactorisingOracle, Pair, Point, Slots, SlotTerms, cast


class Beta(FactorisingOracle):
    """Counts over seven decades."""

    domains = ("positive", "positive")
    standard_domains = ("positive", "positive")
    decades = 3.0
    edge_decades = 3.0
    # F is nearly singular at large counts: 1e-16 times them
    tolerances = {"expectation_from_natural": 1e-14, "natural_gradient": 1e-11, "log_density": 1e-14, "whiten": 1e-11}

    def log_partition(self, natural: Point) -> Terms:
        """log B(a, b)."""
        a, b = natural
        return [mpmath.loggamma(a), mpmath.loggamma(b), -mpmath.loggamma(a + b)]

    def entropy(self, natural: Point) -> Terms:
        """log B(a, b) - (a - 1) digamma(a) - (b - 1) digamma(b) + (a + b - 2) digamma(a + b)."""
        a, b = natural
        means = -(a - 1) * mpmath.digamma(a) - (b - 1) * mpmath.digamma(b) + (a + b - 2) * mpmath.digamma(a + b)
        return [mpmath.fsum(self.log_partition(natural)) + means]

    def log_density(self, point: Point) -> SlotTerms:
        """(a - 1) log theta + (b - 1) log(1 - theta) - log B(a, b)."""
        theta, a, b = point
        first, second = mpmath.log(theta), mpmath.log1p(-theta)
        return [[a * first, -first, b * second, -second, *(-t for t in self.log_partition((a, b)))]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """The natural parameter is (alpha, beta) itself."""
        return [[standard[0]], [standard[1]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """(alpha, beta)."""
        return self.natural_from_standard(natural)

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """(digamma(a) - digamma(a + b), digamma(b) - digamma(a + b))."""
        total = -mpmath.digamma(natural[0] + natural[1])
        return [[mpmath.digamma(natural[0]), total], [mpmath.digamma(natural[1]), total]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """F^-1 (dL/da, dL/db)."""
        a, b, by_a, by_b = point
        first, second, both = (mpmath.psi(1, x) for x in (a, b, a + b))
        determinant = first * second - both * (first + second)
        return [
            [(second - both) * by_a / determinant, both * by_b / determinant],
            [both * by_a / determinant, (first - both) * by_b / determinant],
        ]

    def inverse_scale(self, mu: Point) -> list[Any]:
        """|mu| + 1: digamma is not known better."""
        return [abs(x) + 1 for x in mu]

    def inverse_points(self, dtype: str, count: int) -> Slots:
        """Means of members with counts over 1e-3 .. 1e4, kept where rounding leaves them in the domain."""
        rng = generator("beta inverse", dtype, count)
        natural = cast(tuple(10.0 ** rng.uniform(-3, 4, (2, count))), dtype)
        mu = self.image(self.expectation_from_natural, natural, dtype)
        keep = -np.expm1(mu[0].astype(float)) > np.exp(mu[1].astype(float)) * (1 + 1e-4)
        return mu[0][keep], mu[1][keep]

    def thetas(self, rng: np.random.Generator, count: int, dtype: str) -> Array:
        """Probabilities."""
        return rng.uniform(0.001, 0.999, count).astype(dtype)

    def far(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Pair:
        """Counts over 1e-3 .. 1e3: where one is a million times the other, KL has eleven digits."""
        q, p = (cast(tuple(10.0 ** rng.uniform(-3.0, 3.0, (2, *size))), dtype) for _ in range(2))
        return Pair(q, p, "far apart")

    def map_calls(self, dtype: str, count: int) -> list[Call]:
        """The closed form of the natural gradient at all points."""
        rng = generator("beta gradient", dtype, count)
        counts, gradients = (
            tuple(spread(rng, count, 2.0, signed, dtype) for _ in range(2)) for signed in (False, True)
        )
        return [*super().map_calls(dtype, count), Call("natural_gradient", (*counts, *gradients), "all")]


ORACLE = Beta()
