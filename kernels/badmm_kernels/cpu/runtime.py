"""Calls of the generated CPU loops: argument checks, threads, outputs, error messages.

The generated modules hold instances of the classes below. Shapes, dtypes and layout are checked before a loop runs.
The loop itself tests the domains; only if it reports a failure are the inputs scanned again to find the argument and
the index. Small NumPy arrays of one shape and type, with new outputs, need none of the checks: such a call takes a
quarter of the time (`python -m benchmarks.calls`), and one that fails is made again with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.core.registry import cpu_target

from badmm_kernels.cpu import threads
from badmm_kernels.face import arrays as ar
from badmm_kernels.face.calls import (
    SLOTWISE,
    ElementwiseCall,
    MapCall,
    MatrixCall,
    check_clients,
    refuse_results,
    slot_batches,
)
from badmm_kernels.face.exchange import DTYPES
from badmm_kernels.face.outputs import prepare

cpu_target.target_context.refresh()  # fills Numba's tables now, not during the first call of a kernel

Array = np.ndarray[Any, Any]
BLOCK = 1 << 16  # coordinates per partial sum: fixed, so that reductions do not depend on the number of threads
SAVED = 1 << 14  # coordinates per block of an in-place call: the saved copy stays in the second-level cache
FLOAT64 = np.dtype(np.float64)
TILE = 1 << 16  # float64 accumulators per tile of server_total: they fit the second-level cache, rows still prefetch
Region = tuple[int, int, int, int]  # first row and column, last row and column (exclusive)


@dataclass(frozen=True)
class _Compiled(ElementwiseCall):
    """A kernel with one compiled loop per dtype."""

    single: Callable[..., Any]
    double: Callable[..., Any]

    def _loop(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        return self.single if dtype == np.float32 else self.double

    def _refuse(self, batch: ar.Batch) -> None:
        """Raise the error of the first argument and index outside its domain, if any."""
        for (_, domain), name, value in zip(self.operands, batch.names, batch.arrays, strict=True):
            ar.refuse(name, domain, value)
        self.refuse_jointly(batch.arrays, lambda inside: ar.where(int(np.argmin(inside)), inside.shape))


def _small(values: Sequence[Any]) -> Array | None:
    """Return the first of NumPy arrays in C's order that agree in shape and type and are not worth a second thread."""
    first = values[0]
    if type(first) is not np.ndarray or first.dtype not in DTYPES or not 0 < first.size <= threads.GRAIN:
        return None
    shape, dtype = first.shape, first.dtype
    for value in values:
        if type(value) is not np.ndarray or value.shape != shape or value.dtype != dtype:
            return None
        if not value.flags.c_contiguous:
            return None
    return first


@dataclass(frozen=True)
class MapKernel(MapCall, _Compiled):
    """An elementwise map in compiled loops, one slot after the other."""

    def __call__(self, values: Sequence[Any], scalars: Sequence[Any], out: Any, stream: Any = None) -> tuple[Any, ...]:
        """Run the map; return the tuple of results in the caller's array library."""
        if out is None and (first := _small(values)) is not None:
            numbers = self.numbers(scalars, self.computes_in(first.dtype))[1]
            if (results := self._direct(first, values, numbers)) is not None:
                return results
        return super().__call__(values, scalars, out, stream)

    def slotwise(
        self, names: Sequence[str], arguments: SLOTWISE, scalars: Sequence[Any], out: Any, stream: Any = None
    ) -> tuple[Any, ...]:
        """Check tuple arguments and apply the map to every slot."""
        if out is None and (results := self._slots(len(names), [v for _, v in arguments], scalars)) is not None:
            return results
        return super().slotwise(names, arguments, scalars, out, stream)

    def _slots(self, count: int, arguments: Sequence[Any], scalars: Sequence[Any]) -> tuple[Any, ...] | None:
        """Return the results of small slots of one shape; None for other slots and where a result is not finite."""
        if any(type(a) is not tuple or len(a) != count for a in arguments):
            return None
        slots = list(zip(*arguments, strict=True))
        firsts = [_small(slot) for slot in slots]
        lead = firsts[0]
        if lead is None:
            return None
        shapes = (lead.shape, lead.shape + lead.shape[-1:])  # vectors, or vectors and matrices
        numbers = self.numbers(scalars, self.computes_in(lead.dtype))[1]
        found = []
        for first, slot in zip(firsts, slots, strict=True):
            if first is None or first.shape not in shapes or first.dtype != lead.dtype:
                return None
            if (results := self._direct(first, slot, numbers)) is None:
                return None
            found.append(results)
        groups = tuple(zip(*found, strict=True))
        return groups[0] if len(groups) == 1 else groups

    def _direct(self, like: Array, values: Sequence[Array], numbers: tuple[Any, ...]) -> tuple[Array, ...] | None:
        """Return results in new arrays; None if a coordinate is outside its domain."""
        size = like.size
        steps = [x for value in values for x in (value.reshape(-1), size)]
        outputs = tuple(np.empty_like(like) for _ in self.results)
        flat = [o.reshape(-1) for o in outputs]
        return None if self._loop(like.dtype)(0, 1, 0, size, size, *steps, *numbers, *flat) else outputs

    def run(self, batches: Sequence[ar.Batch], numbers: tuple[Any, ...], outputs: Sequence[Sequence[Array]]) -> None:
        """Compute the outputs slot by slot."""
        for batch, output in zip(batches, outputs, strict=True):
            self._run(batch, numbers[1], list(output))

    def _run(self, batch: ar.Batch, numbers: tuple[Any, ...], outputs: list[Array]) -> None:
        steps = [x for pair in zip(batch.flat, batch.steps, strict=True) for x in pair]
        flat = [o.reshape(-1) for o in outputs]
        loop = self._loop(batch.dtype)
        inside = batch.aliased(outputs)
        if inside and all(domain == "real" for _, domain in self.operands):
            # The results are finite unless an input is not, so an error is located without a copy of the inputs.
            whole = lambda r0, r1, c0, c1: int(loop(r0, r1, c0, c1, batch.width, *steps, *numbers, *flat))  # noqa: E731
            if threads.split(whole, batch.rows, batch.width):
                self._explain_in_place(batch, outputs)
            return
        overwritten = [a.reshape(batch.rows, batch.width) for a in inside]
        failed: list[Region] = []

        def attempt(region: Region, undo: bool = True, scratch: Sequence[Array] = ()) -> int:
            r0, c0, r1, c1 = region
            before = [
                s[: r1 - r0, : c1 - c0] for s in scratch or [np.empty((r1 - r0, c1 - c0), a.dtype) for a in overwritten]
            ]
            for a, saved in zip(overwritten, before, strict=True):
                saved[...] = a[r0:r1, c0:c1]
            outside = int(loop(r0, r1, c0, c1, batch.width, *steps, *numbers, *flat))
            if outside and undo:
                for a, saved in zip(overwritten, before, strict=True):
                    a[r0:r1, c0:c1] = saved
            return outside

        def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
            # In place, block by block: a failing block is restored, so that the error quotes the caller's values.
            columns = max(1, min(hi - lo, SAVED) if overwritten else hi - lo)
            rows = max(1, SAVED // columns) if overwritten else max(1, row_hi - row_lo)
            rows = min(rows, max(1, row_hi - row_lo))
            scratch = [np.empty((rows, columns), a.dtype) for a in overwritten]
            for row in range(row_lo, row_hi, rows):
                for start in range(lo, hi, columns):
                    region = (row, start, min(row_hi, row + rows), min(hi, start + columns))
                    if attempt(region, scratch=scratch):
                        failed.append(region)
                        return 1
            return 0

        if threads.split(run, batch.rows, batch.width):
            self._explain(batch, outputs, attempt, min(failed))

    def _explain_in_place(self, batch: ar.Batch, outputs: list[Array]) -> None:
        """Raise the error of the first coordinate without a finite result, naming its input (perhaps overwritten)."""
        index, failed = min((i, k) for k, o in enumerate(outputs) if (i := ar.first_outside(o, "real")) is not None)
        row, column = divmod(index, max(1, batch.width))
        written = {ar.address(o) for o in outputs}
        for name, array, flat, step in zip(batch.names, batch.arrays, batch.flat, batch.steps, strict=True):
            if ar.address(array) not in written:
                at = row * step + column
                ar.refuse_value(name, "real", flat[at], ar.where(at, array.shape))
        name = next(n for n, a in batch.named if ar.address(a) in written)
        got = f"{outputs[failed].reshape(-1)[index]} at index {ar.where(index, batch.shape)}"
        raise ValueError(f"{name}: expected finite, with a result that {batch.dtype} can hold, got {got} (overwritten)")

    def _explain(self, batch: ar.Batch, outputs: list[Array], attempt: Callable[..., int], region: Region) -> None:
        """Bisect the failing region down to its first coordinate and raise the error that names it."""
        r0, c0, r1, c1 = region
        while r1 - r0 > 1:
            middle = (r0 + r1) // 2
            r0, r1 = (r0, middle) if attempt((r0, c0, middle, c1)) else (middle, r1)
        while c1 - c0 > 1:
            middle = (c0 + c1) // 2
            c0, c1 = (c0, middle) if attempt((r0, c0, r1, middle)) else (middle, c1)
        values = [a[r0 * step + c0] for a, step in zip(batch.flat, batch.steps, strict=True)]
        for (_, domain), name, array, step, value in zip(
            self.operands, batch.names, batch.arrays, batch.steps, values, strict=True
        ):
            ar.refuse_value(name, domain, value, ar.where(r0 * step + c0, array.shape))
        at = ar.where(r0 * batch.width + c0, batch.shape)
        self.refuse_jointly(values, lambda _inside: at)
        attempt((r0, c0, r0 + 1, c0 + 1), undo=False)
        got = [o.reshape(-1)[r0 * batch.width + c0] for o in outputs]
        refuse_results(self, batch.names, values, got, at)


@dataclass(frozen=True)
class ReductionKernel(_Compiled):
    """A sum over coordinates in float64: over all (`axis=None`) or over the last axis (`axis=-1`)."""

    def __call__(self, values: Sequence[Any], scalars: Sequence[Any], axis: int | None) -> Any:
        """Run the reduction; return a Python float, or a float64 array of the leading shape."""
        if axis is None and (first := _small(values)) is not None and first.ndim == 1:
            partial, size = np.zeros(1), first.size
            steps = [x for value in values for x in (value, size)]
            numbers = self.numbers(scalars, FLOAT64)[1]
            outside = self._loop(first.dtype)(0, 1, 0, size, size, *steps, *numbers, partial)
            if not outside and math.isfinite(total := float(partial[0])):
                return total
        ar.check_axis(axis)
        batch = ar.batch(self.names, values, ar.Views(ar.HOST))
        _, uniforms = self.numbers(scalars, np.dtype(np.float64))
        per_row = axis == -1 and len(batch.shape) > 1
        batch = batch.by_rows() if per_row or batch.rows > 1 else batch
        steps = [x for pair in zip(batch.flat, batch.steps, strict=True) for x in pair]
        loop, blocks = self._loop(batch.dtype), max(1, -(-batch.width // BLOCK))
        partial = np.zeros((blocks, batch.rows))

        def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
            outside = 0
            for block in range(lo, hi):
                stop = min(batch.width, (block + 1) * BLOCK)
                outside |= int(
                    loop(row_lo, row_hi, block * BLOCK, stop, batch.width, *steps, *uniforms, partial[block])
                )
            return outside

        outside = threads.split(run, batch.rows, blocks, grain=max(1, threads.GRAIN // max(1, min(batch.width, BLOCK))))
        totals = partial.sum(axis=0)
        if outside or not np.isfinite(totals).all():
            self._refuse(batch)
            raise ValueError(f"{self.name}: the sum overflows float64")
        if axis is None:
            return float(math.fsum(totals))
        return batch.library.array(totals.reshape(batch.shape[:-1]))


@dataclass(frozen=True)
class ClientSumKernel(_Compiled):
    """A sum over the leading client axis, one slot after the other."""

    def slotwise(self, names: Sequence[str], arguments: SLOTWISE, scalars: Sequence[Any], out: Any) -> tuple[Any, ...]:
        """Run the sum; return one array per slot, without the client axis."""
        views = ar.Views(ar.HOST)
        batches = slot_batches(names, arguments, views)
        check_clients(batches)
        _, numbers = self.numbers((*scalars, batches[0].shape[0]), np.dtype(np.float64))
        named = [pair for b in batches for pair in b.named]
        shapes = [b.shape[1:] for b in batches]
        outputs = prepare(out, shapes, batches[0].dtype, named, [()] * len(names), views)
        for batch, output in zip(batches, outputs, strict=True):
            self._slot(batch, numbers, output)
        return batches[0].library.wrap(outputs, out)

    def _slot(self, batch: ar.Batch, numbers: tuple[Any, ...], output: Array) -> None:
        clients, width = batch.shape[0], math.prod(batch.shape[1:])
        flat, loop = output.reshape(-1), self._loop(batch.dtype)

        def run(_row_lo: int, _row_hi: int, lo: int, hi: int) -> int:
            return int(loop(clients, lo, hi, width, *batch.flat, *numbers, np.empty(TILE), flat))

        if threads.split(run, 1, width, grain=max(TILE, threads.GRAIN // clients)):
            self._refuse(batch)
            raise ValueError(f"{self.name}: the sum overflows {batch.dtype}")


@dataclass(frozen=True)
class MatrixKernel(MatrixCall):
    """A function of one vector and matrix in LAPACK calls, looped over the leading axes."""

    def __call__(self, values: Sequence[Any], _scalars: Sequence[Any], option: Any) -> Any:
        """Run the function; `option` is `out` for a map and `axis` for a reduction."""
        from badmm_kernels.cpu import linalg

        views = ar.Views(ar.HOST)
        member = self.inputs(values, option, views)
        for (name, domain), array in zip(self.operands, member.arrays, strict=True):
            ar.refuse(name, "real", array)
            if domain in ("spd", "symmetric"):
                linalg.check_symmetric(name, array)
        outputs = self.outputs(member, option, views)
        stacked = [n for n, a, rank in zip(self.names, member.arrays, member.ranks, strict=True) if a.ndim > rank]
        results = []
        for index in np.ndindex(member.lead):
            with linalg.member(stacked, index):
                value = self.one(
                    *[a[index] if a.ndim > own else a for a, own in zip(member.arrays, member.ranks, strict=True)]
                )
            if self.reduction:
                results.append(value)
                continue
            for out, part in zip(outputs, value, strict=True):
                out[index] = part
        if not self.reduction:
            for out in outputs:
                if not np.isfinite(out).all():
                    raise ValueError(f"{self.name}: the result overflows {out.dtype}")
            return member.library.wrap(outputs, option)
        if option is None:
            return float(math.fsum(results))
        return member.library.array(np.array(results).reshape(member.lead))
