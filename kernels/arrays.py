"""Arrays in, same library out: one place where shapes, dtypes, layout and overlap are checked.

NumPy arrays are used as they are; anything else that exchanges memory by DLPack (a CPU torch tensor, say) is viewed
without a copy and the result handed back in its own library.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Library:
    """The array library of a call; results are handed back in it."""

    module: Any = None

    def array(self, value: Array) -> Any:
        """A NumPy result in the caller's library, sharing memory."""
        return value if self.module is None else self.module.from_dlpack(value)

    def wrap(self, outputs: Sequence[Array], out: Any) -> tuple[Any, ...]:
        """The results as a tuple: the caller's own `out` where given."""
        return tuple(out) if out is not None else tuple(self.array(o) for o in outputs)


def view(name: str, value: Any) -> tuple[Array, Library]:
    """(NumPy view of an array, its library)."""
    if isinstance(value, np.ndarray):
        array, library = value, Library()
    elif hasattr(value, "__dlpack__"):
        device = getattr(value, "device", "cpu")
        if "cpu" not in str(getattr(device, "type", device)).lower():
            raise TypeError(
                f"{name}: expected an array in CPU memory, got one on {device}; load the family with device='gpu'"
            )
        module = sys.modules[type(value).__module__.split(".")[0]]
        array, library = np.from_dlpack(value.detach() if hasattr(value, "detach") else value), Library(module)
    else:
        raise TypeError(f"{name}: expected an array of float32 or float64, got {type(value).__name__}")
    if array.dtype not in DTYPES:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
    return array, library


@dataclass(frozen=True)
class Batch:
    """Inputs of an elementwise call as flat arrays over rows × width; a step of 0 repeats an array for every row."""

    names: Sequence[str]
    arrays: list[Array]
    flat: list[Array]
    steps: list[int]
    shape: tuple[int, ...]
    rows: int
    width: int
    dtype: np.dtype[Any]
    library: Library

    def by_rows(self) -> Batch:
        """The same with every leading index a row (for reductions along the last axis)."""
        if self.rows > 1 or len(self.shape) < 2:
            rows, width = (self.shape[0], math.prod(self.shape[1:])) if self.rows > 1 else (self.rows, self.width)
        else:
            rows, width = math.prod(self.shape[:-1]), self.shape[-1]
        steps = [width if a.shape == self.shape else 0 for a in self.arrays]
        return Batch(self.names, self.arrays, self.flat, steps, self.shape, rows, width, self.dtype, self.library)


def _same_dtype(names: Sequence[str], arrays: Sequence[Array]) -> np.dtype[Any]:
    for name, array in zip(names, arrays, strict=True):
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"{name}: expected dtype {arrays[0].dtype} like {names[0]}, got {array.dtype}")
    return arrays[0].dtype


def _contiguous(name: str, array: Array) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {array.strides} for shape {array.shape}")


def batch(names: Sequence[str], values: Sequence[Any]) -> Batch:
    """Check the inputs of one elementwise call against each other."""
    seen = [view(n, v) for n, v in zip(names, values, strict=True)]
    arrays = [a for a, _ in seen]
    for name, array in zip(names, arrays, strict=True):
        _contiguous(name, array)
    dtype = _same_dtype(names, arrays)
    shape = max((a.shape for a in arrays), key=len)
    for name, array in zip(names, arrays, strict=True):
        if array.shape not in (shape, shape[1:]):
            shared = f" or, shared by all clients, {shape[1:]}" if len(shape) > 1 else ""
            raise ValueError(f"{name}: expected shape {shape}{shared}, got {array.shape}")
    whole = all(a.shape == shape for a in arrays)
    rows, width = (1, math.prod(shape)) if whole else (shape[0], math.prod(shape[1:]))
    steps = [width if a.shape == shape else 0 for a in arrays]
    return Batch(list(names), arrays, [a.reshape(-1) for a in arrays], steps, shape, rows, width, dtype, seen[0][1])


def check_out_tuple(out: Any, count: int) -> None:
    """`out` must be None or a tuple of `count` arrays."""
    if out is None:
        return
    if not isinstance(out, (tuple, list)) or len(out) != count:
        got = f"{len(out)} of them" if isinstance(out, (tuple, list)) else type(out).__name__
        raise ValueError(f"out: expected a tuple of {count} arrays, got {got}")


def checked_out(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """One writable output of the expected shape, dtype and layout."""
    array, _ = view(name, value)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    _contiguous(name, array)
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    return array


def outputs(out: Any, count: int, inputs: Batch, shape: tuple[int, ...] | None = None) -> list[Array]:
    """Fresh outputs, or the caller's, checked: each may be one whole input, but overlap no input otherwise."""
    check_out_tuple(out, count)
    shape = inputs.shape if shape is None else shape
    if out is None:
        return [np.empty(shape, inputs.dtype) for _ in range(count)]
    arrays = [checked_out(f"out[{k}]", v, shape, inputs.dtype) for k, v in enumerate(out)]
    for k, array in enumerate(arrays):
        for name, other in [
            *zip(inputs.names, inputs.arrays, strict=True),
            *((f"out[{j}]", a) for j, a in enumerate(arrays[:k])),
        ]:
            same = other.ctypes.data == array.ctypes.data and other.shape == array.shape and not name.startswith("out")
            if not same and np.may_share_memory(array, other):
                raise ValueError(
                    f"out[{k}]: expected memory of its own or exactly an input's, got an overlap with {name}"
                )
    return arrays


@dataclass(frozen=True)
class Members:
    """Inputs of a matrix family's call: vectors (…, d) and matrices (…, d, d) over common leading axes."""

    arrays: list[Array]
    ranks: list[int]
    lead: tuple[int, ...]
    dimension: int
    dtype: np.dtype[Any]
    library: Library


def members(names: Sequence[str], domains: Sequence[str], values: Sequence[Any]) -> Members:
    """Check vectors and matrices against each other; one without leading axes is shared."""
    seen = [view(n, v) for n, v in zip(names, values, strict=True)]
    arrays = [a for a, _ in seen]
    dtype = _same_dtype(names, arrays)
    ranks = [2 if d in ("spd", "symmetric") else 1 for d in domains]
    for name, array, rank in zip(names, arrays, ranks, strict=True):
        if array.ndim < rank or (rank == 2 and array.shape[-1] != array.shape[-2]):
            raise ValueError(f"{name}: expected shape {'(..., d, d)' if rank == 2 else '(..., d)'}, got {array.shape}")
    dimension = arrays[0].shape[-1]
    lead = max((a.shape[: a.ndim - r] for a, r in zip(arrays, ranks, strict=True)), key=len)
    for name, array, rank in zip(names, arrays, ranks, strict=True):
        own = (dimension,) * rank
        if array.shape not in (lead + own, own):
            raise ValueError(f"{name}: expected shape {lead + own}, got {array.shape}")
    return Members(arrays, ranks, lead, dimension, dtype, seen[0][1])


def member_outputs(out: Any, inputs: Members) -> list[Array]:
    """Outputs of a matrix family's map: one vector and one matrix; none may overlap an input."""
    shapes = [inputs.lead + (inputs.dimension,), inputs.lead + (inputs.dimension, inputs.dimension)]
    check_out_tuple(out, 2)
    if out is None:
        return [np.empty(s, inputs.dtype) for s in shapes]
    arrays = [checked_out(f"out[{k}]", v, s, inputs.dtype) for k, (v, s) in enumerate(zip(out, shapes, strict=True))]
    for k, array in enumerate(arrays):
        if any(np.may_share_memory(array, a) for a in inputs.arrays):
            raise ValueError(f"out[{k}]: expected memory of its own, got an overlap with an input")
    return arrays


def scalar(name: str, domain: str, value: Any) -> float:
    """A public scalar as a float, checked: positive, fraction (0, 1] or count (1, 2, ...)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}") from None
    expected = {
        "positive": "a positive finite number",
        "fraction": "a number in (0, 1]",
        "count": "a positive integer",
    }[domain]
    inside = number > 0 and math.isfinite(number)
    inside = inside and (number <= 1 if domain == "fraction" else number == int(number) if domain == "count" else True)
    if not inside:
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return number


def check_axis(axis: Any) -> None:
    """Reductions sum everything (None) or the last axis (-1)."""
    if axis not in (None, -1):
        raise ValueError(f"axis: expected None or -1, got {axis!r}")


def where(index: int, shape: tuple[int, ...]) -> Any:
    """A flat index as the caller would write it."""
    return index if len(shape) <= 1 else tuple(int(i) for i in np.unravel_index(index, shape))


def first_outside(array: Array, domain: str) -> int | None:
    """Flat index of the first element outside a domain, or None."""
    flat = array.reshape(-1)
    inside = np.isfinite(flat)
    if domain == "positive":
        inside &= flat > 0
    elif domain == "negative":
        inside &= flat < 0
    return None if inside.all() else int(np.argmin(inside))


def refuse(name: str, domain: str, array: Array) -> None:
    """Raise the domain error of an argument if it has one."""
    index = first_outside(array, domain)
    if index is None:
        return
    value = array.reshape(-1)[index]
    expected = domain if domain in ("positive", "negative") and np.isfinite(value) else "finite"
    raise ValueError(f"{name}: expected {expected}, got {value} at index {where(index, array.shape)}")
