"""The binomial family of a fixed number of trials n: T = theta in 0 .. n, lambda = log-odds."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath

from ..counting import LogOdds
from ..family import Point, SlotTerms


@dataclass(frozen=True)
class Binomial(LogOdds):
    """The family of one number of trials."""

    trials: float = 12.0

    largest = 12

    @property
    def n(self) -> mpmath.mpf:
        """The number of trials."""
        return mpmath.mpf(self.trials)

    def log_density(self, point: Point) -> SlotTerms:
        """log C(n, theta) + theta x - n log(1 + e^x)."""
        theta, x = point
        choose = [mpmath.loggamma(self.n + 1), -mpmath.loggamma(theta + 1), -mpmath.loggamma(self.n - theta + 1)]
        return [[*choose, theta * x, -self.n * mpmath.log1p(mpmath.exp(x))]]


ORACLE = Binomial()
