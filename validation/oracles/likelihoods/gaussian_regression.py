"""y_i ~ N(x_i^T theta + o_i, 1/tau), tau unknown, each with a weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mpmath

from badmm.likelihoods import GaussianRegression

from ...points import generator
from ..likelihood import NoiseRegression


def cases() -> Iterator[NoiseRegression]:
    """Rows with weights and an offset, and without."""
    rng = generator("gaussian regression")
    X, y = rng.normal(size=(6, 2)), rng.normal(size=6)
    weights, offset = rng.uniform(0.2, 2.0, 6), rng.normal(size=6)

    def loss(theta: Sequence[Any], tau: Any, given: bool) -> Any:
        found = mpmath.mpf(0)
        for i, (x, target) in enumerate(zip(X.tolist(), y.tolist(), strict=True)):
            w, o = (float(weights[i]), float(offset[i])) if given else (1.0, 0.0)
            residual = target - x[0] * theta[0] - x[1] * theta[1] - o
            found += w * (tau * residual**2 - mpmath.log(tau / (2 * mpmath.pi))) / 2
        return found

    yield NoiseRegression("plain", GaussianRegression(X, y), lambda theta, tau: loss(theta, tau, False))
    client = GaussianRegression(X, y, weights, offset)
    yield NoiseRegression("weights and offset", client, lambda theta, tau: loss(theta, tau, True))
