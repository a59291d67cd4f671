"""l = -sum_i log NB(y_i; mean exp(a_i), size r)."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import NegativeBinomialRegression

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("negative binomial regression")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    y, r = rng.integers(0, 9, 6), 2.3

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        count, mean = int(y[i]), mpmath.exp(a)
        ways = mpmath.gamma(count + r) / (mpmath.gamma(r) * mpmath.factorial(count))
        return -mpmath.log(ways * (r / (r + mean)) ** r * (mean / (r + mean)) ** count)

    client = NegativeBinomialRegression(X, y, r, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i))
