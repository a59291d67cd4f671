"""l = theta^T H theta / 2 - b^T theta + c."""

from __future__ import annotations

from collections.abc import Iterator

from badmm.likelihoods import Quadratic

from ...points import generator
from ..autograd import tensors
from ..likelihood import Smooth


def cases() -> Iterator[Smooth]:
    """A Hessian that is not definite."""
    rng = generator("quadratic")
    factor, linear = rng.normal(size=(4, 4)), rng.normal(size=4)
    H, b = tensors((factor + factor.T, linear))
    client = Quadratic(factor + factor.T, linear, 1.5)
    yield Smooth("indefinite", client, 4, lambda theta: 0.5 * theta @ H @ theta - b @ theta + 1.5, quadratic=True)
