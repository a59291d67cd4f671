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
from kernels.calls import slots
from kernels.cpu import threads

__all__ = ["NoiseKernel", "SweepKernel", "pair"]

Array = np.ndarray[Any, Any]
GRAIN = 1 << 15  # fewest coordinates worth a thread: a step does several times a map's work
NOTHING = {np.dtype(t): np.empty(0, t) for t in ("float32", "float64")}


def pair(name: str, value: Any) -> Sequence[Any]:
    """A tuple argument of two slots, checked."""
    return slots(name, value, ("precision_mean", "precision"))


@dataclass(frozen=True)
class Normal:
    """Normals of one call: in `array` (read, or kept there once drawn) or drawn at the counters `step`."""

    name: str
    array: Array | None
    step: Any

    @property
    def drawn(self) -> bool:
        """Whether they are drawn."""
        return self.step is not None

    @property
    def kept(self) -> bool:
        """Whether what is drawn is also stored."""
        return self.drawn and self.array is not None


@dataclass(frozen=True)
class SweepKernel:
    """One pass over coordinates, as `derive.ir.Sweep`.

    operands: (argument, domain, whether a number may stand for the array); normals: (argument, argument of its step,
    whether drawn ones may be kept); scalars: (argument, domain); results: (name, domain, operand it may replace).
    """

    name: str
    operands: tuple[tuple[str, str, bool], ...]
    normals: tuple[tuple[str, str, bool], ...]
    scalars: tuple[tuple[str, str], ...]
    uniforms: Callable[..., tuple[Any, ...]]
    results: tuple[tuple[str, str, str], ...]
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
        batch, arrays = self._inputs(values)
        count, width = rows.extent(batch.shape)
        normals = self._normals(batch, steps, noise)
        address = self._address(seed, normals, count)
        uniforms = self._uniforms(scalars, batch.dtype, count)
        outputs = self._outputs(batch, arrays, normals, out)
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

    def _inputs(self, values: Sequence[Any]) -> tuple[ar.Batch, list[Array]]:
        """(the operands that must be arrays, every operand as an array), checked."""
        named = list(zip(self.operands, values, strict=True))
        plain = [(name, value) for (name, _, scalar), value in named if not scalar]
        batch = ar.batch([n for n, _ in plain], [v for _, v in plain])
        checked = iter(batch.arrays)
        arrays = [
            rows.array_or_scalar(name, value, batch) if scalar else next(checked) for (name, _, scalar), value in named
        ]
        return batch, arrays

    def _normals(self, batch: ar.Batch, steps: Sequence[Any], noise: Sequence[Any]) -> list[Normal]:
        """Where the normals come from, checked."""
        found = []
        for (argument, step_name, keeps), step, value in zip(self.normals, steps, noise, strict=True):
            if step is None and value is None:
                raise ValueError(f"{argument}: expected an array where {step_name} is None, got None")
            if step is not None and value is not None and not keeps:
                raise ValueError(f"{argument}: expected None beside a {step_name} to draw at, got an array")
            array = None
            if value is not None and step is not None:
                array = ar.checked_out(argument, value, batch.shape, batch.dtype)
            elif value is not None:
                array = ar.batch([batch.names[0], argument], [batch.arrays[0], value]).arrays[1]
            found.append(Normal(argument, array, step))
        return found

    def _address(self, seed: Any, normals: Sequence[Normal], count: int) -> Array:
        """A row's seed and counters."""
        drawn = any(n.drawn for n in normals)
        if drawn and seed is None:
            raise ValueError("seed: expected an integer beside a step to draw at, got None")
        columns = [rows.integer("seed", seed, count) if drawn else 0]
        for normal, (_, step_name, _) in zip(normals, self.normals, strict=True):
            columns.append(rows.integer(step_name, normal.step, count) if normal.drawn else 0)
        return rows.table(columns, count, np.uint64)

    def _uniforms(self, scalars: Sequence[Any], dtype: np.dtype[Any], count: int) -> Array:
        """A row's coefficients, formed in float64 and rounded once; refused where that loses them."""
        given = [rows.scalar(n, domain, v, count) for (n, domain), v in zip(self.scalars, scalars, strict=True)]
        if any(isinstance(x, list) for x in given):
            given = [np.array(x) for x in given]  # type: ignore[misc]
        exact = rows.table(self.uniforms(*given), count, np.float64)
        if dtype == np.float64:
            return exact
        with np.errstate(over="ignore", under="ignore"):
            typed = exact.astype(dtype)
        lost = ((exact != 0) & (typed == 0)) | (np.isinf(typed) & np.isfinite(exact))
        if lost.any():
            names = ", ".join(n for n, _ in self.scalars)
            raise ValueError(f"{names}: expected a coefficient that {dtype} can hold, got {exact[np.argmax(lost)]}")
        return typed

    def _sources(
        self, batch: ar.Batch, arrays: Sequence[Array], normals: Sequence[Normal], count: int, width: int
    ) -> list[Any]:
        """The loop's arguments for its inputs: memory, step between rows, and whether scratch stands for it."""
        found: list[Any] = []
        for array, (_, _, scalar) in zip(arrays, self.operands, strict=True):
            whole = array.shape == batch.shape
            alone = scalar and not whole and array.shape in ((1,), (count, 1)) and array.shape != batch.shape[1:]
            found += [rows.flat(array), width if whole else 1 if alone and array.size == count else 0]
            found += [alone] if scalar else []
        for normal, (_, _, keeps) in zip(normals, self.normals, strict=True):
            array = NOTHING[batch.dtype] if normal.array is None else normal.array
            found += [rows.flat(array), width if array.shape == batch.shape else 0, normal.drawn]
            found += [normal.kept] if keeps else []
        return found

    def _outputs(self, batch: ar.Batch, arrays: Sequence[Array], normals: Sequence[Normal], out: Any) -> list[Array]:
        """Fresh or checked outputs: each may be the operand it replaces; kept normals may be those read before."""
        names = [n for n, _, _ in self.operands]
        stored = [(n.name, n.array) for n in normals if n.array is not None]
        inputs = [*zip(names, arrays, strict=True), *stored]
        allowed = [[names.index(r)] if r else [] for _, _, r in self.results]
        outputs = ar.outputs(out, [batch.shape] * len(self.results), batch.dtype, inputs, allowed)
        for normal in normals:
            if normal.kept and normal.array is not None:
                others = [(n, a) for n, a in stored if n != normal.name]
                ar.refuse_overlap(normal.name, normal.array, zip(names, arrays, strict=True))
                ar.refuse_overlap(normal.name, normal.array, others, range(len(others)))
        return outputs

    def _refuse(self, arrays: Sequence[Array], normals: Sequence[Normal], outputs: Sequence[Array]) -> None:
        """Name the first input outside its domain, or the first result where the inputs were overwritten."""
        written = {ar.address(o) for o in outputs}
        inputs = [(n, domain, a) for (n, domain, _), a in zip(self.operands, arrays, strict=True)]
        inputs += [(n.name, "real", n.array) for n in normals if n.array is not None and not n.drawn]
        for name, domain, array in inputs:
            if ar.address(array) not in written:
                ar.refuse(name, domain, array)
        # A later part of the state is computed from fewer of the others: the one at fault is met first.
        found = list(zip(self.results, outputs, strict=True))[::-1]
        for (name, domain, replaced), array in sorted(found, key=lambda pair: not pair[0][2]):
            index = ar.first_outside(array, domain)
            if index is None:
                continue
            got = array.reshape(-1)[index]
            expected = "positive" if domain == "positive" and np.isfinite(got) else "finite"
            over = ", overwritten" if any(ar.address(array) == ar.address(a) for a in arrays) else ""
            raise ValueError(
                f"{replaced or self.name}: expected {expected}, with a result that {array.dtype} can hold, got a new "
                f"{name} of {got} at index {ar.where(index, array.shape)}{over}"
            )


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
