"""l = sum_i (1 - y_i) exp(a_i) - y_i log(1 - exp(-exp(a_i)))."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import CloglogRegression

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("cloglog regression")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    y = rng.integers(0, 2, 6)

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        hazard = mpmath.exp(a)
        return hazard if y[i] == 0 else -mpmath.log(-mpmath.expm1(-hazard))

    client = CloglogRegression(X, y, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i), strip=1.57)
