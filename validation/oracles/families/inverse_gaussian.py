"""The inverse Gaussian family: T = (-theta/2, -1/(2 theta)), lambda = (l/m^2, l), mean m and shape l."""

from __future__ import annotations

import mpmath

from ...ulps import Terms
from ..family import FactorisingOracle, Point, SlotTerms


class InverseGaussian(FactorisingOracle):
    """Means and shapes over six decades."""

    domains = ("positive", "positive")
    standard_domains = ("positive", "positive")
    decades = 3.0
    rooted = ("standard_from_natural", "expectation_from_natural", "whiten")
    tolerances = dict.fromkeys(rooted, 1e-14) | {"log_density": 1e-13}
    ulps = dict.fromkeys((*rooted, "natural_from_standard", "natural_gradient"), 4.0)

    def log_partition(self, natural: Point) -> Terms:
        """-sqrt(a b) - log(b)/2."""
        return [-mpmath.sqrt(natural[0] * natural[1]), -mpmath.log(natural[1]) / 2]

    def log_density(self, point: Point) -> SlotTerms:
        """log(b/(2 pi theta^3))/2 - a theta/2 - b/(2 theta) + sqrt(a b)."""
        theta, a, b = point
        logs = [mpmath.log(b) / 2, -mpmath.log(2 * mpmath.pi) / 2, -1.5 * mpmath.log(theta)]
        return [[*logs, -a * theta / 2, -b / (2 * theta), mpmath.sqrt(a * b)]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """(l/m^2, l)."""
        return [[standard[1] / standard[0] ** 2], [standard[1]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """(sqrt(b/a), b)."""
        return [[mpmath.sqrt(natural[1] / natural[0])], [natural[1]]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """(-m/2, -(1/m + 1/l)/2)."""
        mean = mpmath.sqrt(natural[1] / natural[0])
        return [[-mean / 2], [-1 / (2 * mean), -1 / (2 * natural[1])]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """(-2 dL/dm + 2 l^2/m^2 dL/dl, 2 l^2 dL/dl)."""
        mean, shape, by_mean, by_shape = point
        second = 2 * shape**2 * by_shape
        return [[-2 * by_mean, second / mean**2], [second]]


ORACLE = InverseGaussian()
