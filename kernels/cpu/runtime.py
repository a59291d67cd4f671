"""What stands between a caller's arrays and the generated loops: checks, threads, outputs, and the words of an error.

The generated modules hold records of the classes below. Shapes, dtypes and layout are checked before a call; domains
inside the kernel's own pass, and only when that reports a miss are the inputs scanned again to name the argument and
the index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernels import arrays as ar
from kernels.cpu import threads

Array = np.ndarray[Any, Any]
BLOCK = 1 << 16  # coordinates a partial sum: fixed, so that reductions do not depend on the number of threads
TILE = 1 << 11  # float64 accumulators a tile of server_total: 16 KiB, half a first-level cache
SLOTWISE = tuple[tuple[str, Sequence[Any]], ...]


def slots(name: str, value: Any, names: Sequence[str]) -> Sequence[Any]:
    """A tuple argument, checked to have one array a slot."""
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        got = f"{len(value)} of them" if isinstance(value, (tuple, list)) else type(value).__name__
        raise ValueError(f"{name}: expected a tuple of {len(names)} arrays ({', '.join(names)}), got {got}")
    return value


@dataclass(frozen=True)
class _Elementwise:
    """What maps and reductions share: named operands with domains, public scalars, uniforms, one loop a precision."""

    name: str
    operands: tuple[tuple[str, str], ...]
    scalars: tuple[tuple[str, str], ...]
    uniforms: Callable[..., tuple[float, ...]]
    single: Callable[..., Any]
    double: Callable[..., Any]

    def _prepare(
        self, values: Sequence[Any], scalars: Sequence[Any], names: Sequence[str]
    ) -> tuple[ar.Batch, tuple[Any, ...]]:
        batch = ar.batch(names, values)
        numbers = [ar.scalar(n, domain, v) for (n, domain), v in zip(self.scalars, scalars, strict=True)]
        return batch, self.uniforms(*numbers)

    def _loop(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        return self.single if dtype == np.float32 else self.double

    def _refuse(self, batch: ar.Batch, outputs: Sequence[Array] = ()) -> None:
        """Name the first argument and index outside its domain."""
        for (_, domain), name, value in zip(self.operands, batch.names, batch.arrays, strict=True):
            ar.refuse(name, domain, value)
        for number, out in enumerate(outputs):
            bad = ~np.isfinite(out.reshape(-1))
            if bad.any():
                index = int(np.argmax(bad))
                got = f"{out.reshape(-1)[index]} at index {ar.where(index, out.shape)}"
                raise ValueError(f"{self.name}: result {number} overflows {out.dtype} (got {got})")


@dataclass(frozen=True)
class MapKernel(_Elementwise):
    """Elementwise: one output array a result, same shape as the widest input."""

    results: tuple[str, ...] = field(default=("real",))

    def __call__(
        self, values: Sequence[Any], scalars: Sequence[Any], out: Any, names: Sequence[str] = ()
    ) -> tuple[Any, ...]:
        """Run the map; returns the tuple of results in the callers' array library."""
        batch, uniforms = self._prepare(values, scalars, names or [n for n, _ in self.operands])
        outputs = ar.outputs(out, len(self.results), batch)
        typed = [batch.dtype.type(u) for u in uniforms]
        steps = [x for pair in zip(batch.flat, batch.steps, strict=True) for x in pair]
        flat = [o.reshape(-1) for o in outputs]
        loop = self._loop(batch.dtype)

        def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
            return int(loop(row_lo, row_hi, lo, hi, batch.width, *steps, *typed, *flat))

        if threads.over(run, batch.rows, batch.width):
            self._refuse(batch)
            self._refuse_results(batch, outputs)
            self._refuse(batch, outputs)
        return batch.library.wrap(outputs, out)

    def _refuse_results(self, batch: ar.Batch, outputs: Sequence[Array]) -> None:
        for number, domain in enumerate(self.results):
            index = ar.first_outside(outputs[number], domain) if domain != "real" else None
            if index is not None:
                point = ", ".join(
                    f"{n} = {a.reshape(-1)[index % a.size]}" for n, a in zip(batch.names, batch.arrays, strict=True)
                )
                at = ar.where(index, outputs[number].shape)
                raise ValueError(
                    f"{batch.names[-1]}: expected a point of the family's expectation domain, got {point} at index {at}"
                )

    def slotwise(self, names: Sequence[str], arguments: SLOTWISE, scalars: Sequence[Any], out: Any) -> tuple[Any, ...]:
        """Apply the map to every slot of tuple arguments in turn."""
        checked = [(n, slots(n, v, names)) for n, v in arguments]
        ar.check_out_tuple(out, len(names))
        results: list[Any] = []
        for k, slot in enumerate(names):
            one = None if out is None else (out[k],)
            results += self([v[k] for _, v in checked], scalars, one, [f"{n}.{slot}" for n, _ in checked])
        return tuple(results)


@dataclass(frozen=True)
class ReductionKernel(_Elementwise):
    """Σ over coordinates in float64: `axis=None` all of them, `axis=-1` those of the last axis."""

    def __call__(self, values: Sequence[Any], scalars: Sequence[Any], axis: int | None) -> Any:
        """Run the reduction: a Python float, or a float64 array of the leading shape."""
        ar.check_axis(axis)
        batch, uniforms = self._prepare(values, scalars, [n for n, _ in self.operands])
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

        outside = threads.over(run, batch.rows, blocks, grain=max(1, threads.GRAIN // max(1, min(batch.width, BLOCK))))
        totals = partial.sum(axis=0)
        if outside or not np.isfinite(totals).all():
            self._refuse(batch)
            raise ValueError(f"{self.name}: the sum overflows float64")
        if axis is None:
            return float(math.fsum(totals))
        return batch.library.array(totals.reshape(batch.shape[:-1]))


@dataclass(frozen=True)
class ClientSumKernel(_Elementwise):
    """Σ over the leading client axis, slot by slot."""

    def slotwise(self, names: Sequence[str], arguments: SLOTWISE, scalars: Sequence[Any], out: Any) -> tuple[Any, ...]:
        """One array a slot, without the client axis."""
        checked = [(n, slots(n, v, names)) for n, v in arguments]
        ar.check_out_tuple(out, len(names))
        results: list[Any] = []
        for k, slot in enumerate(names):
            results += self._slot(
                [v[k] for _, v in checked],
                scalars,
                None if out is None else (out[k],),
                [f"{n}.{slot}" for n, _ in checked],
            )
        return tuple(results)

    def _slot(self, values: Sequence[Any], scalars: Sequence[Any], out: Any, names: Sequence[str]) -> tuple[Any, ...]:
        batch = ar.batch(names, values)
        for name, array in zip(names, batch.arrays, strict=True):
            if array.ndim < 1 or array.shape != batch.shape:
                raise ValueError(
                    f"{name}: expected a leading client axis, shape {batch.shape}, got shape {array.shape}"
                )
        clients = batch.shape[0]
        if clients < 1:
            raise ValueError(f"{names[0]}: expected at least one client, got shape {batch.shape}")
        width = math.prod(batch.shape[1:])
        numbers = [ar.scalar(n, d, v) for (n, d), v in zip(self.scalars, (*scalars, clients), strict=True)]
        uniforms = self.uniforms(*numbers)
        (result,) = ar.outputs(out, 1, batch, shape=batch.shape[1:])
        flat, loop = result.reshape(-1), self._loop(batch.dtype)

        def run(_row_lo: int, _row_hi: int, lo: int, hi: int) -> int:
            return int(loop(clients, lo, hi, width, *batch.flat, *uniforms, np.empty(TILE), flat))

        if threads.over(run, 1, width, grain=max(TILE, threads.GRAIN // clients)):
            self._refuse(batch, [result])
        return batch.library.wrap([result], out)


@dataclass(frozen=True)
class MatrixKernel:
    """A function of one vector-and-matrix member, in LAPACK calls, looped over leading axes."""

    name: str
    operands: tuple[tuple[str, str], ...]
    one: Callable[..., Any]
    reduction: bool

    def __call__(self, values: Sequence[Any], _scalars: Sequence[Any], option: Any) -> Any:
        """`option` is `out` for a map and `axis` for a reduction."""
        from kernels.cpu import linalg

        names = [n for n, _ in self.operands]
        member = ar.members(names, [d for _, d in self.operands], values)
        for (name, domain), array in zip(self.operands, member.arrays, strict=True):
            ar.refuse(name, "real", array)
            if domain in ("spd", "symmetric"):
                linalg.check_symmetric(name, array)
        if self.reduction:
            ar.check_axis(option)
        outputs = None if self.reduction else ar.member_outputs(option, member)
        results = []
        for index in np.ndindex(member.lead):
            with linalg.naming(names, index):
                value = self.one(
                    *[a[index] if a.ndim > own else a for a, own in zip(member.arrays, member.ranks, strict=True)]
                )
            if outputs is None:
                results.append(value)
                continue
            for out, part in zip(outputs, value, strict=True):
                out[index] = part
        if outputs is not None:
            for out in outputs:
                if not np.isfinite(out).all():
                    raise ValueError(f"{self.name}: the result overflows {out.dtype}")
            return member.library.wrap(outputs, option)
        if option is None:
            return float(math.fsum(results))
        return member.library.array(np.array(results).reshape(member.lead))
