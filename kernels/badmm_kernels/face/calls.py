"""ElementwiseCall calls on any device: named arguments, scalars, slots, outputs, and the errors of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

from badmm_kernels.face import arrays as ar
from badmm_kernels.face.outputs import flat_out, prepare

Array = ar.Array
SLOTWISE = tuple[tuple[str, Sequence[Any]], ...]
_NO_DEVICE = nullcontext()


def slots(name: str, value: Any, names: Sequence[str]) -> Sequence[Any]:
    """Return a tuple argument; raise ValueError unless it has one array per slot."""
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        got = f"{len(value)} of them" if isinstance(value, (tuple, list)) else type(value).__name__
        raise ValueError(f"{name}: expected a tuple of {len(names)} arrays ({', '.join(names)}), got {got}")
    return value


@cache
def _dotted(arguments: tuple[str, ...], slot: str) -> list[str]:
    """Return the names that errors use for one slot of tuple arguments, such as `natural.precision`."""
    return [f"{argument}.{slot}" for argument in arguments]


def slot_batches(names: Sequence[str], arguments: SLOTWISE, views: ar.Views) -> list[ar.Batch]:
    """Check tuple arguments and return one batch per slot; slots must agree in clients and coordinates."""
    called = tuple(n for n, _ in arguments)
    checked = [slots(n, v, names) for n, v in arguments]
    batches = [ar.batch(_dotted(called, slot), [v[k] for v in checked], views) for k, slot in enumerate(names)]
    views.memory.check_place([b.names[0] for b in batches], [b.arrays[0] for b in batches])
    ar.check_slots(batches)
    return batches


def check_clients(batches: Sequence[ar.Batch]) -> None:
    """Raise ValueError unless every argument has a leading client axis with at least one client."""
    for batch in batches:
        for name, array in batch.named:
            if array.ndim < 1 or array.shape != batch.shape or batch.shape[0] < 1:
                raise ValueError(f"{name}: expected a leading client axis of at least one client, got {array.shape}")


@dataclass(frozen=True)
class ElementwiseCall:
    """Base of maps and sums: named operands with domains, scalar arguments, and uniforms.

    Uniforms are functions of the scalars alone: they are the same for all coordinates. joint: (argument, formula,
    function of all operands) of what must be positive of several operands together; results are no numbers elsewhere.
    """

    name: str
    operands: tuple[tuple[str, str], ...]
    scalars: tuple[tuple[str, str], ...]
    uniforms: Callable[..., tuple[float, ...]]
    joint: tuple[tuple[str, str, Callable[..., Any]], ...] = field(default=(), kw_only=True)

    @cached_property
    def names(self) -> list[str]:
        """The operands' argument names."""
        return [n for n, _ in self.operands]

    def memory(self) -> ar.Memory:
        """Return the memory that must hold the arrays of a call."""
        return ar.HOST

    def on(self, _inputs: Sequence[ar.Batch], _stream: Any) -> AbstractContextManager[Any]:
        """Return a context that selects the device and stream of outputs and kernel; on a CPU it does nothing."""
        return _NO_DEVICE

    def refuse_jointly(self, values: Sequence[Any], at: Callable[[Array], Any]) -> None:
        """Raise ValueError if operands, arrays or numbers, are together outside the domain; `at` gives the index of
        the first place in an array of truths."""
        with np.errstate(all="ignore"):
            found = [(argument, formula, np.asarray(positive(*values))) for argument, formula, positive in self.joint]
        for argument, formula, value in found:
            inside = value > 0
            if not inside.all():
                first = value.reshape(-1)[np.argmin(inside)]
                raise ValueError(f"{argument}: expected {formula} positive, got {first} at index {at(inside)}")

    def numbers(self, scalars: Sequence[Any], dtype: np.dtype[Any]) -> tuple[tuple[float, ...], tuple[Any, ...]]:
        """Return (the checked scalars, the uniforms computed in float64 and rounded once to `dtype`).

        Raises ValueError if rounding turns a uniform into 0 or infinity.
        """
        values = tuple(ar.scalar(n, domain, v) for (n, domain), v in zip(self.scalars, scalars, strict=True))
        exact = self.uniforms(*values)
        if not exact:
            return values, ()
        with np.errstate(over="ignore", under="ignore"):
            typed = tuple(dtype.type(u) for u in exact)
        for before, after in zip(exact, typed, strict=True):
            if (before != 0 and after == 0) or not math.isfinite(after):
                names = ", ".join(n for n, _ in self.scalars)
                raise ValueError(f"{names}: expected a coefficient that {dtype} can hold, got {before}")
        return values, typed


@dataclass(frozen=True)
class MapCall(ElementwiseCall):
    """An elementwise map with one output array per result, of the shape of the largest input.

    results: domain of each result. depends: for each result, the operands whose memory it may overwrite. promoted:
    whether the map computes in float64 whatever the dtype of the arrays.
    """

    results: tuple[str, ...]
    depends: tuple[tuple[int, ...], ...]
    promoted: bool = field(default=False, kw_only=True)

    def computes_in(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the dtype in which the map computes on arrays of `dtype`."""
        return np.dtype(np.float64) if self.promoted else dtype

    def run(self, batches: Sequence[ar.Batch], numbers: tuple[Any, ...], outputs: Sequence[Sequence[Array]]) -> None:
        """Compute the outputs of every batch; `numbers` is the result of `self.numbers`."""
        raise NotImplementedError

    def __call__(self, values: Sequence[Any], scalars: Sequence[Any], out: Any, stream: Any = None) -> tuple[Any, ...]:
        """Run the map; return the tuple of results in the caller's array library."""
        batch = ar.batch(self.names, values, ar.Views(self.memory()))
        numbers = self.numbers(scalars, self.computes_in(batch.dtype))
        with self.on([batch], stream):
            shapes = [batch.shape] * len(self.results)
            outputs = prepare(out, shapes, batch.dtype, batch.named, self.depends, batch.views, library=batch.library)
            self.run([batch], numbers, [outputs])
            return batch.library.wrap(outputs, out)

    def slotwise(
        self, names: Sequence[str], arguments: SLOTWISE, scalars: Sequence[Any], out: Any, stream: Any = None
    ) -> tuple[Any, ...]:
        """Check tuple arguments and apply the map to every slot.

        Returns a tuple of slots if the map has one result, else a tuple of such tuples.
        """
        views = ar.Views(self.memory())
        batches = slot_batches(names, arguments, views)
        numbers = self.numbers(scalars, self.computes_in(batches[0].dtype))
        count, slot_count, groups = len(arguments), len(names), len(self.results)
        given, called = flat_out(out, groups, slot_count)
        allowed = [[k * count + i for i in used] for used in self.depends for k in range(slot_count)]
        named = [pair for b in batches for pair in b.named]
        shapes, library = [b.shape for b in batches] * groups, batches[0].library
        with self.on(batches, stream):
            outputs = prepare(given, shapes, batches[0].dtype, named, allowed, views, called, library)
            self.run(batches, numbers, [outputs[k::slot_count] for k in range(slot_count)])
            parts = [outputs[g * slot_count : (g + 1) * slot_count] for g in range(groups)]
            if groups == 1:
                return library.wrap(parts[0], out)
            return tuple(library.wrap(p, None if out is None else out[g]) for g, p in enumerate(parts))


@dataclass(frozen=True)
class MatrixCall:
    """A function `one` of vectors and matrices over common leading axes: a map to (vector, matrix), or a reduction."""

    name: str
    operands: tuple[tuple[str, str], ...]
    one: Callable[..., Any]
    reduction: bool

    @cached_property
    def names(self) -> list[str]:
        """The operands' argument names."""
        return [n for n, _ in self.operands]

    def inputs(self, values: Sequence[Any], option: Any, views: ar.Views) -> ar.Members:
        """Check shapes and dtypes of the operands, and `option` if it is the axis of a reduction."""
        if self.reduction:
            ar.check_axis(option)
        return ar.members(self.names, [domain for _, domain in self.operands], values, views)

    def outputs(self, member: ar.Members, option: Any, views: ar.Views) -> list[Any]:
        """Return the outputs of a map, new or checked (`option` is `out`); none for a reduction."""
        if self.reduction:
            return []
        shapes = [member.lead + (member.dimension,) * rank for rank in (1, 2)]
        named = list(zip(self.names, member.arrays, strict=True))
        return prepare(option, shapes, member.dtype, named, [(), ()], views, library=member.library)


def refuse_results(call: MapCall, names: Sequence[str], values: Sequence[Any], got: Sequence[Any], at: Any) -> None:
    """Raise ValueError for a point whose inputs are inside their domains and whose results are not."""
    dtype = np.asarray(got[0]).dtype
    if any(d != "real" for d in call.results):
        point = ", ".join(f"{n} = {v}" for n, v in zip(names, values, strict=True))
        raise ValueError(f"{names[-1]}: expected a point of the family's expectation domain, got {point} at index {at}")
    number = next(k for k, v in enumerate(got) if not np.isfinite(v))
    raise ValueError(f"{call.name}: result {number} overflows {dtype} (got {got[number]} at index {at})")
