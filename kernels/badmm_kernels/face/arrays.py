"""Checks of the inputs of a call: shapes, dtypes, layout, domains. A `Memory` holds what differs between devices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from ctypes import addressof, c_char
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from badmm_kernels.face import exchange

Array = np.ndarray[Any, Any]
EMPTY_SPAN = (0, 0)  # of an array without bytes, or of a number
TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
FEW = 16  # `rounded` tests up to this many numbers in a Python loop, in half the time of NumPy's operations
first_byte: Any = c_char.from_buffer  # of a writable array in C order


class Memory:
    """How arrays are viewed, allocated and compared in one kind of memory; this class is NumPy's, in CPU memory."""

    xp: Any = np

    def view(self, name: str, value: Any) -> tuple[Array, exchange.Library]:
        """Return (a view of the array in this memory's own type, the library that it came from)."""
        return exchange.view(name, value)

    def address(self, array: Array) -> int:
        """Return the address of an array's first byte."""
        return address(array)

    def span(self, array: Array) -> tuple[int, int]:
        """Return the addresses of an array's first byte and of the byte after its last; EMPTY_SPAN if it is empty."""
        size = array.nbytes
        if size == 0:
            return EMPTY_SPAN
        begin = self.address(array)
        if array.flags.c_contiguous:
            return begin, begin + size
        reach = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)]
        return begin + sum(r for r in reach if r < 0), begin + sum(r for r in reach if r > 0) + array.itemsize

    def empty(self, _library: exchange.Library, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Allocate an output that `library` can hand back."""
        return np.empty(shape, dtype)

    def is_writable(self, array: Array, _value: Any) -> bool:
        """Return whether a kernel may write to a viewed array."""
        return array.flags.writeable

    def check_place(self, names: Sequence[str], arrays: Sequence[Array]) -> None:
        """Raise an error if one kernel cannot access all of the arrays."""


HOST = Memory()


class Views:
    """The arrays of one call: each foreign array is viewed once, and each span is computed once."""

    __slots__ = ("_foreign", "_spans", "memory")

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        # keyed by id; the object is kept with it, because an id is unique only while its object lives
        self._foreign: dict[int, tuple[tuple[Array, exchange.Library], Any]] = {}
        self._spans: dict[int, tuple[tuple[int, int], Any]] = {}

    def view(self, name: str, value: Any) -> tuple[Array, exchange.Library]:
        """Return `Memory.view` of the value, cached."""
        if type(value) is np.ndarray:
            return self.memory.view(name, value)
        known = self._foreign.get(id(value))
        if known is None:
            known = self._foreign[id(value)] = self.memory.view(name, value), value
        return known[0]

    def spans(self, arrays: Iterable[Any]) -> list[tuple[int, int]]:
        """Return `Memory.span` of each array; EMPTY_SPAN for a number in the place of an array."""
        known, found = self._spans, []
        for array in arrays:
            place = known.get(id(array))
            if place is None:
                span = EMPTY_SPAN if isinstance(array, float) else self.memory.span(array)
                place = known[id(array)] = span, array
            found.append(place[0])
        return found


def address(array: Array) -> int:
    """Return the address of an array's first byte."""
    flags = array.flags
    if flags.c_contiguous and flags.writeable and array.size:
        return addressof(first_byte(array))  # half the time of __array_interface__, which builds a dictionary
    return int(array.__array_interface__["data"][0])


class Batch(NamedTuple):
    """Inputs of an elementwise call as flat arrays over rows × width; an array with step 0 is shared by all rows."""

    names: Sequence[str]
    arrays: list[Array]
    flat: list[Array]
    steps: list[int]
    shape: tuple[int, ...]
    rows: int
    width: int
    dtype: np.dtype[Any]
    libraries: Sequence[exchange.Library]
    views: Views

    @property
    def memory(self) -> Memory:
        """The memory that holds the arrays."""
        return self.views.memory

    @property
    def library(self) -> exchange.Library:
        """The first input's library, in which results are handed back."""
        return self.libraries[0]

    @property
    def named(self) -> list[tuple[str, Array]]:
        """Pairs of argument name and input."""
        return list(zip(self.names, self.arrays, strict=True))

    def aliased(self, outs: Sequence[Array]) -> list[Array]:
        """Return the inputs that share their memory with an output."""
        written = {self.memory.address(o) for o in outs}
        return [a for a in self.arrays if a.size and self.memory.address(a) in written]

    def by_rows(self) -> Batch:
        """Return the batch with one row per index before the last axis, for reductions along the last axis."""
        width, rows = (self.shape or (1,))[-1], math.prod(self.shape[:-1])
        arrays = self.arrays
        # an input shared along the first axis is copied if one step per row cannot describe it
        if len(self.shape) != 2 and any(a.shape != self.shape for a in arrays):
            xp = self.memory.xp
            arrays = [xp.ascontiguousarray(xp.broadcast_to(a, self.shape)) for a in arrays]
        steps = [width if a.shape == self.shape else 0 for a in arrays]
        flat = [a.reshape(-1) for a in arrays]
        return self._replace(flat=flat, steps=steps, rows=rows, width=width)


def _same_dtype(names: Sequence[str], arrays: Sequence[Array]) -> np.dtype[Any]:
    for name, array in zip(names, arrays, strict=True):
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"{name}: expected dtype {arrays[0].dtype} like {names[0]}, got {array.dtype}")
    return arrays[0].dtype


def check_contiguous(name: str, array: Array) -> None:
    """Raise ValueError unless the array is C-contiguous, which the loops over flat memory require."""
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {array.strides} for shape {array.shape}")


def check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the array has the shape of the call, with or without its leading axis."""
    if array.shape not in (shape, shape[1:]):
        shared = f" or, shared by all clients, {shape[1:]}" if len(shape) > 1 else ""
        raise ValueError(f"{name}: expected shape {shape}{shared}, got {array.shape}")


def batch(names: Sequence[str], values: Sequence[Any], views: Views) -> Batch:
    """Check that the inputs of an elementwise call agree in dtype, shape and place; return them as a batch."""
    seen = [views.view(n, v) for n, v in zip(names, values, strict=True)]
    arrays = [a for a, _ in seen]
    views.memory.check_place(names, arrays)
    for name, array in zip(names, arrays, strict=True):
        check_contiguous(name, array)
    dtype = _same_dtype(names, arrays)
    shape = max((a.shape for a in arrays), key=len)
    for name, array in zip(names, arrays, strict=True):
        check_shape(name, array, shape)
    whole = all(a.shape == shape for a in arrays)
    rows, width = (1, math.prod(shape)) if whole else (shape[0], math.prod(shape[1:]))
    steps = [width if a.shape == shape else 0 for a in arrays]
    flat = [a.reshape(-1) for a in arrays]
    return Batch(names, arrays, flat, steps, shape, rows, width, dtype, [lib for _, lib in seen], views)


def check_slots(batches: Sequence[Batch]) -> None:
    """Raise ValueError unless the slots of a parameter have equal shapes, or (…, d) and (…, d, d)."""
    first = batches[0]
    for other in batches[1:]:
        _same_dtype([first.names[0], other.names[0]], [first.arrays[0], other.arrays[0]])
        matrix = first.shape[-1:] + first.shape[-1:]
        if other.shape not in (first.shape, first.shape[:-1] + matrix):
            raise ValueError(f"{other.names[0]}: expected the shape of a slot beside {first.shape}, got {other.shape}")


@dataclass(frozen=True)
class Members:
    """Inputs of a matrix family's call: vectors (…, d) and matrices (…, d, d) over common leading axes."""

    arrays: list[Array]
    ranks: list[int]
    lead: tuple[int, ...]
    dimension: int
    dtype: np.dtype[Any]
    libraries: Sequence[exchange.Library]

    @property
    def library(self) -> exchange.Library:
        """The first input's library, in which results are handed back."""
        return self.libraries[0]


def members(names: Sequence[str], domains: Sequence[str], values: Sequence[Any], views: Views) -> Members:
    """Check that vectors and matrices agree in dtype and dimensions; one without leading axes is shared."""
    seen = [views.view(n, v) for n, v in zip(names, values, strict=True)]
    arrays = [a for a, _ in seen]
    views.memory.check_place(names, arrays)
    dtype = _same_dtype(names, arrays)
    ranks = [2 if d in ("spd", "symmetric") else 1 for d in domains]
    for name, array, rank in zip(names, arrays, ranks, strict=True):
        if array.ndim < rank or (rank == 2 and array.shape[-1] != array.shape[-2]):
            raise ValueError(f"{name}: expected shape {'(..., d, d)' if rank == 2 else '(..., d)'}, got {array.shape}")
    dimension = arrays[0].shape[-1]
    if dimension < 1:
        raise ValueError(f"{names[0]}: expected at least one coordinate, got shape {arrays[0].shape}")
    lead = max((a.shape[: a.ndim - r] for a, r in zip(arrays, ranks, strict=True)), key=len)
    for name, array, rank in zip(names, arrays, ranks, strict=True):
        own = (dimension,) * rank
        if array.shape not in (lead + own, own):
            raise ValueError(f"{name}: expected shape {lead + own}, got {array.shape}")
    return Members(arrays, ranks, lead, dimension, dtype, [lib for _, lib in seen])


SCALARS = {
    "positive": "a positive finite number",
    "fraction": "a number in (0, 1]",
    "count": "a positive integer",
    "real": "a finite number",
}


def scalar(name: str, domain: str, value: Any) -> float:
    """Return a scalar argument as a float, checked to be in its domain: one of `SCALARS`."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}") from None
    inside = abs(number) < math.inf and (number > 0 or domain == "real")
    inside = inside and (number <= 1 if domain == "fraction" else number == int(number) if domain == "count" else True)
    if not inside:
        raise ValueError(f"{name}: expected {SCALARS[domain]}, got {value}")
    return number


def rounded(exact: Array, dtype: np.dtype[Any]) -> tuple[Array, Any]:
    """Return float64 coefficients rounded once to a kernel's dtype, and one that became 0 or infinite, or None."""
    if dtype == np.float64:
        return exact, None
    if exact.size <= FEW and all(v == 0 or TINY <= abs(v) <= HUGE or abs(v) == math.inf for v in exact.tolist()):
        return exact.astype(dtype), None
    with np.errstate(over="ignore", under="ignore"):
        typed = exact.astype(dtype)
    count = np.count_nonzero  # rounding can only add zeros and infinities, so comparing their numbers detects a loss
    if count(typed) == count(exact) and count(np.isfinite(typed)) == count(np.isfinite(exact)):
        return typed, None
    lost = ((exact != 0) & (typed == 0)) | (np.isinf(typed) & np.isfinite(exact))
    return typed, exact[np.argmax(lost)]


def check_axis(axis: Any) -> None:
    """Raise ValueError unless `axis` is None (a reduction over everything) or -1 (over the last axis)."""
    if axis not in (None, -1):
        raise ValueError(f"axis: expected None or -1, got {axis!r}")


def where(index: int, shape: tuple[int, ...]) -> Any:
    """Return a flat index as an index into an array of the given shape."""
    return index if len(shape) <= 1 else tuple(int(i) for i in np.unravel_index(index, shape))


def first_outside(array: Array, domain: str) -> int | None:
    """Return the flat index of the first element outside a domain, or None."""
    flat = array.reshape(-1)
    inside = np.isfinite(flat)
    if domain == "positive":
        inside &= flat > 0
    elif domain == "negative":
        inside &= flat < 0
    return None if inside.all() else int(np.argmin(inside))


def refuse(name: str, domain: str, array: Array) -> None:
    """Raise ValueError if an element of an argument is outside its domain."""
    index = first_outside(array, domain)
    if index is not None:
        refuse_value(name, domain, array.reshape(-1)[index], where(index, array.shape))


def refuse_value(name: str, domain: str, value: Any, index: Any) -> None:
    """Raise ValueError if one element is outside its domain."""
    if first_outside(np.array([value]), domain) is None:
        return
    expected = domain if domain in ("positive", "negative") and np.isfinite(value) else "finite"
    raise ValueError(f"{name}: expected {expected}, got {value} at index {index}")
