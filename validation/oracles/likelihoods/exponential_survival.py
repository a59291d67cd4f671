"""l = -sum_i d_i log h_i - h_i t_i with hazard h = exp(a): density of a failure, survival of a censored time."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from badmm.likelihoods import ExponentialSurvival

from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Weighted rows with offsets."""
    rng = generator("exponential survival")
    X = rng.normal(size=(6, 3))
    weights, offset = rng.uniform(0.5, 2.0, 6), rng.normal(size=6)
    time, event = rng.exponential(1.0, 6), rng.integers(0, 2, 6)

    def loss(a: mpmath.mpf, i: int) -> mpmath.mpf:
        hazard, t = mpmath.exp(a), float(time[i])
        survival = mpmath.exp(-hazard * t)
        return -mpmath.log(hazard * survival if event[i] else survival)

    client = ExponentialSurvival(X, time, event, weights=weights, offset=offset)
    yield Predictor("weighted rows", client, X, lambda a, i: weights[i] * loss(a + offset[i], i))
