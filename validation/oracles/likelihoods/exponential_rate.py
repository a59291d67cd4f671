"""t_i ~ Exponential(theta)."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import ExponentialRate

from ...points import generator
from ..likelihood import Rate


def cases() -> Iterator[Rate]:
    """Intervals of one rate."""
    intervals = generator("exponential rate").uniform(0.1, 4.0, 5)
    total = mpmath.fsum(map(float, intervals))
    yield Rate("one rate", ExponentialRate(intervals), [lambda t: total * t - 5 * mpmath.log(t)])
