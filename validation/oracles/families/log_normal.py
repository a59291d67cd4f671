"""The log-normal family: T = (log theta, -log^2 theta / 2), lambda = (S m, S), log theta ~ N(m, 1/S)."""

from __future__ import annotations

import mpmath

from ...ulps import Terms
from ..family import FactorisingOracle, Point, SlotTerms


class LogNormal(FactorisingOracle):
    """The Gaussian's log-partition, maps and metric; entropy and density of exp of it."""

    domains = ("real", "positive")
    standard_domains = ("real", "positive")
    tolerances = {"log_density": 1e-14}
    ulps = {"whiten": 4.0}
    decades = 1.0  # the square of a mean hides the variance from float32 beyond

    def log_partition(self, natural: Point) -> Terms:
        """xi^2/(2 S) - log(S)/2."""
        xi, precision = natural
        return [xi**2 / (2 * precision), -mpmath.log(precision) / 2]

    def entropy(self, natural: Point) -> Terms:
        """m + (1 + log 2 pi - log S)/2."""
        xi, precision = natural
        return [xi / precision, (1 + mpmath.log(2 * mpmath.pi)) / 2, -mpmath.log(precision) / 2]

    def log_density(self, point: Point) -> SlotTerms:
        """log(S/(2 pi))/2 - log theta - S (log theta - m)^2/2."""
        theta, xi, precision = point
        x = mpmath.log(theta)
        squares = [xi * x, -precision * x**2 / 2, -(xi**2) / (2 * precision)]
        return [[mpmath.log(precision) / 2, -mpmath.log(2 * mpmath.pi) / 2, -x, *squares]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """(S m, S)."""
        return [[standard[0] * standard[1]], [standard[1]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """(xi/S, S)."""
        return [[natural[0] / natural[1]], [natural[1]]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """(m, -(1/S + m^2)/2)."""
        mean = natural[0] / natural[1]
        return [[mean], [-1 / (2 * natural[1]), -(mean**2) / 2]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """(dL/dm + 2 m S^2 dL/dS, 2 S^2 dL/dS)."""
        mean, precision, by_mean, by_precision = point
        second = 2 * precision**2 * by_precision
        return [[by_mean, mean * second], [second]]


ORACLE = LogNormal()
