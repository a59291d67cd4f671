"""Torch tensors on any device, in the form that the checks of `badmm_kernels.face.arrays` take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from badmm_kernels.face import arrays as ar, exchange

TYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
DTYPES = {numpy_type: torch_type for torch_type, numpy_type in TYPES.items()}


@dataclass(frozen=True, eq=False)
class View:
    """A tensor with the attributes of a NumPy array that the checks read."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as a tuple."""
        return tuple(self.tensor.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.tensor.numel()

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype."""
        return TYPES[self.tensor.dtype]

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides in bytes."""
        return tuple(step * self.tensor.element_size() for step in self.tensor.stride())

    @property
    def flags(self) -> SimpleNamespace:
        """NumPy's flag `c_contiguous`."""
        return SimpleNamespace(c_contiguous=self.tensor.is_contiguous())

    def reshape(self, *shape: int) -> View:
        """The same elements in another shape."""
        return View(self.tensor.reshape(*shape))

    def host(self) -> ar.Array:
        """Return the elements in CPU memory, for error messages."""
        found: ar.Array = self.tensor.cpu().numpy()
        return found


@dataclass(frozen=True)
class Torch(exchange.Library):
    """Torch as the library of a call: results are tensors, allocated on `device`."""

    device: torch.device | None = None

    def array(self, value: Any) -> Any:
        """The tensor of a view."""
        return value.tensor


class TensorMemory(ar.Memory):
    """The memory of torch tensors: outputs are allocated on the device of the first input."""

    def view(self, name: str, value: Any) -> tuple[Any, exchange.Library]:
        """Return (a view of the tensor, torch as its library)."""
        if isinstance(value, View):
            return value, Torch(device=value.tensor.device)
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch tensor of float32 or float64, got {type(value).__name__}")
        if value.dtype not in TYPES:
            raise TypeError(f"{name}: expected dtype float32 or float64, got {value.dtype}")
        exchange.check_gradient(name, value)
        return View(value), Torch(device=value.device)

    def address(self, array: Any) -> int:
        """Return the address of a tensor's first byte."""
        return int(array.tensor.data_ptr())

    def span(self, array: Any) -> tuple[int, int]:
        """Return the addresses of a contiguous tensor's first byte and of the byte after its last."""
        begin, size = self.address(array), array.tensor.nbytes
        return (begin, begin + size) if size else ar.EMPTY_SPAN

    def empty(self, library: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Allocate a tensor."""
        return View(torch.empty(shape, dtype=DTYPES[dtype], device=library.device))

    def is_writable(self, _array: Any, _value: Any) -> bool:
        """Return True: every tensor is writable."""
        return True

    def check_place(self, names: Sequence[str], arrays: Sequence[Any]) -> None:
        """Raise TypeError unless all tensors are on one device."""
        for name, array in zip(names, arrays, strict=True):
            expected, got = arrays[0].tensor.device, array.tensor.device
            if got != expected:
                raise TypeError(f"{name}: expected a tensor on {expected} like {names[0]}, got one on {got}")


TENSORS = TensorMemory()
