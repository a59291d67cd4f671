"""Calls of an optimizer on any device: operands, normals and their counters, scalars per row, outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from badmm_kernels.face import arrays as ar, rows
from badmm_kernels.face.calls import slots
from badmm_kernels.face.outputs import checked_out, prepare, refuse_overlap

Array = ar.Array


def pair(name: str, value: Any) -> Sequence[Any]:
    """Return a tuple argument of the slots precision_mean and precision, checked."""
    return slots(name, value, ("precision_mean", "precision"))


class NormalSource(NamedTuple):
    """Normals of one call: read from `array`, or drawn at counter `step` (and stored in `array` if there is one)."""

    name: str
    array: Array | None
    step: Any

    @property
    def drawn(self) -> bool:
        """Whether the normals are drawn, not read."""
        return self.step is not None

    @property
    def kept(self) -> bool:
        """Whether drawn normals are also stored."""
        return self.drawn and self.array is not None


class CheckedSweep(NamedTuple):
    """The checked arguments of one sweep over `row_count` rows of `width` coordinates."""

    batch: ar.Batch
    arrays: list[Array]
    normals: list[NormalSource]
    row_count: int
    width: int
    address: Array
    uniforms: Array
    outputs: list[Array]


@dataclass(frozen=True)
class SweepCall:
    """The call of one pass over the coordinates (`derive.ir.Sweep`).

    operands: (argument, domain, whether it may be a number). normals: (argument, argument of its step, whether drawn
    normals may be stored). scalars: (argument, domain). results: (name, domain, operand that it may overwrite).
    """

    name: str
    operands: tuple[tuple[str, str, bool], ...]
    normals: tuple[tuple[str, str, bool], ...]
    scalars: tuple[tuple[str, str], ...]
    uniforms: Callable[..., tuple[Any, ...]]
    results: tuple[tuple[str, str, str], ...]

    def memory(self) -> ar.Memory:
        """Return the memory that must hold the arrays of a call."""
        return ar.HOST

    def number(self, value: Any) -> Any:
        """Return an operand that is a number in the form that the loops take."""
        return np.array([value])

    def inputs(self, values: Sequence[Any]) -> tuple[ar.Batch, list[Array]]:
        """Check the operands; return (those that must be arrays, all of them in the form that the loops take)."""
        plain, others = self.places
        batch = ar.batch(self.named[0], [values[k] for k in plain], ar.Views(self.memory()))
        taken: list[Any] = list(values)
        for k, array in zip(plain, batch.arrays, strict=True):
            taken[k] = array
        for k in others:
            name, value = self.operands[k][0], values[k]
            if rows.is_number(value):
                taken[k] = self.number(rows.number(name, value, batch.dtype))
            else:
                taken[k] = rows.operand(name, value, batch)
        return batch, taken

    @cached_property
    def places(self) -> tuple[list[int], list[int]]:
        """Positions of the operands that must be arrays, and of those that may be numbers."""
        numbers = [k for k, (_, _, scalar) in enumerate(self.operands) if scalar]
        return [k for k in range(len(self.operands)) if k not in numbers], numbers

    @cached_property
    def named(self) -> tuple[list[str], list[str]]:
        """Names of the operands that must be arrays, and of all operands."""
        names = [n for n, _, _ in self.operands]
        return [names[k] for k in self.places[0]], names

    @cached_property
    def replaced(self) -> list[list[int]]:
        """For each result, the position of the operand whose memory it may overwrite."""
        return [[self.named[1].index(r)] if r else [] for _, _, r in self.results]

    def read_normals(self, batch: ar.Batch, steps: Sequence[Any], noise: Sequence[Any]) -> list[NormalSource]:
        """Check the arguments `steps` and `noise`; return the source of each normal."""
        found = []
        for (argument, step_name, keeps), step, value in zip(self.normals, steps, noise, strict=True):
            if step is None and value is None:
                raise ValueError(f"{argument}: expected an array where {step_name} is None, got None")
            if step is not None and value is not None and not keeps:
                raise ValueError(f"{argument}: expected None beside a {step_name} to draw at, got an array")
            array = None
            if value is not None and step is not None:
                array = checked_out(argument, value, batch.shape, batch.dtype, batch.views)
                batch.memory.check_place([batch.names[0], argument], [batch.arrays[0], array])
            elif value is not None:
                array = rows.like(argument, value, batch)
            found.append(NormalSource(argument, array, step))
        return found

    def address(self, seed: Any, steps: Sequence[Any], count: int) -> Array:
        """Return the seed and counters of every row as a flattened table, checked."""
        drawn = any(step is not None for step in steps)
        if drawn and seed is None:
            raise ValueError("seed: expected an integer beside a step to draw at, got None")
        columns = [rows.integer("seed", seed, count) if drawn else 0]
        for step, (_, step_name, _) in zip(steps, self.normals, strict=True):
            columns.append(0 if step is None else rows.integer(step_name, step, count))
        return rows.table(columns, count, np.uint64)

    def coefficients(self, scalars: Sequence[Any], dtype: np.dtype[Any], count: int) -> tuple[list[Any], Array]:
        """Return (the scalars, a number or a list with one per row each; the coefficients of every row).

        Coefficients are computed in float64 and rounded once; raises ValueError if that turns one into 0 or infinity.
        """
        checked = [rows.scalar(n, domain, v, count) for (n, domain), v in zip(self.scalars, scalars, strict=True)]
        given = [np.array(x) if type(x) is list else x for x in checked]
        typed, lost = ar.rounded(rows.table(self.uniforms(*given), count, np.float64), dtype)
        if lost is not None:
            names = ", ".join(n for n, _ in self.scalars)
            raise ValueError(f"{names}: expected a coefficient that {dtype} can hold, got {lost}")
        return list(checked), typed

    def outputs(
        self, batch: ar.Batch, arrays: Sequence[Array], normals: Sequence[NormalSource], out: Any
    ) -> list[Array]:
        """Return new or checked outputs; each may be the operand that it replaces, and stored normals no operand."""
        views = batch.views
        read = [*zip(self.named[1], arrays, strict=True)]
        stored = [(n.name, n.array) for n in normals if n.array is not None]
        shapes = [batch.shape] * len(self.results)
        outputs = prepare(out, shapes, batch.dtype, [*read, *stored], self.replaced, views, library=batch.library)
        for normal in normals:
            if normal.kept and normal.array is not None:
                kept, (span,) = (normal.name, normal.array), views.spans([normal.array])
                refuse_overlap(kept, span, read, views.spans(arrays))
                others = [(n, a) for n, a in stored if n != normal.name]
                refuse_overlap(kept, span, others, views.spans([a for _, a in others]), range(len(others)))
        return outputs

    def check(
        self,
        values: Sequence[Any],
        scalars: Sequence[Any],
        seed: Any,
        steps: Sequence[Any],
        noise: Sequence[Any],
        out: Any,
    ) -> CheckedSweep:
        """Check all arguments of a call: operands, normals, seed and steps, scalars, outputs."""
        batch, arrays = self.inputs(values)
        count, width = rows.extent(batch.shape)
        normals = self.read_normals(batch, steps, noise)
        address = self.address(seed, steps, count)
        _, uniforms = self.coefficients(scalars, batch.dtype, count)
        outputs = self.outputs(batch, arrays, normals, out)
        return CheckedSweep(batch, arrays, normals, count, width, address, uniforms, outputs)

    def in_order(self) -> list[int]:
        """Return the positions of the results in the order in which an error names them.

        Later parts of the state are computed from fewer of the others, so the reverse order finds the cause first;
        results that replace no operand come last.
        """
        numbers = range(len(self.results))[::-1]
        return sorted(numbers, key=lambda k: self.results[k][0] != self.results[k][2])

    def refuse_result(self, k: int, got: Any, at: Any, overwritten: bool) -> None:
        """Raise ValueError for a result outside its domain."""
        name, domain, replaced = self.results[k]
        expected = "positive" if domain == "positive" and np.isfinite(got) else "finite"
        over = ", overwritten" if overwritten else ""
        subject = name if name == replaced else self.name
        raise ValueError(
            f"{subject}: expected {expected}, with a result that {np.asarray(got).dtype} can hold, got a "
            f"new {name} of {got} at index {at}{over}"
        )
