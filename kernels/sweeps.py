"""The part of an optimizer's call that is the same on every device: operands, normals and their addresses, scalars a
row, outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import arrays as ar
from kernels import rows
from kernels.calls import slots

Array = ar.Array


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
class SweepCall:
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

    def memory(self) -> ar.Memory:
        """Where the arrays of a call must be."""
        return ar.HOST

    def number(self, value: Any) -> Any:
        """An operand that is one number, in the form that the loops take."""
        return np.array([value])

    def inputs(self, values: Sequence[Any]) -> tuple[ar.Batch, list[Array]]:
        """(the operands that must be arrays, every operand in the form that the loops take), checked."""
        named = list(zip(self.operands, values, strict=True))
        plain = [(name, value) for (name, _, scalar), value in named if not scalar]
        batch = ar.batch([n for n, _ in plain], [v for _, v in plain], self.memory())
        checked = iter(batch.arrays)

        def taken(name: str, value: Any, scalar: bool) -> Any:
            if not scalar:
                return next(checked)
            if rows.is_number(value):
                return self.number(rows.number(name, value, batch.dtype))
            return rows.operand(name, value, batch)

        return batch, [taken(name, value, scalar) for (name, _, scalar), value in named]

    def read_normals(self, batch: ar.Batch, steps: Sequence[Any], noise: Sequence[Any]) -> list[Normal]:
        """Where the normals come from, checked."""
        found = []
        for (argument, step_name, keeps), step, value in zip(self.normals, steps, noise, strict=True):
            if step is None and value is None:
                raise ValueError(f"{argument}: expected an array where {step_name} is None, got None")
            if step is not None and value is not None and not keeps:
                raise ValueError(f"{argument}: expected None beside a {step_name} to draw at, got an array")
            array = None
            if value is not None and step is not None:
                array = ar.checked_out(argument, value, batch.shape, batch.dtype, batch.memory)
            elif value is not None:
                array = ar.batch([batch.names[0], argument], [batch.arrays[0], value], batch.memory).arrays[1]
            if array is not None:
                batch.memory.check_place([batch.names[0], argument], [batch.arrays[0], array])
            found.append(Normal(argument, array, step))
        return found

    def address(self, seed: Any, normals: Sequence[Normal], count: int) -> Array:
        """A row's seed and counters."""
        drawn = any(n.drawn for n in normals)
        if drawn and seed is None:
            raise ValueError("seed: expected an integer beside a step to draw at, got None")
        columns = [rows.integer("seed", seed, count) if drawn else 0]
        for normal, (_, step_name, _) in zip(normals, self.normals, strict=True):
            columns.append(rows.integer(step_name, normal.step, count) if normal.drawn else 0)
        return rows.table(columns, count, np.uint64)

    def coefficients(self, scalars: Sequence[Any], dtype: np.dtype[Any], count: int) -> tuple[list[Any], Array]:
        """(the scalars, a number or one a row each; a row's coefficients, formed in float64 and rounded once), refused
        where rounding loses them."""
        checked = [rows.scalar(n, domain, v, count) for (n, domain), v in zip(self.scalars, scalars, strict=True)]
        given: list[Any] = list(checked)
        if any(isinstance(x, list) for x in given):
            given = [np.array(x) for x in given]
        exact = rows.table(self.uniforms(*given), count, np.float64)
        if dtype == np.float64:
            return list(checked), exact
        with np.errstate(over="ignore", under="ignore"):
            typed = exact.astype(dtype)
        lost = ((exact != 0) & (typed == 0)) | (np.isinf(typed) & np.isfinite(exact))
        if lost.any():
            names = ", ".join(n for n, _ in self.scalars)
            raise ValueError(f"{names}: expected a coefficient that {dtype} can hold, got {exact[np.argmax(lost)]}")
        return list(checked), typed

    def outputs(self, batch: ar.Batch, arrays: Sequence[Array], normals: Sequence[Normal], out: Any) -> list[Array]:
        """Fresh or checked outputs: each may be the operand it replaces; kept normals may be those read before."""
        read = [(n, a) for (n, _, _), a in zip(self.operands, arrays, strict=True) if hasattr(a, "shape")]
        names = [n for n, _ in read]
        stored = [(n.name, n.array) for n in normals if n.array is not None]
        allowed = [[names.index(r)] if r else [] for _, _, r in self.results]
        shapes = [batch.shape] * len(self.results)
        outputs = ar.outputs(
            out, shapes, batch.dtype, [*read, *stored], allowed, library=batch.library, memory=batch.memory
        )
        for normal in normals:
            if normal.kept and normal.array is not None:
                others = [(n, a) for n, a in stored if n != normal.name]
                ar.refuse_overlap(normal.name, normal.array, read, memory=batch.memory)
                ar.refuse_overlap(normal.name, normal.array, others, range(len(others)), batch.memory)
        return outputs

    def in_order(self) -> list[int]:
        """The results in the order in which an error looks at them: a later part of the state is computed from fewer of
        the others, so that the one at fault is met first; what replaces nothing comes last."""
        numbers = range(len(self.results))[::-1]
        return sorted(numbers, key=lambda k: not self.results[k][2])

    def refuse_result(self, k: int, got: Any, at: Any, overwritten: bool) -> None:
        """Raise the error of a result outside its domain."""
        name, domain, replaced = self.results[k]
        expected = "positive" if domain == "positive" and np.isfinite(got) else "finite"
        over = ", overwritten" if overwritten else ""
        raise ValueError(
            f"{replaced or self.name}: expected {expected}, with a result that {np.asarray(got).dtype} can hold, got a "
            f"new {name} of {got} at index {at}{over}"
        )
