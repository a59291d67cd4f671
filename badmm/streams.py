"""Random streams by (seed, purpose, round, client), so that results do not depend on the order or number of workers.

Each stream is a child of NumPy's `SeedSequence` with its own spawn key; no stream is shared and none continues from
round to round, so that a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Purpose(IntEnum):
    """What a stream is for; the numbers are part of every published result and must not change."""

    HOLD_OUT = 0
    SPLIT = 1
    INITIAL = 2
    ORDER = 3
    DROPOUT = 4
    NOISE = 5
    POSTERIOR = 6
    PARTICIPATION = 7


def sequence(seed: int, purpose: Purpose, *key: int) -> np.random.SeedSequence:
    """The seed sequence of one stream; `key` is usually (round, client). ValueError for negative numbers."""
    if min(seed, *key, 0) < 0:
        raise ValueError(f"seed, key: expected integers of at least 0, got {(seed, *key)}")
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """A NumPy generator on that stream."""
    return np.random.default_rng(sequence(seed, purpose, *key))


def torch_generator(seed: int, purpose: Purpose, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded with 63 bits of that stream."""
    import torch

    word = int(sequence(seed, purpose, *key).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(word >> 1)
