"""The geometric family: T = -theta in 0, 1, ..., lambda = log(1 + 1/m), mean m."""

from __future__ import annotations

import mpmath

from ...ulps import Terms
from ..counting import Waiting
from ..family import Point, SlotTerms


class Geometric(Waiting):
    """Failures before one success."""

    def entropy(self, natural: Point) -> Terms:
        """-log(1 - e^-r) + r/(e^r - 1)."""
        rate = natural[0]
        return [-mpmath.log(-mpmath.expm1(-rate)), rate / mpmath.expm1(rate)]

    def log_density(self, point: Point) -> SlotTerms:
        """log(1 - e^-r) - r theta."""
        theta, rate = point
        return [[mpmath.log(-mpmath.expm1(-rate)), -rate * theta]]


ORACLE = Geometric()
