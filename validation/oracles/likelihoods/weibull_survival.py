"""l of Weibull times of shape k, hazard k t^(k-1) exp(a): density of a failure, survival of a censored time."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import WeibullSurvival

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("weibull survival")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    time, event, k = rng.exponential(1.0, 6), rng.integers(0, 2, 6), 1.6

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        t = float(time[i])
        log_survival = -mpmath.exp(a) * mpmath.mpf(t) ** k
        return -(log_survival + (mpmath.log(k * mpmath.mpf(t) ** (k - 1)) + a if event[i] else 0))

    client = WeibullSurvival(X, time, event, k, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i))
