"""Torch tensors, on any device, as the memory of a kernel call: what `badmm_kernels.face.arrays` checks of an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from badmm_kernels.face import arrays as ar
from badmm_kernels.face import exchange

TYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
DTYPES = {numpy_type: torch_type for torch_type, numpy_type in TYPES.items()}


@dataclass(frozen=True, eq=False)
class View:
    """A tensor with the attributes of a NumPy array that the checks read."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's, a plain tuple."""
        return tuple(self.tensor.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.tensor.numel()

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's name of the type."""
        return TYPES[self.tensor.dtype]

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes."""
        return tuple(step * self.tensor.element_size() for step in self.tensor.stride())

    @property
    def flags(self) -> SimpleNamespace:
        """Whether it is contiguous."""
        return SimpleNamespace(c_contiguous=self.tensor.is_contiguous())

    def reshape(self, *shape: int) -> View:
        """The same elements in another shape."""
        return View(self.tensor.reshape(*shape))

    def host(self) -> ar.Array:
        """The elements in CPU memory, for the words of an error."""
        found: ar.Array = self.tensor.cpu().numpy()
        return found


@dataclass(frozen=True)
class Torch(exchange.Library):
    """Results are handed back as the tensors they are; fresh ones are made on `device`."""

    device: torch.device | None = None

    def array(self, value: Any) -> Any:
        """The tensor of a view."""
        return value.tensor


class TensorMemory(ar.Memory):
    """Where torch keeps tensors: outputs are made on the device of the first input."""

    def view(self, name: str, value: Any) -> tuple[Any, exchange.Library]:
        """(the tensor, viewed; torch)."""
        if isinstance(value, View):
            return value, Torch(device=value.tensor.device)
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch tensor of float32 or float64, got {type(value).__name__}")
        if value.dtype not in TYPES:
            raise TypeError(f"{name}: expected dtype float32 or float64, got {value.dtype}")
        exchange.check_gradient(name, value)
        return View(value), Torch(device=value.device)

    def address(self, array: Any) -> int:
        """Where a tensor's memory begins."""
        return int(array.tensor.data_ptr())

    def span(self, array: Any) -> tuple[int, int]:
        """The addresses of a contiguous tensor's first byte and of what follows its last."""
        begin, size = self.address(array), array.tensor.nbytes
        return (begin, begin + size) if size else ar.NOWHERE

    def empty(self, library: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A fresh tensor."""
        return View(torch.empty(shape, dtype=DTYPES[dtype], device=library.device))

    def is_writable(self, _array: Any, _value: Any) -> bool:
        """Every tensor is."""
        return True

    def check_place(self, names: Sequence[str], arrays: Sequence[Any]) -> None:
        """All on one device."""
        for name, array in zip(names, arrays, strict=True):
            expected, got = arrays[0].tensor.device, array.tensor.device
            if got != expected:
                raise TypeError(f"{name}: expected a tensor on {expected} like {names[0]}, got one on {got}")


TENSORS = TensorMemory()
