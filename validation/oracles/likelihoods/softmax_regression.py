"""l = -sum_i log softmax(x_i^T Theta)_{y_i}, taken at the mean: its predictors have no one-dimensional projection."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from badmm.likelihoods import SoftmaxRegression

from ...points import generator
from ..autograd import tensors
from ..likelihood import Smooth


def cases() -> Iterator[Smooth]:
    """torch's own cross entropy."""
    rng = generator("softmax regression")
    X, y = rng.normal(size=(8, 2)), rng.integers(0, 3, 8)
    (design,), labels = tensors((X,)), torch.tensor(y)
    yield Smooth(
        "three classes",
        SoftmaxRegression(X, y, 3),
        6,
        lambda theta: torch.nn.functional.cross_entropy(design @ theta.reshape(2, 3), labels, reduction="sum"),
    )
