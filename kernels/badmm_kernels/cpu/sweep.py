"""Calls of an optimizer's CPU loops: argument checks, scalars per row, normals, threads.

The generated module holds instances of the classes below. Shapes, dtypes, layout and scalars are checked before a loop
runs. The loop itself tests the domains; only if it reports a failure are the arrays scanned to find the culprit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm_kernels.cpu import threads
from badmm_kernels.cpu.plain import PlainArrays, accept
from badmm_kernels.face import arrays as ar, rows
from badmm_kernels.face.outputs import checked_out
from badmm_kernels.face.sweeps import CheckedSweep, NormalSource, SweepCall, pair

__all__ = ["NoiseKernel", "SweepKernel", "pair"]

Array = np.ndarray[Any, Any]
GRAIN = 1 << 15  # fewest coordinates worth a thread: a step does several times the work of a map
NO_ADDRESS = np.zeros(2, np.uint64)
NOTHING = {np.dtype(t): np.empty(0, t) for t in ("float32", "float64")}


@dataclass(frozen=True)
class SweepKernel(SweepCall):
    """A sweep in compiled loops.

    Usual calls take the fast acceptance path of cpu/plain.py; all others the full checks (`python -m benchmarks.calls`
    measures both).
    """

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
        """Run the sweep; return the tuple of results in the caller's array library."""
        plain = self._accept(values, steps, noise, out)
        if plain is None:
            return self._run_checked(self.check(values, scalars, seed, steps, noise, out), out)
        count, width = rows.extent(plain.shape)
        sources = self._plain_sources(plain, values, steps, count, width)
        address = self.address(seed, steps, count)
        _, uniforms = self.coefficients(scalars, plain.dtype, count)
        given = plain.flat[len(values) + len(noise) :]
        results = [np.empty(plain.shape, plain.dtype) for _ in self.results] if out is None else given
        outputs = [result.reshape(-1) for result in results]
        if self._run(plain.dtype, count, width, [address, uniforms, *sources, *outputs]):
            batch, arrays = self.inputs(values)
            whole = [output.reshape(plain.shape) for output in outputs]
            self._refuse(arrays, self.read_normals(batch, steps, noise), whole)
        return plain.library.wrap(results, out)

    def sources(self, values: Sequence[Any], noise: Array, drawn: bool = False) -> list[Any]:
        """Return the inputs of `trusted` for one row: `values` are flat NumPy arrays of one size and dtype, or numbers
        for operands that may be one; `noise` are the normals, which the loop draws and keeps there where `drawn`. Each
        array is followed by the loop's flags for it."""
        width, dtype, found = noise.size, noise.dtype, list[Any]()
        for value, (_, _, scalar) in zip(values, self.operands, strict=True):
            alone = rows.is_number(value)
            found += [self.number(dtype.type(value)) if alone else value, 1 if alone else width]
            found += [alone] if scalar else []
        return [*found, noise, width, drawn, *([drawn] if self.normals[0][2] else [])]

    def trusted(self, sources: list[Any], uniforms: Array, out: Sequence[Array], address: Array = NO_ADDRESS) -> None:
        """Run the sweep on one row without checks; the loop still tests the domains.

        The caller guarantees that no array of `sources` overlaps `out`, except for a result that replaces its operand;
        `uniforms` come from `coefficients`; `address` holds the seed and the counter of drawn normals, uint64. The
        overhead is about a tenth of that of a call on the fast acceptance path (`python -m benchmarks.calls`).
        """
        width, dtype = out[0].size, out[0].dtype
        if self._run(dtype, 1, width, [address, uniforms, *sources, *out]):
            arrays = [s for s in sources if isinstance(s, np.ndarray)]
            self._refuse(arrays[:-1], [NormalSource(self.normals[0][0], arrays[-1], None)], out)

    def _run_checked(self, call: CheckedSweep, out: Any) -> tuple[Any, ...]:
        """Run the sweep on arguments that passed the full checks."""
        sources = self._sources(call.batch, call.arrays, call.normals, call.row_count, call.width)
        arguments = [call.address, call.uniforms, *sources, *map(rows.flat, call.outputs)]
        if self._run(call.batch.dtype, call.row_count, call.width, arguments):
            self._refuse(call.arrays, call.normals, call.outputs)
        return call.batch.library.wrap(call.outputs, out)

    def _run(self, dtype: np.dtype[Any], count: int, width: int, arguments: Sequence[Any]) -> int:
        """Run the loop over all rows and coordinates; return nonzero if a value was outside its domain."""
        loop = self.single if dtype == np.float32 else self.double

        def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
            return int(loop(row_lo, row_hi, lo, hi, width, *arguments))

        return threads.split(run, count, width, GRAIN)

    def _accept(
        self, values: Sequence[Any], steps: Sequence[Any], noise: Sequence[Any], out: Any
    ) -> PlainArrays | None:
        """Return operands (None for a number), normals and outputs of a usual call, or None if it needs full checks."""
        arrays, kept = list(values), []
        needed, optional = self.places
        for k in optional:
            if rows.is_number(values[k]):
                arrays[k] = None
            elif values[k] is None:
                return None
        for (_, _, keeps), step, value in zip(self.normals, steps, noise, strict=True):
            if step is not None and value is not None:
                if not keeps:
                    return None
                kept.append(len(arrays))
            elif step is value:
                return None
            arrays.append(value)
        inputs = len(arrays)
        if out is not None:
            if not isinstance(out, (tuple, list)) or len(out) != len(self.results):
                return None
            arrays += out
        plain = accept(arrays)
        if plain is None or plain.shape[-1:] in ((), (1,)):  # an array of one element could be a number per row
            return None
        outs = range(inputs, len(arrays))
        if 0 in plain.begins[inputs:] or 0 in [plain.begins[k] for k in needed]:
            return None
        normals = range(len(values), inputs)
        allowed = [*(self.replaced if outs else ()), *[normals] * len(kept)]
        return plain if plain.disjoint([*outs, *kept], allowed) else None

    def _plain_sources(
        self, plain: PlainArrays, values: Sequence[Any], steps: Sequence[Any], count: int, width: int
    ) -> list[Any]:
        """Return the inputs of the loop for a call that `_accept` took."""
        found: list[Any] = []
        for k, (name, _, scalar) in enumerate(self.operands):
            flat = plain.flat[k]
            if flat is None:
                found += [self.number(rows.number(name, values[k], plain.dtype)), int(count == 1), True]
            else:
                found += [flat, width, False] if scalar else [flat, width]
        for flat, step, (_, _, keeps) in zip(plain.flat[len(values) :], steps, self.normals, strict=False):
            drawn = step is not None
            found += [NOTHING[plain.dtype], 0, drawn] if flat is None else [flat, width, drawn]
            found += [drawn and flat is not None] if keeps else []
        return found

    def _sources(
        self, batch: ar.Batch, arrays: Sequence[Array], normals: Sequence[NormalSource], count: int, width: int
    ) -> list[Any]:
        """Return the inputs of the loop: memory, step between rows, and flags (one number per row, drawn, kept)."""
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

    def _refuse(self, arrays: Sequence[Array], normals: Sequence[NormalSource], outputs: Sequence[Array]) -> None:
        """Raise the error of the first input outside its domain, or of the first result if inputs were overwritten."""
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
    """The normals of a sweep without the sweep."""

    name: str
    single: Callable[..., Any]
    double: Callable[..., Any]

    def __call__(self, seed: Any, step: Any, out: Any) -> Any:
        """Fill `out` with normals and return it."""
        views = ar.Views(ar.HOST)
        array, _ = views.view("out", out)
        array = checked_out("out", out, array.shape, array.dtype, views)
        count, width = rows.extent(array.shape)
        address = rows.table([rows.integer("seed", seed, count), rows.integer("step", step, count)], count, np.uint64)
        loop, flat = self.single if array.dtype == np.float32 else self.double, rows.flat(array)

        def run(row_lo: int, row_hi: int, lo: int, hi: int) -> int:
            return int(loop(row_lo, row_hi, lo, hi, width, address, flat))

        threads.split(run, count, width, GRAIN)
        return out
