"""The Poisson family: T = theta in 0, 1, ..., lambda = log m, mean m."""

from __future__ import annotations

import mpmath

from ...ulps import Terms
from ..counting import Counting
from ..family import Point, SlotTerms


class Poisson(Counting):
    """Means over eight decades."""

    domains = ("real",)
    standard_domains = ("positive",)
    tolerances = dict.fromkeys(
        (
            "natural_from_standard",
            "standard_from_natural",
            "expectation_from_natural",
            "natural_from_expectation",
            "whiten",
            "log_density",
        ),
        1e-14,
    )

    def log_partition(self, natural: Point) -> Terms:
        """e^x."""
        return [mpmath.exp(natural[0])]

    def log_density(self, point: Point) -> SlotTerms:
        """theta x - e^x - log theta!."""
        theta, x = point
        return [[theta * x, -mpmath.exp(x), -mpmath.loggamma(theta + 1)]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """log m."""
        return [[mpmath.log(standard[0])]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """e^x."""
        return [[mpmath.exp(natural[0])]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """e^x."""
        return [[mpmath.exp(natural[0])]]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """log mu."""
        return [[mpmath.log(mu[0])]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """dL/dm."""
        return [[point[1]]]


ORACLE = Poisson()
