"""The argument of a kernel, as loops.cuh declares it; the shape of a grid; whether 16 bytes may move as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm_kernels.gpu.protocol import Device

# Sizes and layouts of loops.cuh; a test compares them.
INPUTS, OUTPUTS, SLOTS, SCALARS, CHUNK = 10, 6, 4, 12, 1024
SLOT = np.dtype([("in", "u8", INPUTS), ("step", "i8", INPUTS), ("out", "u8", OUTPUTS), ("rows", "i8"), ("width", "i8")])
CALL = np.dtype([("slot", SLOT, SLOTS), ("scalar", "f8", SCALARS), ("status", "u8"), ("launch", "u8"), ("last", "i8")])
STATUS = np.dtype([("launch", "u8"), ("lock", "u8"), ("rank", "u8"), ("value", "f8", INPUTS + OUTPUTS)])
PARTIAL, TOTAL, TOTAL_AND_STATUS = 0, 1, 2

THREADS = 256
WARP = 32
BLOCKS_A_PROCESSOR = 32  # enough to fill it several times over, few enough that threads do more than one coordinate
LARGEST_Y = 65535
PACK = 16  # bytes


@dataclass(frozen=True)
class Slot:
    """Inputs and outputs of one slot by address: rows × width coordinates; a step of 0 repeats an input."""

    inputs: Sequence[int]
    steps: Sequence[int]
    outputs: Sequence[int]
    rows: int
    width: int


@dataclass(frozen=True)
class Kernel:
    """A kernel's family of entry points: its source file, its name, its loop ("map", "sum" or "client_sum"), and
    whether there is one that moves 16 bytes as one."""

    source: str
    name: str
    loop: str
    packs: bool = True


Shape = tuple[tuple[int, int, int], tuple[int, int, int]]


def wide(slots: Sequence[Slot], dtype: np.dtype[Any], loop: str) -> int:
    """How many elements move as one: those of 16 bytes if every row of every array starts at a multiple of them."""
    pack = PACK // dtype.itemsize
    for slot in slots:
        ragged = slot.width % pack != 0 and (slot.rows > 1 or loop == "client_sum")
        if ragged or any(a % PACK for a in (*slot.inputs, *slot.outputs)):
            return 1
    return pack


def shape(slots: Sequence[Slot], pack: int, loop: str, processors: int) -> Shape:
    """(grid, block): coordinates along x, rows along y, slots along z; a warp a partial sum."""
    limit = processors * BLOCKS_A_PROCESSOR
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
    """A slot into its place in a kernel's argument."""
    record["in"][: len(slot.inputs)] = slot.inputs
    record["step"][: len(slot.steps)] = slot.steps
    record["out"][: len(slot.outputs)] = slot.outputs
    record["rows"], record["width"] = slot.rows, slot.width


def launch(
    device: Device,
    kernel: Kernel,
    slots: Sequence[Slot],
    dtype: np.dtype[Any],
    scalars: Sequence[float],
    number: int,
    last: int = PARTIAL,
) -> None:
    """Run a kernel on the current device and stream; `number` names it in the record of domain errors."""
    if not any(s.rows * s.width for s in slots):
        return
    call = np.zeros((), CALL)
    for k, slot in enumerate(slots):
        fill(call["slot"][k], slot)
    call["scalar"][: len(scalars)] = scalars
    call["status"], call["launch"], call["last"] = device.status(), number, last
    # a sum's value must not depend on where arrays begin: its loop takes groups of 16 bytes either way
    pack = wide(slots, dtype, kernel.loop) if kernel.packs else 1
    grid, block = shape(slots, pack, kernel.loop, device.processors())
    device.launch(kernel.source, f"{kernel.name}_f{dtype.itemsize * 8}x{pack}", grid, block, call)
