"""Outputs of a call: new arrays, or the caller's `out` checked for shape, dtype, layout and overlap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from badmm_kernels.face import arrays as ar, exchange


def check_out_tuple(out: Any, count: int, name: str = "out", of: str = "arrays") -> None:
    """Raise ValueError unless `out` is None or a tuple of `count` arrays."""
    if out is None:
        return
    if not isinstance(out, (tuple, list)) or len(out) != count:
        got = f"{len(out)} of them" if isinstance(out, (tuple, list)) else type(out).__name__
        raise ValueError(f"{name}: expected a tuple of {count} {of}, got {got}")


@cache
def out_names(count: int) -> tuple[str, ...]:
    """Return the names that errors use for the arrays of `out`."""
    return tuple(f"out[{k}]" for k in range(count))


def flat_out(out: Any, groups: int, count: int) -> tuple[Any, Sequence[str]]:
    """Return (the flattened arrays of `out`, their names); `out` has `count` arrays, or `groups` tuples of them."""
    if groups == 1:
        return out, out_names(count)
    names = [f"out[{g}][{k}]" for g in range(groups) for k in range(count)]
    check_out_tuple(out, groups, of=f"tuples of {count} arrays")
    for g, part in enumerate(out or ()):
        check_out_tuple(part if part is not None else (), count, f"out[{g}]")
    return None if out is None else [array for part in out for array in part], names


def checked_out(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], views: ar.Views) -> ar.Array:
    """Return one output; raise an error unless it is writable and has the expected shape, dtype and layout."""
    array, _ = views.view(name, value)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    ar.check_contiguous(name, array)
    if not views.memory.is_writable(array, value):
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    return array


def prepare(
    out: Any,
    shapes: Sequence[tuple[int, ...]],
    dtype: np.dtype[Any],
    inputs: Sequence[tuple[str, ar.Array]],
    allowed: Sequence[Sequence[int]],
    views: ar.Views,
    own_names: Sequence[str] = (),
    library: exchange.Library = exchange.NUMPY,
) -> list[ar.Array]:
    """Return new outputs, or the caller's after checks: out[k] may be an input of `allowed[k]` or overlap no array."""
    check_out_tuple(out, len(shapes))
    if out is None:
        return [views.memory.empty(library, shape, dtype) for shape in shapes]
    called = own_names or out_names(len(shapes))
    arrays = [checked_out(n, v, s, dtype, views) for n, v, s in zip(called, out, shapes, strict=True)]
    if inputs:
        views.memory.check_place([inputs[0][0], *called], [inputs[0][1], *arrays])
    others = [*inputs, *zip(called, arrays, strict=True)]
    spans = views.spans([array for _, array in others])
    for k, last in enumerate(range(len(inputs), len(others))):
        refuse_overlap(others[last], spans[last], others, spans[:last], allowed[k])
    return arrays


def refuse_overlap(
    output: tuple[str, ar.Array],
    span: tuple[int, int],
    others: Sequence[tuple[str, ar.Array]],
    spans: Sequence[tuple[int, int]],
    allowed: Sequence[int] = (),
) -> None:
    """Raise ValueError if a named output overlaps one of the others, unless it is exactly one of the allowed ones."""
    begin, end = span
    for number in [k for k, (low, high) in enumerate(spans) if low < end and begin < high]:
        (name, array), (other_name, other) = output, others[number]
        if number not in allowed or spans[number] != span or other.shape != array.shape:
            own = "memory of its own or exactly an input's of the same slot" if allowed else "memory of its own"
            raise ValueError(f"{name}: expected {own}, got an overlap with {other_name}")
