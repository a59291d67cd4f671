"""l = -sum_i log Gamma(y_i; shape k, mean exp(a_i))."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import GammaRegression

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("gamma regression")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    y, k = rng.gamma(2.0, 1.5, 6), 1.7

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        rate, time = k * mpmath.exp(-a), float(y[i])
        return -(k * mpmath.log(rate) + (k - 1) * mpmath.log(time) - rate * time - mpmath.loggamma(k))

    client = GammaRegression(X, y, k, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i))
