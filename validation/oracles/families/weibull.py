"""The Weibull family of a fixed shape k: T = -theta^k, lambda = scale^-k, base measure k theta^(k - 1)."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath

from ...ulps import Terms
from ..family import FactorisingOracle, Point, SlotTerms


@dataclass(frozen=True)
class Weibull(FactorisingOracle):
    """The family of one shape, which both types hold exactly."""

    shape: float = 1.5

    domains = ("positive",)
    standard_domains = ("positive",)
    tolerances = dict.fromkeys(
        ("natural_from_standard", "standard_from_natural", "expectation_from_natural", "natural_gradient", "whiten"),
        1e-14,
    ) | {"log_density": 1e-13}

    @property
    def k(self) -> mpmath.mpf:
        """The shape."""
        return mpmath.mpf(self.shape)

    def log_partition(self, natural: Point) -> Terms:
        """-log r."""
        return [-mpmath.log(natural[0])]

    def entropy(self, natural: Point) -> Terms:
        """1 + (1 - 1/k) gamma - log k - log(r)/k."""
        constant = 1 + (1 - 1 / self.k) * mpmath.euler - mpmath.log(self.k)
        return [constant, -mpmath.log(natural[0]) / self.k]

    def log_density(self, point: Point) -> SlotTerms:
        """log r + log k + (k - 1) log theta - r theta^k."""
        theta, rate = point
        logs = [mpmath.log(rate), mpmath.log(self.k), (self.k - 1) * mpmath.log(theta)]
        return [[*logs, -rate * theta**self.k]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """s^-k."""
        return [[standard[0] ** -self.k]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """r^(-1/k)."""
        return [[natural[0] ** (-1 / self.k)]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """-1/r."""
        return [[-1 / natural[0]]]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """-1/mu."""
        return [[-1 / mu[0]]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """-dL/ds s^(1 - k)/k."""
        return [[-point[1] * point[0] ** (1 - self.k) / self.k]]


ORACLE = Weibull()
