"""The Laplace family around a fixed location c: T = -|theta - c|, lambda = 1/scale, base measure 1/2."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath

from ...ulps import Terms
from ..family import FactorisingOracle, Point, SlotTerms


@dataclass(frozen=True)
class Laplace(FactorisingOracle):
    """The family around one location, which both types hold exactly."""

    location: float = 0.75

    domains = ("positive",)
    standard_domains = ("positive",)
    real_line = True
    tolerances = {"log_density": 1e-14}

    def log_partition(self, natural: Point) -> Terms:
        """-log r."""
        return [-mpmath.log(natural[0])]

    def entropy(self, natural: Point) -> Terms:
        """1 + log(2/r)."""
        return [1 + mpmath.log(2), -mpmath.log(natural[0])]

    def log_density(self, point: Point) -> SlotTerms:
        """log(r/2) - r |theta - c|."""
        theta, rate = point
        gap = abs(theta) + abs(mpmath.mpf(self.location))  # the rounding of theta - c is relative to these
        return [[mpmath.log(rate), -mpmath.log(2), -rate * gap, rate * (gap - abs(theta - self.location))]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """1/s."""
        return [[1 / standard[0]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """1/r."""
        return [[1 / natural[0]]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """-1/r."""
        return [[-1 / natural[0]]]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """-1/mu."""
        return [[-1 / mu[0]]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """-dL/ds."""
        return [[-point[1]]]


ORACLE = Laplace()
