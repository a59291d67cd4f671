"""c_i ~ Poisson(theta e_i)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath

from badmm.likelihoods import PoissonRate

from ...points import generator
from ..likelihood import Rate


def cases() -> Iterator[Rate]:
    """Two rates with exposures of their own."""
    rng = generator("poisson rate")
    counts, exposure = rng.integers(0, 7, (4, 2)), rng.uniform(0.3, 3.0, (4, 2))

    def loss(column: int) -> Callable[[Any], Any]:
        pairs = [(int(c), mpmath.mpf(float(e))) for c, e in zip(counts[:, column], exposure[:, column], strict=True)]
        return lambda t: mpmath.fsum(t * e - c * mpmath.log(t * e) + mpmath.log(mpmath.fac(c)) for c, e in pairs)

    yield Rate("two rates", PoissonRate(counts, exposure), [loss(0), loss(1)])
