"""l = -sum_i log Phi((2 y_i - 1) a_i)."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import ProbitRegression

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("probit regression")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    y = rng.integers(0, 2, 6)

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        return -mpmath.log(mpmath.erfc(-(2 * int(y[i]) - 1) * a / mpmath.sqrt(2)) / 2)

    client = ProbitRegression(X, y, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i), strip=2.8)
