"""Array libraries in CPU memory: NumPy arrays are used unchanged, others with DLPack (torch tensors, say) are viewed
without a copy, and results are handed back in the library of the inputs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ctypes import c_char
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.ma import MaskedArray

Array = np.ndarray[Any, Any]
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Library:
    """The array library of a call, in which results are handed back."""

    module: Any = None

    def array(self, value: Array) -> Any:
        """Return a NumPy result as an array of the caller's library that shares its memory."""
        return value if self.module is None else self.module.from_dlpack(value)

    def wrap(self, outputs: Sequence[Array], out: Any) -> tuple[Any, ...]:
        """Return the results as a tuple: the caller's `out` if given, else arrays of the caller's library."""
        return tuple(out) if out is not None else tuple(self.array(o) for o in outputs)


NUMPY = Library()


def view(name: str, value: Any) -> tuple[Array, Library]:
    """Return (a NumPy view of an array, its library)."""
    if isinstance(value, np.ndarray):
        if isinstance(value, MaskedArray):
            raise TypeError(f"{name}: expected an array without a mask, got a masked array")
        array, library = value, NUMPY
    elif (tensor := plain_tensor(value)) is not None:
        array, library = tensor
    elif hasattr(value, "__dlpack__"):
        array, library = _exchange(name, value)
    else:
        raise TypeError(f"{name}: expected an array of float32 or float64, got {type(value).__name__}")
    check_dtype(name, array.dtype)
    return array, library


def check_dtype(name: str, dtype: Any) -> None:
    """Raise TypeError unless the dtype is float32 or float64."""
    if dtype not in DTYPES:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {dtype}")


def check_gradient(name: str, value: Any) -> None:
    """Raise TypeError if the value requires a gradient, which a kernel would not propagate."""
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"{name}: expected a tensor that does not require a gradient, got one that does; detach it first"
        )


def library_of(value: Any) -> Any:
    """Return the imported library of a foreign array that has `from_dlpack`, or None."""
    if hasattr(value, "__array_namespace__") and hasattr(value.__array_namespace__(), "from_dlpack"):
        return value.__array_namespace__()
    roots = [sys.modules.get(kind.__module__.split(".")[0]) for kind in type(value).__mro__]
    return next((m for m in roots if hasattr(m, "from_dlpack")), None)


def exchanging_module(name: str, value: Any) -> Any:
    """Return `library_of`; raise TypeError if it is None."""
    module = library_of(value)
    if module is None:
        raise TypeError(f"{name}: expected an array whose library has from_dlpack, got {type(value).__name__}")
    return module


def _exchange(name: str, value: Any) -> tuple[Array, Library]:
    """View a foreign array through DLPack; return the view and the array's library."""
    device = getattr(value, "device", "cpu")
    if "cpu" not in str(getattr(device, "type", device)).lower():
        raise TypeError(
            f"{name}: expected an array in CPU memory, got one on {device}; load the family with device='gpu'"
        )
    check_gradient(name, value)
    module = exchanging_module(name, value)
    try:
        return np.from_dlpack(value), _library(module)
    except (RuntimeError, BufferError, TypeError) as error:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {getattr(value, 'dtype', error)}") from error


@cache
def _library(module: Any) -> Library:
    """Return the cached `Library` of a module."""
    return Library(module)


def plain_tensor(value: Any) -> tuple[Array, Library] | None:
    """Return the result of `_exchange` for a non-empty contiguous torch tensor in CPU memory; None for anything else.

    This takes a third of the time of `_exchange` (`python -m benchmarks.calls`). It does not call `Tensor.numpy`, which
    would make the tensor's storage impossible to resize.
    """
    torch, kind = sys.modules.get("torch"), type(value)
    if torch is None or (kind is not torch.Tensor and kind is not torch.nn.Parameter):
        return None
    dtype = DTYPES[0] if value.dtype is torch.float32 else DTYPES[1] if value.dtype is torch.float64 else None
    if dtype is None or not value.is_cpu or value.requires_grad:
        return None
    if value.layout is not torch.strided or not value.is_contiguous():
        return None
    size = value.nbytes
    if size == 0:
        return None
    try:
        memory = (c_char * size).from_address(value.data_ptr())
    except RuntimeError:  # a tensor without memory: a functorch wrapper, a fake tensor
        return None
    memory.owner = value  # keeps the tensor alive as long as a view
    return np.ndarray(value.shape, dtype, memory), _library(torch)
