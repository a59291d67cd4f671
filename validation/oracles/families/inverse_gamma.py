"""The inverse gamma family: T = (-log theta, -1/theta), lambda = (shape, scale), base measure 1/theta."""

from __future__ import annotations

import mpmath

from ...ulps import Terms
from ..family import Point, SlotTerms
from .gamma import Gamma


class InverseGamma(Gamma):
    """1/theta is gamma: the same log-partition and maps; the density has the factor theta**-2."""

    differentiable = False

    def entropy(self, natural: Point) -> Terms:
        """a + log b + log Gamma(a) - (1 + a) digamma(a)."""
        shape, scale = natural
        without_scale = shape + mpmath.loggamma(shape) - (1 + shape) * mpmath.digamma(shape)
        return [without_scale, mpmath.log(scale)]

    def log_density(self, point: Point) -> SlotTerms:
        """-(a + 1) log theta - b/theta + a log b - log Gamma(a)."""
        theta, shape, scale = point
        logs = [-mpmath.log(theta), -shape * mpmath.log(theta), shape * mpmath.log(scale), -mpmath.loggamma(shape)]
        return [[*logs, -scale / theta]]


ORACLE = InverseGamma()
