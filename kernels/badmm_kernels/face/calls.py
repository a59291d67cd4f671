"""The part of a kernel call that is the same on every device: named arguments, scalars, slots, outputs, and the words
of an error about a value."""

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
_ANYWHERE = nullcontext()


def slots(name: str, value: Any, names: Sequence[str]) -> Sequence[Any]:
    """A tuple argument, checked to have one array a slot."""
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        got = f"{len(value)} of them" if isinstance(value, (tuple, list)) else type(value).__name__
        raise ValueError(f"{name}: expected a tuple of {len(names)} arrays ({', '.join(names)}), got {got}")
    return value


@cache
def _dotted(arguments: tuple[str, ...], slot: str) -> list[str]:
    """What an error calls one slot of tuple arguments."""
    return [f"{argument}.{slot}" for argument in arguments]


def slot_batches(names: Sequence[str], arguments: SLOTWISE, views: ar.Views) -> list[ar.Batch]:
    """The checked inputs of every slot of tuple arguments; slots must have the same clients and coordinates."""
    called = tuple(n for n, _ in arguments)
    checked = [slots(n, v, names) for n, v in arguments]
    batches = [ar.batch(_dotted(called, slot), [v[k] for v in checked], views) for k, slot in enumerate(names)]
    views.memory.check_place([b.names[0] for b in batches], [b.arrays[0] for b in batches])
    ar.check_slots(batches)
    return batches


def check_clients(batches: Sequence[ar.Batch]) -> None:
    """A sum over clients needs a leading client axis in every argument."""
    for batch in batches:
        for name, array in batch.named:
            if array.ndim < 1 or array.shape != batch.shape or batch.shape[0] < 1:
                raise ValueError(f"{name}: expected a leading client axis of at least one client, got {array.shape}")


@dataclass(frozen=True)
class Elementwise:
    """What maps and sums share: named operands with domains, public scalars, uniforms (functions of scalars alone)."""

    name: str
    operands: tuple[tuple[str, str], ...]
    scalars: tuple[tuple[str, str], ...]
    uniforms: Callable[..., tuple[float, ...]]

    @cached_property
    def names(self) -> list[str]:
        """The operands' argument names."""
        return [n for n, _ in self.operands]

    def memory(self) -> ar.Memory:
        """Where the arrays of a call must be."""
        return ar.HOST

    def on(self, _inputs: Sequence[ar.Batch], _stream: Any) -> AbstractContextManager[Any]:
        """Where outputs are made and the kernel runs: a device's current stream, where there are such."""
        return _ANYWHERE

    def numbers(self, scalars: Sequence[Any], dtype: np.dtype[Any]) -> tuple[tuple[float, ...], tuple[Any, ...]]:
        """(the scalars, checked; the uniforms, formed in float64 and rounded once to the kernel's type, refused where
        that loses them)."""
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
class MapCall(Elementwise):
    """An elementwise map: one output array a result, same shape as the widest input.

    results: the domain of each result; depends: for each result the operands whose memory it may be written to;
    promoted: whether it computes in float64 whatever the arrays' type.
    """

    results: tuple[str, ...]
    depends: tuple[tuple[int, ...], ...]
    promoted: bool = field(default=False, kw_only=True)

    def computes_in(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The type of the numbers that arrays of `dtype` are computed with."""
        return np.dtype(np.float64) if self.promoted else dtype

    def run(self, batches: Sequence[ar.Batch], numbers: tuple[Any, ...], outputs: Sequence[Sequence[Array]]) -> None:
        """Compute the outputs of every batch; `numbers` as from `self.numbers`."""
        raise NotImplementedError

    def __call__(self, values: Sequence[Any], scalars: Sequence[Any], out: Any, stream: Any = None) -> tuple[Any, ...]:
        """Run the map; returns the tuple of results in the callers' array library."""
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
        """Apply the map to every slot of tuple arguments, after all of them are checked; a tuple of slots a result,
        bare if there is one."""
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


def refuse_results(call: MapCall, names: Sequence[str], values: Sequence[Any], got: Sequence[Any], at: Any) -> None:
    """Raise the error of a point whose inputs are in their domains and whose results are not."""
    dtype = np.asarray(got[0]).dtype
    if any(d != "real" for d in call.results):
        point = ", ".join(f"{n} = {v}" for n, v in zip(names, values, strict=True))
        raise ValueError(f"{names[-1]}: expected a point of the family's expectation domain, got {point} at index {at}")
    number = next(k for k, v in enumerate(got) if not np.isfinite(v))
    raise ValueError(f"{call.name}: result {number} overflows {dtype} (got {got[number]} at index {at})")
