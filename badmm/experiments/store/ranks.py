"""Checkpoints of a run on ranks, taken up by another number of ranks.

Rank 0 writes the run's folder and the others `rank-1`, `rank-2`, ... in it, each with the state of its own clients.
Ranks that go on, more or fewer, read all of them, which takes a file system that they share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from badmm.experiments.config import ConfigError
from badmm.experiments.store.folder import Checkpoint, RunFolder
from badmm.transports.ranks import share_of

ROWS = {"duals": 0, "clients": 0, "sent": 0, "mixing_lines": 1}
"""The groups of a state's arrays that have an axis of clients, and which it is."""
RANKS = "ranks"
"""The number of ranks that wrote a checkpoint, in its metadata."""


def folder(root: Path, rank: int) -> Path:
    """Where a rank writes."""
    return root if rank == 0 else root / f"rank-{rank}"


def regathered(own: Checkpoint | None, root: Path, rank: int, size: int) -> Checkpoint | None:
    """The checkpoint of this rank's clients, from those of all ranks where these were another number.

    Raises ConfigError where one of them is not there, or is of another round.
    """
    first, _ = RunFolder(root).checkpoint()
    written = 0 if first is None else int(first.metadata.get(RANKS, 1))
    if first is None or written == size:
        return own
    parts = [first]
    for other in range(1, written):
        part, _ = RunFolder(folder(root, other)).checkpoint()
        if part is None or part.round != first.round:
            got = "none" if part is None else f"one of round {part.round}"
            raise ConfigError(
                f"--resume: expected a checkpoint of round {first.round} of each of {written} ranks, got {got} in "
                f"{folder(root, other)}"
            )
        parts.append(part)
    arrays = {name: _own(name, [part.arrays for part in parts], rank, size) for name in first.arrays}
    return Checkpoint(first.round, arrays, first.metadata)


def _own(name: str, ranks: list[Any], rank: int, size: int) -> Any:
    """This rank's part of an array, along the axis of clients where it has one."""
    axis = ROWS.get(name.partition(".")[0])
    if axis is None:
        return ranks[0][name]
    everyone = np.concatenate([arrays[name] for arrays in ranks if name in arrays], axis=axis)
    return np.take(everyone, share_of(rank, size, everyone.shape[axis]), axis=axis)
