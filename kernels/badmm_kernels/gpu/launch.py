"""Launches: the argument of a kernel as loops.cuh declares it, the grid, and the choice of 16-byte loads and stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm_kernels.gpu.protocol import Device

# Sizes and layouts of loops.cuh; a test compares the two.
INPUTS, OUTPUTS, SLOTS, SCALARS, CHUNK = 10, 6, 4, 12, 1024
SLOT = np.dtype([("in", "u8", INPUTS), ("step", "i8", INPUTS), ("out", "u8", OUTPUTS), ("rows", "i8"), ("width", "i8")])
CALL = np.dtype([("slot", SLOT, SLOTS), ("scalar", "f8", SCALARS), ("status", "u8"), ("launch", "u8"), ("last", "i8")])
STATUS = np.dtype([("launch", "u8"), ("lock", "u8"), ("rank", "u8"), ("value", "f8", INPUTS + OUTPUTS)])
PARTIAL, TOTAL, TOTAL_AND_STATUS = 0, 1, 2

THREADS = 256
WARP = 32
BLOCKS_PER_PROCESSOR = 32  # enough to fill it several times, few enough that a thread does more than one coordinate
LARGEST_Y = 65535
PACK = 16  # bytes


@dataclass(frozen=True)
class Slot:
    """Addresses of the inputs and outputs of one slot of rows × width; an input of step 0 is shared by all rows."""

    inputs: Sequence[int]
    steps: Sequence[int]
    outputs: Sequence[int]
    rows: int
    width: int


@dataclass(frozen=True)
class EntryPoint:
    """Names of a compiled kernel: source file, name without dtype, loop ("map", "sum" or "client_sum").

    packs: whether there is a version with 16-byte loads and stores.
    """

    source: str
    name: str
    loop: str
    packs: bool = True


GridAndBlock = tuple[tuple[int, int, int], tuple[int, int, int]]


def pack_size(slots: Sequence[Slot], dtype: np.dtype[Any], loop: str) -> int:
    """Return the number of elements per load: 16 bytes if every row of every array is aligned to them, else 1."""
    pack = PACK // dtype.itemsize
    for slot in slots:
        ragged = slot.width % pack != 0 and (slot.rows > 1 or loop == "client_sum")
        if ragged or any(a % PACK for a in (*slot.inputs, *slot.outputs)):
            return 1
    return pack


def grid_and_block(slots: Sequence[Slot], pack: int, loop: str, processors: int) -> GridAndBlock:
    """Return (grid, block): coordinates along x, rows along y, slots along z; a sum has one warp per partial sum."""
    limit = processors * BLOCKS_PER_PROCESSOR
    if loop == "sum":
        warps = THREADS // WARP
        chunks = slots[0].rows * -(-slots[0].width // CHUNK)
        return (max(1, min(limit, -(-chunks // warps))), 1, 1), (WARP, warps, 1)
    columns = max(-(-s.width // pack) for s in slots)
    rows = 1 if loop == "client_sum" else max(s.rows for s in slots)
    across = min(THREADS, 1 << (max(1, columns) - 1).bit_length()) if rows > 1 else THREADS
    down = THREADS // across
    along = max(1, min(limit, -(-columns // across)))
    deep = max(1, min(-(-rows // down), limit // along, LARGEST_Y))
    return (along, deep, len(slots)), (across, down, 1)


def fill(record: Any, slot: Slot) -> None:
    """Write a slot to its field of a kernel's argument."""
    record["in"][: len(slot.inputs)] = slot.inputs
    record["step"][: len(slot.steps)] = slot.steps
    record["out"][: len(slot.outputs)] = slot.outputs
    record["rows"], record["width"] = slot.rows, slot.width


def launch(
    device: Device,
    kernel: EntryPoint,
    slots: Sequence[Slot],
    dtype: np.dtype[Any],
    scalars: Sequence[float],
    number: int,
    last: int = PARTIAL,
) -> None:
    """Run a kernel on the current device and stream; `number` identifies the launch in the record of domain errors."""
    if not any(s.rows * s.width for s in slots):
        return
    call = np.zeros((), CALL)
    for k, slot in enumerate(slots):
        fill(call["slot"][k], slot)
    call["scalar"][: len(scalars)] = scalars
    call["status"], call["launch"], call["last"] = device.status(), number, last
    # the value of a sum does not depend on alignment: its loop adds in groups of 16 bytes with either kind of load
    pack = pack_size(slots, dtype, kernel.loop) if kernel.packs else 1
    grid, block = grid_and_block(slots, pack, kernel.loop, device.processors())
    device.launch(kernel.source, f"{kernel.name}_f{dtype.itemsize * 8}x{pack}", grid, block, call)
