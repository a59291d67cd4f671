"""A posterior's noise against the weights, layer by layer: what samples hide cannot be learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from badmm.networks.scales import root_mean_square
from badmm.networks.stacked import Stacked

LOUD = 3.0
"""The noise, in weights, above which a layer is warned of. Networks of few layers that saturate have learned with more
(docs/federated.md, MNIST); a convolutional one with 5 has not (docs/cifar10/why.md)."""


def against_weights(stack: Stacked, mean: Tensor, deviation: Tensor) -> dict[str, float | None]:
    """Of every layer's weight the median standard deviation over the root mean square of the means.

    Layers go by their parameter's name; vectors (biases, gains) are left out. A weight of zeros has None.
    """
    ratios: dict[str, float | None] = {}
    parts = zip(stack.names, stack.shapes, mean.split(stack.lengths), deviation.split(stack.lengths), strict=True)
    for name, shape, centre, spread in parts:
        if len(shape) > 1:
            size = root_mean_square(centre)
            ratios[name] = float(spread.median()) / size if size > 0 else None
    return ratios


def largest_noise(noise: Mapping[str, float | None]) -> tuple[str, float] | None:
    """Return the layer with the largest noise and its noise; None without a posterior."""
    ratios = {name: float("inf") if ratio is None else ratio for name, ratio in noise.items()}
    return max(ratios.items(), key=lambda item: item[1]) if ratios else None


def warning(record: Mapping[str, Any]) -> str | None:
    """Why a round's record may show no learning: the layer and its noise; None where the noise is no more than LOUD."""
    worst = largest_noise(record["noise"])
    if worst is None or worst[1] <= LOUD:
        return None
    return (
        f"{record['label']}, seed {record['seed']}, round {record['round']}: the posterior's standard deviation is "
        f"{worst[1]:.1f} times the weights in {worst[0]} (expected at most {LOUD:g}), so that samples hide what it has "
        'learned: lower temperature or rho, raise hess_init or delta, or leave temperature to "auto"'
    )
