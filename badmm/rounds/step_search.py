"""A step size of local training where none is given: that whose first round has the least training loss.

A loss that averages over a round's steps rewards a step that learns within the round and punishes one that overshoots,
and clients have it without a hold-out; the search is a handful of first rounds, each from the start of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

GRID = tuple(10.0 ** (k / 2) for k in range(-10, 1))
"""Two step sizes a decade, 1e-5 to 1."""
START = 6
"""The place of 1e-2, where the search begins."""


def step_size(loss: Callable[[float], float]) -> tuple[float, dict[float, float]]:
    """Walk over `GRID` from `START` to where `loss` is less than on both sides; the step size, and all losses by it.

    A loss that is not finite counts as infinite. Raises ValueError where none is finite from there down.
    """
    found: dict[float, float] = {}

    def at(place: int) -> float:
        step = GRID[place]
        if step not in found:
            value = loss(step)
            found[step] = value if math.isfinite(value) else math.inf
        return found[step]

    place = START
    while math.isinf(at(place)):
        if place == 0:
            raise ValueError(f"local.lr: expected a finite loss of training with some step from {GRID[0]:g}, got none")
        place -= 1
    for direction in (1, -1):
        while 0 <= place + direction < len(GRID) and at(place + direction) < at(place):
            place += direction
    return GRID[place], found
