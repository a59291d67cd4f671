"""y_i ~ N(mean_i, theta)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath

from badmm.likelihoods import NormalVariance

from ...points import generator
from ..likelihood import Rate


def cases() -> Iterator[Rate]:
    """Two variances with known means of their own."""
    rng = generator("normal variance")
    values, mean = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))

    def loss(column: int) -> Callable[[Any], Any]:
        pairs = list(zip(values[:, column].tolist(), mean[:, column].tolist(), strict=True))
        return lambda t: mpmath.fsum(
            mpmath.log(2 * mpmath.pi * t) / 2 + (mpmath.mpf(y) - m) ** 2 / (2 * t) for y, m in pairs
        )

    yield Rate("two variances", NormalVariance(values, mean), [loss(0), loss(1)], "inverse_gamma")
