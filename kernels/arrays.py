"""Arrays in, same library out: one place where shapes, dtypes, layout and overlap are checked.

NumPy arrays are used as they are; anything else that exchanges memory by DLPack (a CPU torch tensor, say) is viewed
without a copy and the result handed back in its own library. What differs between CPU and GPU memory is a `Memory`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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


NUMPY = Library()


class Memory:
    """How arrays are viewed, made and compared where they live: here in CPU memory, as NumPy has them."""

    xp: Any = np

    def view(self, name: str, value: Any) -> tuple[Array, Library]:
        """(the array as this memory's own kind, the library it came in)."""
        return view(name, value)

    def address(self, array: Array) -> int:
        """Where an array's memory begins."""
        return address(array)

    def empty(self, _library: Library, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A fresh output that `library` can hand back."""
        return np.empty(shape, dtype)

    def is_writable(self, array: Array, _value: Any) -> bool:
        """Whether a kernel may write the view of an array."""
        return array.flags.writeable

    def check_place(self, names: Sequence[str], arrays: Sequence[Array]) -> None:
        """Refuse arrays that one kernel cannot reach together."""


def address(array: Array) -> int:
    """Where an array's memory begins."""
    return int(array.__array_interface__["data"][0])


def view(name: str, value: Any) -> tuple[Array, Library]:
    """(NumPy view of an array, its library)."""
    if type(value) is np.ndarray:
        array, library = value, NUMPY
    elif isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked array")
    elif isinstance(value, np.ndarray):
        array, library = value, NUMPY
    elif hasattr(value, "__dlpack__"):
        array, library = _exchange(name, value)
    else:
        raise TypeError(f"{name}: expected an array of float32 or float64, got {type(value).__name__}")
    check_dtype(name, array.dtype)
    return array, library


def check_dtype(name: str, dtype: Any) -> None:
    """Kernels are float32 or float64."""
    if dtype not in DTYPES:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {dtype}")


def check_gradient(name: str, value: Any) -> None:
    """A tensor of an autograd graph is no plain array."""
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"{name}: expected a tensor that does not require a gradient, got one that does; detach it first"
        )


def library_of(value: Any) -> Any:
    """The already imported library of a foreign array, which takes results back by `from_dlpack`; or None."""
    if hasattr(value, "__array_namespace__") and hasattr(value.__array_namespace__(), "from_dlpack"):
        return value.__array_namespace__()
    roots = [sys.modules.get(kind.__module__.split(".")[0]) for kind in type(value).__mro__]
    return next((m for m in roots if hasattr(m, "from_dlpack")), None)


def exchanging_module(name: str, value: Any) -> Any:
    """`library_of`, where there must be one."""
    module = library_of(value)
    if module is None:
        raise TypeError(f"{name}: expected an array whose library has from_dlpack, got {type(value).__name__}")
    return module


def _exchange(name: str, value: Any) -> tuple[Array, Library]:
    """A foreign array viewed through DLPack, and the library to hand results back in."""
    device = getattr(value, "device", "cpu")
    if "cpu" not in str(getattr(device, "type", device)).lower():
        raise TypeError(
            f"{name}: expected an array in CPU memory, got one on {device}; load the family with device='gpu'"
        )
    check_gradient(name, value)
    module = exchanging_module(name, value)
    try:
        return np.from_dlpack(value), Library(module)
    except (RuntimeError, BufferError, TypeError) as error:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {getattr(value, 'dtype', error)}") from error


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
    libraries: Sequence[Library]
    memory: Memory

    @property
    def library(self) -> Library:
        """The first input's library: results are handed back in it."""
        return self.libraries[0]

    @property
    def named(self) -> list[tuple[str, Array]]:
        """Inputs with their argument names."""
        return list(zip(self.names, self.arrays, strict=True))

    def aliased(self, outs: Sequence[Array]) -> list[Array]:
        """The inputs that are an output's memory."""
        written = {self.memory.address(o) for o in outs}
        return [a for a in self.arrays if a.size and self.memory.address(a) in written]

    def by_rows(self) -> Batch:
        """The same with every leading index a row, for reductions along the last axis."""
        width = self.shape[-1] if len(self.shape) > 1 else self.width
        rows = math.prod(self.shape[:-1]) if len(self.shape) > 1 else self.rows
        arrays = self.arrays
        if len(self.shape) > 2:  # an input shared along the first axis only is repeated: no single step describes it
            xp = self.memory.xp
            arrays = [xp.ascontiguousarray(xp.broadcast_to(a, self.shape)) for a in arrays]
        steps = [width if a.shape == self.shape else 0 for a in arrays]
        flat = [a.reshape(-1) for a in arrays]
        return replace(self, flat=flat, steps=steps, rows=rows, width=width)


def _same_dtype(names: Sequence[str], arrays: Sequence[Array]) -> np.dtype[Any]:
    for name, array in zip(names, arrays, strict=True):
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"{name}: expected dtype {arrays[0].dtype} like {names[0]}, got {array.dtype}")
    return arrays[0].dtype


def check_contiguous(name: str, array: Array) -> None:
    """Refuse strides that loops over flat memory would not follow."""
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {array.strides} for shape {array.shape}")


HOST = Memory()


def batch(names: Sequence[str], values: Sequence[Any], memory: Memory = HOST) -> Batch:
    """Check the inputs of one elementwise call against each other."""
    seen = [memory.view(n, v) for n, v in zip(names, values, strict=True)]
    arrays = [a for a, _ in seen]
    memory.check_place(names, arrays)
    for name, array in zip(names, arrays, strict=True):
        check_contiguous(name, array)
    dtype = _same_dtype(names, arrays)
    shape = max((a.shape for a in arrays), key=len)
    for name, array in zip(names, arrays, strict=True):
        if array.shape not in (shape, shape[1:]):
            shared = f" or, shared by all clients, {shape[1:]}" if len(shape) > 1 else ""
            raise ValueError(f"{name}: expected shape {shape}{shared}, got {array.shape}")
    whole = all(a.shape == shape for a in arrays)
    rows, width = (1, math.prod(shape)) if whole else (shape[0], math.prod(shape[1:]))
    steps = [width if a.shape == shape else 0 for a in arrays]
    flat = [a.reshape(-1) for a in arrays]
    return Batch(list(names), arrays, flat, steps, shape, rows, width, dtype, [lib for _, lib in seen], memory)


def check_out_tuple(out: Any, count: int, name: str = "out", of: str = "arrays") -> None:
    """`out` must be None or a tuple of `count` arrays."""
    if out is None:
        return
    if not isinstance(out, (tuple, list)) or len(out) != count:
        got = f"{len(out)} of them" if isinstance(out, (tuple, list)) else type(out).__name__
        raise ValueError(f"{name}: expected a tuple of {count} {of}, got {got}")


def flat_out(out: Any, groups: int, count: int) -> tuple[Any, list[str]]:
    """(the arrays of `out` in a row, their names): a tuple of `count` for one result, a tuple of such for several."""
    if groups == 1:
        return out, [f"out[{k}]" for k in range(count)]
    names = [f"out[{g}][{k}]" for g in range(groups) for k in range(count)]
    check_out_tuple(out, groups, of=f"tuples of {count} arrays")
    for g, part in enumerate(out or ()):
        check_out_tuple(part if part is not None else (), count, f"out[{g}]")
    return None if out is None else [array for part in out for array in part], names


def checked_out(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], memory: Memory = HOST) -> Array:
    """One writable output of the expected shape, dtype and layout."""
    array, _ = memory.view(name, value)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    check_contiguous(name, array)
    if not memory.is_writable(array, value):
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    return array


def outputs(
    out: Any,
    shapes: Sequence[tuple[int, ...]],
    dtype: np.dtype[Any],
    inputs: Sequence[tuple[str, Array]],
    allowed: Sequence[Sequence[int]],
    own_names: Sequence[str] = (),
    library: Library = NUMPY,
    memory: Memory = HOST,
) -> list[Array]:
    """Fresh outputs, or the caller's, checked: out[k] may be exactly one of the inputs `allowed[k]`, else overlap
    nothing."""
    check_out_tuple(out, len(shapes))
    called = own_names or [f"out[{k}]" for k in range(len(shapes))]
    if out is None:
        return [memory.empty(library, shape, dtype) for shape in shapes]
    arrays = [checked_out(n, v, s, dtype, memory) for n, v, s in zip(called, out, shapes, strict=True)]
    if inputs:
        memory.check_place([inputs[0][0], *called], [inputs[0][1], *arrays])
    for k, array in enumerate(arrays):
        others = [*inputs, *zip(called, arrays[:k], strict=False)]
        refuse_overlap(called[k], array, others, allowed[k], memory)
    return arrays


def refuse_overlap(
    name: str,
    array: Array,
    others: Iterable[tuple[str, Array]],
    allowed: Sequence[int] = (),
    memory: Memory = HOST,
) -> None:
    """An output overlaps none of the others, unless it is exactly one of those whose numbers are allowed."""
    for number, (other_name, other) in enumerate(others):
        if not memory.xp.may_share_memory(array, other):
            continue
        same = memory.address(other) == memory.address(array) and other.shape == array.shape
        if number not in allowed or not same:
            own = "memory of its own or exactly an input's of the same slot" if allowed else "memory of its own"
            raise ValueError(f"{name}: expected {own}, got an overlap with {other_name}")


def check_slots(batches: Sequence[Batch]) -> None:
    """Slots of one parameter have one shape, or a vector's (…, d) and its matrix's (…, d, d)."""
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
    libraries: Sequence[Library]

    @property
    def library(self) -> Library:
        """The first input's library: results are handed back in it."""
        return self.libraries[0]


def members(names: Sequence[str], domains: Sequence[str], values: Sequence[Any], memory: Memory = HOST) -> Members:
    """Check vectors and matrices against each other; one without leading axes is shared."""
    seen = [memory.view(n, v) for n, v in zip(names, values, strict=True)]
    arrays = [a for a, _ in seen]
    memory.check_place(names, arrays)
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


def scalar(name: str, domain: str, value: Any) -> float:
    """A public scalar as a float, checked: positive, fraction (0, 1] or count (1, 2, ...)."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
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
    if index is not None:
        refuse_value(name, domain, array.reshape(-1)[index], where(index, array.shape))


def refuse_value(name: str, domain: str, value: Any, index: Any) -> None:
    """Raise the domain error of one element if it has one."""
    if first_outside(np.array([value]), domain) is None:
        return
    expected = domain if domain in ("positive", "negative") and np.isfinite(value) else "finite"
    raise ValueError(f"{name}: expected {expected}, got {value} at index {index}")
