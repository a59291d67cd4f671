"""The Bernoulli family: T = theta in {0, 1}, lambda = log-odds."""

from __future__ import annotations

import mpmath

from ...ulps import Terms
from ..counting import LogOdds
from ..family import Point, SlotTerms


class Bernoulli(LogOdds):
    """One trial."""

    largest = 1

    def entropy(self, natural: Point) -> Terms:
        """log(1 + e^x) - x/(1 + e^-x)."""
        x = natural[0]
        return [mpmath.log1p(mpmath.exp(x)), -x / (1 + mpmath.exp(-x))]

    def log_density(self, point: Point) -> SlotTerms:
        """theta x - log(1 + e^x)."""
        theta, x = point
        return [[theta * x, -mpmath.log1p(mpmath.exp(x))]]


ORACLE = Bernoulli()
