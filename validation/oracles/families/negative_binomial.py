"""The negative binomial family of a fixed size k: T = -theta in 0, 1, ..., lambda = log(1 + k/m), mean m."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath

from ..counting import Waiting
from ..family import Point, SlotTerms


@dataclass(frozen=True)
class NegativeBinomial(Waiting):
    """The family of one size, which both types hold exactly."""

    size: float = 2.5

    @property
    def k(self) -> mpmath.mpf:
        """The size."""
        return mpmath.mpf(self.size)

    def log_density(self, point: Point) -> SlotTerms:
        """log C(theta + k - 1, theta) + k log(1 - e^-r) - r theta."""
        theta, rate = point
        choose = [mpmath.loggamma(theta + self.k), -mpmath.loggamma(self.k), -mpmath.loggamma(theta + 1)]
        return [[*choose, self.k * mpmath.log(-mpmath.expm1(-rate)), -rate * theta]]


ORACLE = NegativeBinomial()
