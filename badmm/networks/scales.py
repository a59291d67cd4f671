"""The scale of a network's weights, layer by layer: what a posterior's standard deviations are measured against."""

from __future__ import annotations

import math

from torch import Tensor

from badmm.networks.stacked import Stacked


def weight_scales(stack: Stacked, flat: Tensor) -> dict[str, float]:
    """The weight scale w_l of every matrix and kernel of a network at its initialisation `flat` (P,), by its name.

    The root mean square of its values; where they are all zero (a last layer that starts at 0), the standard deviation
    of torch's default initialisation, 1/√(3 · fan-in). Vectors (biases, gains) have none of their own and are left out.
    """
    parts = zip(stack.names, stack.shapes, flat.split(stack.lengths), strict=True)
    return {
        name: root_mean_square(part) or 1.0 / math.sqrt(3.0 * math.prod(shape[1:]))
        for name, shape, part in parts
        if len(shape) > 1
    }


def root_mean_square(part: Tensor) -> float:
    """√(mean θ²), summed in float64."""
    return float(part.double().square().mean().sqrt())
