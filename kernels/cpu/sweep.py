"""What stands between a caller's arrays and an optimizer's loops: checks, rows and their scalars, normals, threads.

The generated module holds records of the classes below. Shapes, dtypes, layout and scalars are checked before a call;
the domains of the results inside its own pass, and only when that reports a miss are the arrays scanned to name one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import arrays as ar
from kernels import rows
from kernels.cpu import threads
from kernels.sweeps import Normal, SweepCall, pair

__all__ = ["NoiseKernel", "SweepKernel", "pair"]

Array = np.ndarray[Any, Any]
GRAIN = 1 << 15  # fewest coordinates worth a thread: a step does several times a map's work
NOTHING = {np.dtype(t): np.empty(0, t) for t in ("float32", "float64")}


@dataclass(frozen=True)
class SweepKernel(SweepCall):
    """A sweep in compiled loops."""

    single: Callable[..., Any]
    double: Callable[..., Any]

    def __call__(
        self,
        values: Sequence[Any],
        scalars: Sequence[Any],
        seed: Any,
        steps: Sequence[Any],
        noise: Sequence[Any],
        out: Any,
    ) -> tuple[Any, ...]:
        """Run the sweep; returns the tuple of results in the callers' array library."""
        batch, arrays = self.inputs(values)
        count, width = rows.extent(batch.shape)
        normals = self.read_normals(batch, steps, noise)
        address = self.address(seed, normals, count)
        _, uniforms = self.coefficients(scalars, batch.dtype, count)
        outputs = self.outputs(batch, arrays, normals, out)
        loop = self.single if batch.dtype == np.float32 else self.double
        arguments = [
            width,
            address,
            uniforms,
            *self._sources(batch, arrays, normals, count, width),
            *map(rows.flat, outputs),
        ]

        def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
            return int(loop(row_lo, row_hi, lo, hi, *arguments))

        if threads.over(run, count, width, GRAIN):
            self._refuse(arrays, normals, outputs)
        return batch.library.wrap(outputs, out)

    def _sources(
        self, batch: ar.Batch, arrays: Sequence[Array], normals: Sequence[Normal], count: int, width: int
    ) -> list[Any]:
        """The loop's arguments for its inputs: memory, step between rows, and whether scratch stands for it."""
        found: list[Any] = []
        for array, (_, _, scalar) in zip(arrays, self.operands, strict=True):
            whole = array.shape == batch.shape
            alone = scalar and rows.is_alone(array, batch)
            found += [rows.flat(array), width if whole else 1 if alone and array.size == count else 0]
            found += [alone] if scalar else []
        for normal, (_, _, keeps) in zip(normals, self.normals, strict=True):
            array = NOTHING[batch.dtype] if normal.array is None else normal.array
            found += [rows.flat(array), width if array.shape == batch.shape else 0, normal.drawn]
            found += [normal.kept] if keeps else []
        return found

    def _refuse(self, arrays: Sequence[Array], normals: Sequence[Normal], outputs: Sequence[Array]) -> None:
        """Name the first input outside its domain, or the first result where the inputs were overwritten."""
        written = {ar.address(o) for o in outputs}
        inputs = [(n, domain, a) for (n, domain, _), a in zip(self.operands, arrays, strict=True)]
        inputs += [(n.name, "real", n.array) for n in normals if n.array is not None and not n.drawn]
        for name, domain, array in inputs:
            if ar.address(array) not in written:
                ar.refuse(name, domain, array)
        for k in self.in_order():
            array, domain = outputs[k], self.results[k][1]
            index = ar.first_outside(array, domain)
            if index is not None:
                overwritten = any(ar.address(array) == ar.address(a) for a in arrays)
                self.refuse_result(k, array.reshape(-1)[index], ar.where(index, array.shape), overwritten)


@dataclass(frozen=True)
class NoiseKernel:
    """Normals alone."""

    name: str
    single: Callable[..., Any]
    double: Callable[..., Any]

    def __call__(self, seed: Any, step: Any, out: Any) -> Any:
        """Fill `out` and return it."""
        array, _ = ar.view("out", out)
        array = ar.checked_out("out", out, array.shape, array.dtype)
        count, width = rows.extent(array.shape)
        address = rows.table([rows.integer("seed", seed, count), rows.integer("step", step, count)], count, np.uint64)
        loop, flat = self.single if array.dtype == np.float32 else self.double, rows.flat(array)

        def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
            return int(loop(row_lo, row_hi, lo, hi, width, address, flat))

        threads.over(run, count, width, GRAIN)
        return out
