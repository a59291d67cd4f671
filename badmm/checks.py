"""Argument checks and the errors of the solver; messages have the form `argument: expected ..., got ...`."""

from __future__ import annotations

import decimal
import hashlib
import importlib
import importlib.util
import inspect
import numbers
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dpotrf

Array = NDArray[np.float64]
Class = TypeVar("Class")


class ClientError(RuntimeError):
    """A client raised, or returned something of the wrong shape or not finite.

    `.client` is its index, `.reason` the message without it.
    """

    def __init__(self, client: int, message: str) -> None:
        super().__init__(f"client {client}: {message}")
        self.client, self.reason = client, message


class LostClientError(ClientError):
    """A client's problem has no solution in the family, or its solver left the domain.

    `.rho` is the penalty, `.required_rho` the value above which the existence condition holds: ρ S_g + η_S is
    positive definite, so that the client's objective L_k − ⟨η_k, μ⟩ + ρ KL(q‖q_g) grows with the covariance.
    """

    def __init__(self, client: int, message: str, rho: float, required_rho: float) -> None:
        violated = f"; the existence condition needs rho > {required_rho:.6g}, got rho = {rho:.6g}"
        super().__init__(client, message + (violated if rho <= required_rho else ""))
        self.rho = rho
        self.required_rho = required_rho


class ServerDomainError(RuntimeError):
    """The server's natural parameter left the domain of its family under explicit step sizes."""


class RankError(RuntimeError):
    """Another process of the run failed, is at another step, or did not answer; no process goes on."""


class UnfinishedRunError(RuntimeError):
    """Some runs of a comparison failed; the others are finished and reported."""


def real_array(value: ArrayLike, name: str, ndim: int | tuple[int, ...] | None = None) -> Array:
    """Return `value` as a finite float64 array with `ndim` axes; raise `ValueError` with the first bad index.

    Numbers and truth values are accepted. Text, dates, complex numbers, masked entries and objects are refused, even if
    NumPy would convert them.
    """
    array = _floats(value, name)
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if allowed is not None and array.ndim not in allowed:
        raise ValueError(f"{name}: expected {' or '.join(map(str, allowed))} axes, got shape {array.shape}")
    require(np.isfinite(array), array, name, "finite")
    return array


_KINDS = {"M": "dates", "m": "durations", "c": "complex numbers", "U": "text", "S": "bytes", "V": "records"}


def _floats(value: ArrayLike, name: str) -> Array:
    """Return `value` as a new float64 array."""
    if _masked(value):
        raise ValueError(f"{name}: expected an array without missing values, got a masked array with masked entries")
    try:
        # only a sequence can mix numbers with text, and NumPy would convert all of it to text
        sequence = isinstance(value, list | tuple)
        array = np.array(value, dtype=object) if sequence and _mixed(value) else np.asarray(value)
    except Exception as error:  # an array library may raise anything
        got = f"{type(value).__name__}: {str(error)[:200]}"
        raise ValueError(f"{name}: expected an array of real numbers, got {got}") from error
    if array.dtype.kind in _KINDS:
        first = "" if array.size == 0 else f", first {_short(array.flat[0])}"
        raise ValueError(f"{name}: expected real numbers, got {_KINDS[array.dtype.kind]}{first}")
    if array.dtype.kind == "O":
        good = np.asarray(np.frompyfunc(_is_real, 1, 1)(array), dtype=bool)
        if not good.all():
            index = tuple(int(i) for i in np.argwhere(~good)[0])
            raise ValueError(f"{name}: expected real numbers, got {_short(array[index])}{_at(index)}")
    return np.array(array, dtype=np.float64)


def _masked(value: Any) -> bool:
    """Return whether a masked array, or a nested sequence of them, has a masked entry."""
    if isinstance(value, list | tuple):
        return any(_masked(part) for part in value if not isinstance(part, float | int))
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.getmaskarray(value).any())


def _mixed(value: Any) -> bool:
    """Return whether a nested sequence has an entry that is neither a real number nor an array."""
    return any(
        _mixed(part) if isinstance(part, list | tuple) else not hasattr(part, "__array__") and not _is_real(part)
        for part in value
    )


def _is_real(value: Any) -> bool:
    """Return whether an entry is a real number that float64 has a place for; an infinite or missing one is another's to
    refuse."""
    if isinstance(value, np.timedelta64):  # an integer to NumPy
        return False
    if isinstance(value, float | np.bool_):
        return True
    if not isinstance(value, numbers.Real) and not (isinstance(value, decimal.Decimal) and value.is_finite()):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _short(value: Any) -> str:
    """Return an entry as text for a message, cut to 60 characters."""
    plain = value.item() if isinstance(value, np.str_ | np.bytes_) else value  # without the prefix np.str_
    if isinstance(plain, int) and abs(plain) > 1 << 1000:  # Python does not print one of thousands
        return "an integer of over 300 digits"
    text = repr(plain).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:60]}…"


def _at(index: tuple[int, ...]) -> str:
    return "" if not index else f" at index {index[0] if len(index) == 1 else index}"


def require(good: NDArray[np.bool_], array: NDArray[Any], name: str, expected: str) -> None:
    """Raise `ValueError` naming the first entry of `array` that is not `good`."""
    if good.all():
        return
    index = tuple(int(i) for i in np.argwhere(~good)[0])
    raise ValueError(f"{name}: expected {expected}, got {array[index]}{_at(index)}")


def positive_number(value: Any, name: str, upper: float = np.inf) -> float:
    """A number in (0, upper]; raises `ValueError`."""
    number = _as_float(value)
    if not 0 < number <= upper or number == np.inf:
        bounds = "a positive number" if upper == np.inf else f"a number in (0, {upper:g}]"
        raise ValueError(f"{name}: expected {bounds}, got {_short(value)}")
    return number


def non_negative_number(value: Any, name: str) -> float:
    """A finite number of at least 0; raises `ValueError`."""
    number = _as_float(value)
    if not 0 <= number < np.inf:
        raise ValueError(f"{name}: expected a number of at least 0, got {_short(value)}")
    return number


def positive_integer(value: Any, name: str) -> int:
    """An integer of at least 1; raises `ValueError`."""
    if not _is_number(value) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {_short(value)}")
    return int(value)


def _as_float(value: Any) -> float:
    """Return a number as float64, NaN for what is none or has no place there."""
    return float(value) if _is_number(value) and _is_real(value) else np.nan


def _is_number(value: Any) -> bool:
    """Return whether a value is of a type of numbers: no truth value, duration, array or text."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.timedelta64)


def labels(y: ArrayLike, n: int | None, num_classes: int, name: str = "y") -> NDArray[np.int64]:
    """Return labels (n,), of any length where n is None, as integers in 0..num_classes−1.

    Raises `ValueError` with the first invalid one.
    """
    array = real_array(y, name, 1)
    if n is not None and len(array) != n:
        raise ValueError(f"{name}: expected shape ({n},) to match X, got {array.shape}")
    allowed = "{0, 1}" if num_classes == 2 else f"{{0, ..., {num_classes - 1}}}"
    good = (array == np.floor(array)) & (array >= 0) & (array < num_classes)
    if not good.all():
        index = int(np.argmin(good))
        raise ValueError(f"{name}: expected labels in {allowed}, got {array[index]:g} at index {index}")
    return array.astype(np.int64)


def counts(y: ArrayLike, name: str) -> Array:
    """Return non-negative whole numbers as float64; raise `ValueError` with the first invalid one."""
    array = real_array(y, name)
    require((array >= 0) & (array == np.floor(array)), array, name, "non-negative whole numbers")
    return array


def design(X: ArrayLike, y_length: int | None = None) -> Array:
    """A design matrix (n, d) with n, d ≥ 1, finite; raises `ValueError`."""
    array = real_array(X, "X", 2)
    if 0 in array.shape:
        raise ValueError(f"X: expected at least one row and one column, got shape {array.shape}")
    if y_length is not None and y_length != len(array):
        raise ValueError(f"y: expected shape ({len(array)},) to match X, got length {y_length}")
    return np.ascontiguousarray(array)


def row_weights(weights: ArrayLike | None, n: int) -> Array | None:
    """Weights (n,) of rows, finite and at least 0; None means ones. Raises `ValueError`."""
    if weights is None:
        return None
    array = real_array(weights, "weights", 1)
    require(array >= 0, array, "weights", "non-negative")
    return _as_long_as_rows(array, (n,), "weights")


def row_offset(offset: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Offsets of predictors in their shape, finite; None means zeros. Raises `ValueError`."""
    return None if offset is None else _as_long_as_rows(real_array(offset, "offset", len(shape)), shape, "offset")


def _as_long_as_rows(array: Array, shape: tuple[int, ...], name: str) -> Array:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} to match X, got {array.shape}")
    return array


def column_names(X: Any) -> tuple[str, ...] | None:
    """Return the names of a data frame's columns; None for an array."""
    columns = getattr(X, "columns", None)
    return None if columns is None or callable(columns) else tuple(map(str, columns))


def same_columns(clients: Iterable[Any]) -> None:
    """Raise `ValueError` if the features of two clients differ in names or order."""
    first: tuple[int, tuple[str, ...]] | None = None
    for k, client in enumerate(clients):
        names = getattr(client, "columns", None)
        if not isinstance(names, tuple):
            continue
        if first is None:
            first = k, names
        elif names != first[1]:
            place = next((i for i, pair in enumerate(zip(names, first[1], strict=False)) if pair[0] != pair[1]), 0)
            got, expected = _short(names[place]), _short(first[1][place])
            raise ValueError(
                f"clients: expected the columns of client {first[0]} in its order, {expected} at place {place}, got "
                f"{got} at client {k}"
            )


def cholesky_factor(matrix: Array) -> Array | None:
    """Return the lower factor L of S = LLᵀ, or None if S (d, d) is not positive definite.

    It uses SciPy's potrf as the kernels do: NumPy's rounds differently, so that the two could disagree at the boundary
    of the domain.
    """
    factor, info = dpotrf(matrix, lower=1, clean=1)
    return None if info else np.asarray(factor)


def implementation(value: Any, listed: Mapping[str, type[Class]], base: type[Class], name: str) -> type[Class]:
    """The class that an argument names: one of `listed`, a subclass of `base`, "module:Class" or "file.py:Class".

    Raises `ValueError` for anything else, and for a file or module that cannot be imported.
    """
    if isinstance(value, str) and value in listed:
        return listed[value]
    origin, colon, title = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    found = getattr(imported(origin, name), title, None) if colon else value
    if isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found):
        return found
    what = "a class" if base is object else f"a subclass of {base.__module__}.{base.__name__}"
    raise ValueError(f'{name}: expected one of {", ".join(listed)}, or {what} as "file.py:Class", got {value!r:.80}')


def imported(origin: str, name: str) -> ModuleType:
    """A module by its name or its file, which is read once."""
    try:
        if not origin.endswith(".py"):
            return importlib.import_module(origin)
        path = Path(origin).resolve()
        known = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
        if known not in sys.modules:
            spec = importlib.util.spec_from_file_location(known, path)
            assert spec is not None and spec.loader is not None
            # dataclasses look their module up while the file is executed
            sys.modules[known] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[known])
            except BaseException:
                del sys.modules[known]
                raise
        return sys.modules[known]
    except Exception as error:  # whatever a user's file does
        raise ValueError(f"{name}: expected a file or module that can be imported, got {origin} ({error})") from error
