"""Rows of an optimizer's arrays: the leading axis of (K, ...) is the client axis, and scalars may differ per client."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from badmm_kernels.face import arrays as ar, exchange

Array = np.ndarray[Any, Any]
# domain → (what is expected, whether a number is inside)
DOMAINS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "positive": ("a positive finite number", lambda x: 0 < x < math.inf),
    "nonnegative": ("a finite number >= 0", lambda x: 0 <= x < math.inf),
    "unit": ("a number in [0, 1]", lambda x: 0 <= x <= 1),
    "fraction": ("a number in (0, 1]", lambda x: 0 < x <= 1),
    "radius": ("a positive number or None", lambda x: x > 0),
    "count": ("a positive integer", lambda x: 1 <= x < math.inf and x == int(x)),
}
SEVERAL = (list, np.ndarray)
PLAIN = (float, int, np.float64)
WORDS = 1 << 64
LARGEST = {dtype: float(np.finfo(dtype).max) for dtype in exchange.DTYPES}


def extent(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (rows, coordinates per row); an array of fewer than two axes is one row."""
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


def _listed(name: str, value: Any, count: int, expected: str) -> list[Any]:
    """Return the numbers of a one-dimensional array or sequence that has one number per row."""
    shape = getattr(value, "shape", None)
    if shape is None and not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected {expected}, or one per row, got {type(value).__name__}")
    shape = (len(value),) if shape is None else tuple(shape)
    if shape != (count,):
        raise ValueError(f"{name}: expected {expected}, or an array of shape ({count},), one per row, got {shape}")
    return list(value.tolist()) if hasattr(value, "tolist") else list(value)


def scalar(name: str, domain: str, value: Any, count: int) -> float | list[float]:
    """Return a scalar argument, or a list with one per row, checked to be inside its domain."""
    if value is None and domain == "radius":
        return math.inf
    expected, inside = DOMAINS[domain]
    if type(value) in PLAIN and inside(value):
        return float(value)
    single = isinstance(value, (float, int, np.floating, np.integer))
    numbers = [value] if single else _listed(name, value, count, "a number")
    if {*map(type, numbers)} == {float} and all(map(inside, numbers)):
        return numbers
    for row, number in enumerate(numbers):
        if isinstance(number, bool) or not isinstance(number, (float, int, np.floating, np.integer)):
            raise TypeError(f"{name}: expected a number, got {type(number).__name__}")
        if not inside(float(number)):
            raise ValueError(f"{name}: expected {expected}, got {number}{'' if single else f' at row {row}'}")
    return float(value) if single else [float(x) for x in numbers]


def integer(name: str, value: Any, count: int) -> int | list[int]:
    """Return a seed or counter from 0 to 2⁶⁴ − 1, or a list with one per row, checked."""
    if type(value) is int and 0 <= value < WORDS:
        return value
    single = isinstance(value, (int, np.integer))
    numbers = [value] if single else _listed(name, value, count, "an integer of 64 bits")
    for kind in {*map(type, numbers)}:
        if kind is bool or not issubclass(kind, (int, np.integer)):
            raise TypeError(f"{name}: expected an integer of 64 bits, got {kind.__name__}")
    for number in numbers:
        if not 0 <= number < WORDS:
            raise ValueError(f"{name}: expected an integer from 0 to 2**64 - 1, got {number}")
    return int(value) if single else [*map(int, numbers)]


def table(columns: Sequence[Any], count: int, dtype: Any) -> Array:
    """Return a flattened table (count, columns) from columns that are one number or one per row."""
    if [c for c in columns if type(c) in SEVERAL]:
        filled = np.empty((count, len(columns)), dtype)
        for k, column in enumerate(columns):
            filled[:, k] = column
        return filled.reshape(-1)
    return np.array(columns, dtype) if count == 1 else np.tile(np.array(columns, dtype), count)


def is_number(value: Any) -> bool:
    """Return whether an operand is a single number."""
    return isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)


def number(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    """Return an operand that is a number in the dtype of the arrays, checked to be finite in it."""
    if not abs(value) <= LARGEST[dtype]:
        raise ValueError(f"{name}: expected a finite number that {dtype} can hold, got {value}")
    return dtype.type(value)


def operand(name: str, value: Any, batch: ar.Batch) -> Array:
    """Return an operand that is an array like the others or has shape (K, 1) with one number per row, checked."""
    array, _ = batch.views.view(name, value)
    batch.memory.check_place([batch.names[0], name], [batch.arrays[0], array])
    count, _ = extent(batch.shape)
    if array.shape not in (batch.shape, batch.shape[1:], (count, 1)):
        shapes = f"{batch.shape}" + (f", {batch.shape[1:]} or ({count}, 1)" if len(batch.shape) > 1 else "")
        raise ValueError(f"{name}: expected a number, or an array of shape {shapes}, got {array.shape}")
    if array.dtype != batch.dtype:
        raise TypeError(f"{name}: expected dtype {batch.dtype} like {batch.names[0]}, got {array.dtype}")
    ar.check_contiguous(name, array)
    return array


def like(name: str, value: Any, batch: ar.Batch) -> Array:
    """Return an array with the shape of a batch, or without its leading axis (shared by all rows), checked."""
    array, _ = batch.views.view(name, value)
    batch.memory.check_place([batch.names[0], name], [batch.arrays[0], array])
    ar.check_contiguous(name, array)
    if array.dtype != batch.dtype:
        raise TypeError(f"{name}: expected dtype {batch.dtype} like {batch.names[0]}, got {array.dtype}")
    ar.check_shape(name, array, batch.shape)
    return array


def is_alone(array: Array, batch: ar.Batch) -> bool:
    """Return whether an operand holds one number per row, or one for all rows."""
    count, _ = extent(batch.shape)
    return array.shape in ((1,), (count, 1)) and array.shape not in (batch.shape, batch.shape[1:])


class _Alias:
    """An array's memory without its read-only flag, for loops that only read."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (ar.address(array), False)}


def flat(array: Array) -> Array:
    """Return the flattened array, without a read-only flag: the loops are compiled for writable arrays alone."""
    writable = array if array.flags.writeable else np.asarray(_Alias(array))
    return writable if writable.ndim == 1 else writable.reshape(-1)
