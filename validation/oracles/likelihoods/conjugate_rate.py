"""l = -events log theta + total theta + constant, what the conjugate likelihoods of a rate share."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath
import numpy as np

from badmm.likelihoods import ConjugateRate

from ..likelihood import Rate


def cases() -> Iterator[Rate]:
    """Events that are no whole number."""
    client = ConjugateRate(np.array([2.5]), np.array([4.25]), 0.75)
    yield Rate("one rate", client, [lambda t: -mpmath.mpf("2.5") * mpmath.log(t) + mpmath.mpf("4.25") * t + 0.75])
