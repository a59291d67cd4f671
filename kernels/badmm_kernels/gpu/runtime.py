"""Calls of elementwise kernels and sums on a GPU, whose loops are in loops.cuh.

The generated modules hold instances of the classes below. Shapes, dtypes, layout and devices are checked before a
launch. The kernel itself tests the domains, and the host does not wait for it (status.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm_kernels.face import arrays as ar
from badmm_kernels.face.calls import SLOTWISE, ElementwiseCall, MapCall, check_clients, refuse_results, slot_batches
from badmm_kernels.face.outputs import prepare
from badmm_kernels.gpu import status
from badmm_kernels.gpu.device import current
from badmm_kernels.gpu.launch import CHUNK, PARTIAL, TOTAL, TOTAL_AND_STATUS, EntryPoint, Slot, launch

DOUBLE = np.dtype(np.float64)
PARTIAL_SUMS = EntryPoint("common", "partial_sums", "sum")


@dataclass(frozen=True)
class Inputs:
    """The description of a batch that errors need, without its memory."""

    names: list[str]
    shapes: list[tuple[int, ...]]
    steps: list[int]
    shape: tuple[int, ...]
    width: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, batch: ar.Batch) -> Inputs:
        """Describe the inputs of a batch."""
        shapes = [a.shape for a in batch.arrays]
        return cls(list(batch.names), shapes, list(batch.steps), batch.shape, batch.width, batch.dtype)


def slot_of(batch: ar.Batch, outputs: Sequence[Any]) -> Slot:
    """Return the addresses of a batch and its outputs."""
    address = batch.memory.address
    inputs, out = [address(a) for a in batch.flat], [address(o) for o in outputs]
    return Slot(inputs, batch.steps, out, batch.rows, batch.width)


def reduce_rows(
    terms: EntryPoint,
    slot: Slot,
    dtype: np.dtype[Any],
    numbers: Sequence[float],
    number: int,
    count: int,
    last: int,
    result: Any,
) -> None:
    """Sum the terms of each of `count` rows into `result`: sums of `CHUNK` terms, then sums of `CHUNK` such sums, …"""
    device = current()
    xp, address = device.memory.xp, device.memory.address
    kept = []  # the memory of partial sums must outlive the launch that reads them
    while True:
        partials = slot.rows * -(-slot.width // CHUNK)
        done = partials == count
        out = result if done else xp.empty(partials, DOUBLE)
        filled = Slot(slot.inputs, slot.steps, [address(out)], slot.rows, slot.width)
        launch(device, terms, [filled], dtype, numbers, number, last if done else PARTIAL)
        if done:
            return
        width = partials // count
        slot = Slot([address(out)], [width], [], count, width)
        terms, dtype, numbers = PARTIAL_SUMS, DOUBLE, ()
        kept.append(out)


def total(terms: EntryPoint, slot: Slot, dtype: np.dtype[Any], numbers: Sequence[float], number: int) -> float:
    """Return the sum of all terms; the host waits. The last kernel also reads the record of domain errors, so that one
    copy transfers both."""
    device = current()
    result = device.memory.xp.empty(2, DOUBLE)
    reduce_rows(terms, slot, dtype, numbers, number, 1, TOTAL_AND_STATUS, result)
    value, failed = device.read(result)
    if failed:
        status.raise_first(device, None, number)
    return float(value)


@dataclass(frozen=True)
class DeviceCall(ElementwiseCall):
    """A kernel of gpu/<source>.cu."""

    source: str

    def memory(self) -> ar.Memory:
        """Return the device's memory."""
        return current().memory

    def on(self, inputs: Sequence[ar.Batch], stream: Any) -> AbstractContextManager[Any]:
        """Return a context that selects the arrays' device and the stream of the call."""
        libraries = [library for batch in inputs for library in batch.libraries]
        return current().on(libraries, inputs[0].arrays, stream)

    def _refuse(self, inputs: Inputs, failure: status.Failure, value: Any) -> None:
        """Raise the error of the operand that a sum found outside its domain, if any; the index is that operand's."""
        if failure.operand < len(self.operands):
            own = inputs.shapes[failure.operand]
            at = ar.where(failure.index % math.prod(own), own)  # a shared input may have been repeated
            domain = self.operands[failure.operand][1]
            ar.refuse_value(inputs.names[failure.operand], domain, inputs.dtype.type(value), at)
        elif failure.operand < status.OVERFLOWED:  # a term that operands give together
            index = ar.where(failure.index, inputs.shape)
            self.refuse_jointly(failure.values[: len(self.operands)], lambda _inside: index)


@dataclass(frozen=True)
class MapKernel(MapCall, DeviceCall):
    """An elementwise map; all slots run in one launch."""

    def run(self, batches: Sequence[ar.Batch], numbers: tuple[Any, ...], outputs: Sequence[Sequence[Any]]) -> None:
        """Compute the outputs of all slots in one launch."""
        kept = [Inputs.of(b) for b in batches]
        number = status.register(self.name, lambda failure: self._explain(kept[failure.slot], failure))
        slots = [slot_of(b, o) for b, o in zip(batches, outputs, strict=True)]
        launch(current(), EntryPoint(self.source, self.name, "map"), slots, batches[0].dtype, numbers[0], number)

    def _explain(self, inputs: Inputs, failure: status.Failure) -> None:
        """Raise the error of the first operand outside its domain at the failing coordinate, else of the result."""
        row, column = divmod(failure.index, max(1, inputs.width))
        with np.errstate(over="ignore"):
            numbers = [inputs.dtype.type(v) for v in failure.values]
        count = len(self.operands)
        for k, (_, domain) in enumerate(self.operands):
            at = ar.where(row * inputs.steps[k] + column, inputs.shapes[k])
            ar.refuse_value(inputs.names[k], domain, numbers[k], at)
        index = ar.where(failure.index, inputs.shape)
        self.refuse_jointly(numbers[:count], lambda _inside: index)
        refuse_results(self, inputs.names, numbers[:count], numbers[count : count + len(self.results)], index)


@dataclass(frozen=True)
class ReductionKernel(DeviceCall):
    """A sum over coordinates in float64 in a fixed order: over all (`axis=None`) or the last axis (`axis=-1`)."""

    def __call__(self, values: Sequence[Any], scalars: Sequence[Any], axis: int | None, stream: Any = None) -> Any:
        """Run the reduction; return a Python float (the host waits) or a float64 array of the leading shape (it does
        not)."""
        ar.check_axis(axis)
        batch = ar.batch(self.names, values, ar.Views(self.memory()))
        numbers, _ = self.numbers(scalars, DOUBLE)
        with self.on([batch], stream):
            if axis == -1 or batch.rows > 1:
                batch = batch.by_rows()
            inputs = Inputs.of(batch)
            number = status.register(self.name, lambda failure: self._explain(inputs, failure))
            if axis == -1:
                return self._rows(batch, numbers, number)
            return self._total(batch, numbers, number)

    def _rows(self, batch: ar.Batch, numbers: tuple[float, ...], number: int) -> Any:
        """Return one sum per row, on the device."""
        result = batch.memory.empty(batch.library, batch.shape[:-1], DOUBLE)
        if batch.rows * batch.width == 0:
            result.fill(0.0)
        else:
            terms = EntryPoint(self.source, self.name, "sum")
            reduce_rows(terms, slot_of(batch, ()), batch.dtype, numbers, number, batch.rows, TOTAL, result)
        return batch.library.wrap([result], None)[0]

    def _total(self, batch: ar.Batch, numbers: tuple[float, ...], number: int) -> float:
        """Return the sum of all terms, on the host."""
        if batch.rows * batch.width == 0:
            return 0.0
        return total(EntryPoint(self.source, self.name, "sum"), slot_of(batch, ()), batch.dtype, numbers, number)

    def _explain(self, inputs: Inputs, failure: status.Failure) -> None:
        """Raise the error of the operand outside its domain, else of the sum."""
        self._refuse(inputs, failure, failure.values[min(failure.operand, len(self.operands) - 1)])
        raise ValueError(f"{self.name}: the sum overflows float64")


@dataclass(frozen=True)
class ClientSumKernel(DeviceCall):
    """A sum over the leading client axis with float64 accumulators; all slots run in one launch."""

    def slotwise(
        self, names: Sequence[str], arguments: SLOTWISE, scalars: Sequence[Any], out: Any, stream: Any = None
    ) -> tuple[Any, ...]:
        """Run the sum; return one array per slot, without the client axis."""
        views = ar.Views(self.memory())
        batches = slot_batches(names, arguments, views)
        check_clients(batches)
        dtype, library = batches[0].dtype, batches[0].library
        numbers, _ = self.numbers((*scalars, batches[0].shape[0]), DOUBLE)
        named = [pair for b in batches for pair in b.named]
        kept = [Inputs.of(b) for b in batches]
        number = status.register(self.name, lambda failure: self._explain(kept[failure.slot], failure))
        with self.on(batches, stream):
            shapes = [b.shape[1:] for b in batches]
            outputs = prepare(out, shapes, dtype, named, [()] * len(names), views, library=library)
            slots = []
            for batch, output in zip(batches, outputs, strict=True):
                whole = slot_of(batch, [output])
                width = math.prod(batch.shape[1:])
                slots.append(Slot(whole.inputs, whole.steps, whole.outputs, batch.shape[0], width))
            launch(current(), EntryPoint(self.source, self.name, "client_sum"), slots, dtype, numbers, number)
            return library.wrap(outputs, out)

    def _explain(self, inputs: Inputs, failure: status.Failure) -> None:
        """Raise the error of the operand outside its domain, else of the sum."""
        self._refuse(inputs, failure, failure.values[0])
        raise ValueError(f"{self.name}: the sum overflows {inputs.dtype}")
