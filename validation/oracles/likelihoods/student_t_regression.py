"""l = -sum_i log t_nu((y_i - a_i)/s)/s."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import StudentTRegression

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("student t regression")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    y, nu, s = 2.0 * rng.normal(size=6), 3.5, 0.9

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        z = (float(y[i]) - a) / s
        scale = mpmath.gamma((nu + 1) / 2) / (mpmath.gamma(nu / 2) * mpmath.sqrt(nu * mpmath.pi) * s)
        return -mpmath.log(scale * (1 + z**2 / nu) ** (-(nu + 1) / 2))

    client = StudentTRegression(X, y, nu, s, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i), strip=1.68)
