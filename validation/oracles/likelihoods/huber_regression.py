"""l = sum_i r^2/2 for |r| <= k and k|r| - k^2/2 beyond, r = (y_i - a_i)/s."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import HuberRegression

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("huber regression")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    y, k, s = 2.0 * rng.normal(size=6), 1.345, 0.8

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        r = abs(float(y[i]) - a) / s
        return r**2 / 2 if r <= k else k * r - k**2 / 2

    def kinks(i: int) -> tuple[float, float]:
        return tuple(float(y[i] - offset[i]) + sign * k * s for sign in (-1, 1))  # type: ignore[return-value]

    client = HuberRegression(X, y, k, s, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i), kinks=kinks)
