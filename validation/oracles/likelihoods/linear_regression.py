"""l = -sum_i log N(y_i; x_i^T theta, sigma^2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from badmm.likelihoods import LinearRegression

from ...points import generator
from ..autograd import tensors
from ..likelihood import Smooth


def cases() -> Iterator[Smooth]:
    """torch's own normal density."""
    rng = generator("linear regression")
    X, y, variance = rng.normal(size=(9, 3)), rng.normal(size=9), 0.4
    design, target = tensors((X, y))
    deviation = torch.tensor(variance, dtype=torch.float64).sqrt()
    yield Smooth(
        "normal",
        LinearRegression(X, y, variance),
        3,
        lambda theta: -torch.distributions.Normal(design @ theta, deviation).log_prob(target).sum(),
        quadratic=True,
    )
