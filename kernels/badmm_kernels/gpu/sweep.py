"""Calls of an optimizer's kernels on a GPU, whose loops are in sweep.cuh.

Scalars, seeds and steps are numbers on the host, one or one per row. The kernel itself tests the domains, and the host
does not wait for it (status.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm_kernels.face import arrays as ar, rows
from badmm_kernels.face.outputs import checked_out
from badmm_kernels.face.sweeps import NormalSource, SweepCall, pair
from badmm_kernels.gpu import status
from badmm_kernels.gpu.device import current
from badmm_kernels.gpu.launch import INPUTS, SCALARS, SLOT, Slot, fill, grid_and_block, pack_size
from badmm_kernels.gpu.protocol import Device

__all__ = ["NoiseKernel", "SweepKernel", "pair"]

STEPS = 2  # as in sweep.cuh
SWEEP = np.dtype(
    [
        ("slot", SLOT),
        ("scalar", "f8", SCALARS),
        ("number", "f8", INPUTS),
        ("address", "u8", 1 + STEPS),
        ("scalars", "u8"),
        ("addresses", "u8"),
        ("count", "i8"),
        ("alone", "u8"),
        ("drawn", "u8"),
        ("status", "u8"),
        ("launch", "u8"),
    ]
)


def table(device: Device, columns: Sequence[Any], count: int, dtype: Any) -> tuple[list[Any], Any]:
    """Return (the numbers, or those of the first row; a table on the device if the rows differ, or None)."""
    first = [c[0] if isinstance(c, list) else c for c in columns]
    if not any(isinstance(c, list) for c in columns):
        return first, None
    return first, device.memory.xp.asarray(rows.table(columns, count, dtype))


def run(
    source: str, name: str, slot: Slot, dtype: np.dtype[Any], scalars: Any, address: Any, launched: int, **flags: Any
) -> None:
    """Launch a sweep's kernel. scalars, address: results of `table`; flags: other fields of the kernel's argument."""
    if not slot.rows * slot.width:
        return
    device = current()
    call = np.zeros((), SWEEP)
    fill(call["slot"], slot)
    for field, (first, rest) in (("scalar", scalars), ("address", address)):
        call[field][: len(first)] = first
        call[{"scalar": "scalars", "address": "addresses"}[field]] = 0 if rest is None else device.memory.address(rest)
    call["count"], call["status"], call["launch"] = len(scalars[0]), device.status(), launched
    for field, value in flags.items():
        call[field] = value
    contiguous = pack_size([slot], dtype, "map")
    pack = contiguous if name != "noise" and not flags.get("drawn") else 1
    grid, block = grid_and_block([slot], 16 // dtype.itemsize, "map", device.processors())
    device.launch(source, f"{name}_f{dtype.itemsize * 8}x{pack}", grid, block, call)


@dataclass(frozen=True)
class SweepKernel(SweepCall):
    """A sweep of gpu/<source>.cu."""

    source: str

    def memory(self) -> ar.Memory:
        """Return the device's memory."""
        return current().memory

    def number(self, value: Any) -> Any:
        """Return the number as a float, which is passed in the kernel's argument."""
        return float(value)

    def __call__(
        self,
        values: Sequence[Any],
        scalars: Sequence[Any],
        seed: Any,
        steps: Sequence[Any],
        noise: Sequence[Any],
        out: Any,
        stream: Any = None,
    ) -> tuple[Any, ...]:
        """Run the sweep; return the tuple of results in the caller's array library."""
        device = current()
        batch, read = self.inputs(values)
        operands: list[Any] = list(read)
        count, _ = rows.extent(batch.shape)
        normals = self.read_normals(batch, steps, noise)
        columns = self.address(seed, steps, count)
        given, _ = self.coefficients(scalars, batch.dtype, count)
        others = [v for v in (*values, *noise) if v is not None and not rows.is_number(v)]
        libraries = [*batch.libraries, *(batch.views.view(self.name, v)[1] for v in others)]
        with device.on(libraries, batch.arrays, stream):
            outputs = self.outputs(batch, operands, normals, out)
            slot = self._slot(batch, operands, normals, outputs)
            alone = sum(1 << k for k, o in enumerate(operands) if hasattr(o, "shape") and self._is_alone(k, o, batch))
            run(
                self.source,
                self.name,
                slot,
                batch.dtype,
                table(device, given, count, np.float64),
                self._addresses(device, columns, count),
                self._register(batch, operands, normals, outputs),
                number=[o if isinstance(o, float) else 0.0 for o in operands] + [0.0] * (INPUTS - len(operands)),
                alone=alone,
                drawn=sum(1 << k for k, n in enumerate(normals) if n.drawn),
            )
            return batch.library.wrap(outputs, out)

    def _is_alone(self, k: int, operand: Any, batch: ar.Batch) -> bool:
        return self.operands[k][2] and rows.is_alone(operand, batch)

    def _addresses(self, device: Device, columns: Any, count: int) -> tuple[list[Any], Any]:
        """Return seed and counters in the form of `table`, from the flattened table of all rows."""
        whole = columns.reshape(count, -1) if count else columns.reshape(0, 1 + len(self.normals))
        same = count < 2 or (whole == whole[0]).all()
        first = list(whole[0]) if count else []
        return first, None if same else device.memory.xp.asarray(np.ascontiguousarray(columns))

    def _slot(
        self, batch: ar.Batch, operands: Sequence[Any], normals: Sequence[NormalSource], outputs: Sequence[Any]
    ) -> Slot:
        """Return the addresses of inputs and outputs; those of numbers and of drawn normals are 0."""
        count, width = rows.extent(batch.shape)
        address = batch.memory.address
        inputs, steps = [], []
        for k, operand in enumerate(operands):
            has_memory = hasattr(operand, "shape")
            inputs.append(address(operand) if has_memory else 0)
            alone = has_memory and self._is_alone(k, operand, batch)
            whole = has_memory and operand.shape == batch.shape
            steps.append(int(operand.size == count) if alone else width if whole else 0)
        for normal in normals:
            read = None if normal.drawn else normal.array
            inputs.append(0 if read is None else address(read))
            steps.append(width if read is not None and read.shape == batch.shape else 0)
        written = [address(o) for o in outputs]
        written += [address(n.array) if n.kept and n.array is not None else 0 for n in normals]
        return Slot(inputs, steps, written, count, width)

    def _register(
        self, batch: ar.Batch, operands: Sequence[Any], normals: Sequence[NormalSource], outputs: Sequence[Any]
    ) -> int:
        """Register the launch and return its number; the explanation of its error holds no array."""
        address, shape, dtype = batch.memory.address, batch.shape, batch.dtype
        named = [(n, d, o) for (n, d, _), o in zip(self.operands, operands, strict=True)]
        named += [(n.name, "real", n.array) for n in normals]
        whole = [(name, domain, getattr(a, "shape", None) or shape) for name, domain, a in named]
        inputs = {address(a) for _, _, a in named if hasattr(a, "shape")}
        over = [address(o) in inputs for o in outputs]

        def explain(failure: status.Failure) -> None:
            self._explain(whole, over, shape, dtype, failure)

        return status.register(self.name, explain)

    def _explain(
        self,
        inputs: Sequence[tuple[str, str, tuple[int, ...]]],
        overwritten: Sequence[bool],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        failure: status.Failure,
    ) -> None:
        """Raise the error of the first input outside its domain at the failing coordinate, else of the first result."""
        with np.errstate(over="ignore"):
            numbers = [dtype.type(v) for v in failure.values]
        count, width = rows.extent(shape)
        row, column = divmod(failure.index, max(1, width))
        for value, (name, domain, own) in zip(numbers, inputs, strict=False):
            flat = failure.index if own == shape else row if own == (count, 1) else 0 if own == (1,) else column
            ar.refuse_value(name, domain, value, ar.where(flat, own))
        results = numbers[len(inputs) :]
        for k in self.in_order():
            if ar.first_outside(np.array([results[k]]), self.results[k][1]) is not None:
                self.refuse_result(k, results[k], ar.where(failure.index, shape), overwritten[k])


@dataclass(frozen=True)
class NoiseKernel:
    """The normals of a sweep without the sweep."""

    name: str
    source: str

    def __call__(self, seed: Any, step: Any, out: Any, stream: Any = None) -> Any:
        """Fill `out` with normals and return it."""
        device = current()
        views = ar.Views(device.memory)
        array, library = views.view("out", out)
        array = checked_out("out", out, array.shape, array.dtype, views)
        count, width = rows.extent(array.shape)
        columns = [rows.integer("seed", seed, count), rows.integer("step", step, count)]
        with device.on([library], [array], stream):
            slot = Slot([], [], [device.memory.address(array)], count, width)
            run(self.source, self.name, slot, array.dtype, ([], None), table(device, columns, count, np.uint64), 0)
        return out
