"""Random streams by (seed, purpose, round, client), so that results do not depend on the order or number of workers.

Each stream is a child of NumPy's `SeedSequence` with its own spawn key. No stream is shared or continued in the next
round, so a resumed run draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Purpose(IntEnum):
    """The purpose of a stream. The numbers are part of every published result and must not change."""

    HOLD_OUT = 0
    SPLIT = 1
    INITIAL = 2
    ORDER = 3
    DROPOUT = 4
    NOISE = 5
    POSTERIOR = 6
    PARTICIPATION = 7


def sequence(seed: int, purpose: Purpose, *key: int) -> np.random.SeedSequence:
    """Return the seed sequence of a stream; raise ValueError for negative numbers. `key` is mostly (round, client)."""
    if min(seed, *key, 0) < 0:
        raise ValueError(f"seed, key: expected integers of at least 0, got {(seed, *key)}")
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Return a NumPy generator on a stream."""
    return np.random.default_rng(sequence(seed, purpose, *key))


def torch_generator(seed: int, purpose: Purpose, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator on `device`, seeded with 63 bits of a stream."""
    import torch

    word = int(sequence(seed, purpose, *key).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(word >> 1)
