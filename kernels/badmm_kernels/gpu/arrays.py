"""Array libraries in GPU memory: CuPy, torch, and all others with `__cuda_array_interface__` or DLPack, without copies.

Every library orders its work on a stream. `Ready` holds the stream on which an array is ready, so that a call can run
on that stream or make its own wait for it on the device. This module is imported with the first GPU namespace.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import cupy
import numpy as np

from badmm_kernels.face import arrays as ar, exchange
from badmm_kernels.gpu.streams import late_arrays, stream_handle

GPU_KINDS = (2, 13)  # DLPack's codes of CUDA memory and CUDA managed memory


@dataclass(frozen=True)
class Ready(exchange.Library):
    """A library of GPU arrays that are ready on a stream.

    stream: handle of the stream, None for CuPy's current one. explicit: the array itself names the stream, so a call
    waits for it even if the call is given a stream.
    """

    stream: int | None = None
    explicit: bool = False
    made: list[tuple[Any, Any]] = field(default_factory=list, compare=False)

    def array(self, value: Any) -> Any:
        """Return a CuPy result as an array of the caller's library that shares its memory."""
        own = next((given for view, given in self.made if view is value), None)
        return super().array(value) if own is None else own


def _refuse_place(name: str, place: Any) -> TypeError:
    return TypeError(f"{name}: expected an array in GPU memory, got one on {place}; load the family with device='cpu'")


def view(name: str, value: Any) -> tuple[Any, Ready]:
    """Return (a CuPy view of a GPU array, its library)."""
    if isinstance(value, cupy.ndarray):
        array, library = value, Ready()
    elif isinstance(value, np.ndarray):
        raise _refuse_place(name, "cpu")
    elif _is_torch(value):
        array, library = _torch(name, value)
    elif (interface := _interface(value)) is not None:
        array, library = _from_interface(name, value, interface)
    elif hasattr(value, "__dlpack__"):
        array, library = _exchange(name, value)
    else:
        raise TypeError(f"{name}: expected a GPU array of float32 or float64, got {type(value).__name__}")
    exchange.check_dtype(name, array.dtype)
    return array, library


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _torch(name: str, tensor: Any) -> tuple[Any, Ready]:
    """View a torch tensor, which is ready on torch's current stream."""
    torch = sys.modules["torch"]
    if not tensor.is_cuda:
        raise _refuse_place(name, tensor.device)
    exchange.check_gradient(name, tensor)
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {str(tensor.dtype).removeprefix('torch.')}")
    stream = torch.cuda.current_stream(tensor.device).cuda_stream
    return _wrapped(tensor, tensor.__cuda_array_interface__, tensor.device.index), Ready(torch, stream)


def _interface(value: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = getattr(value, "__cuda_array_interface__", None)
    return found


def _wrapped(owner: Any, interface: dict[str, Any], device: int = -1) -> Any:
    """Return a CuPy array over memory that `owner` keeps alive. Unlike cupy.asarray, this never waits for a stream."""
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    strides = interface.get("strides")
    extent = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if strides is not None and extent:
        extent = dtype.itemsize + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    address = interface["data"][0] or 0
    if not address:  # an empty array
        with cupy.cuda.Device(device) if device >= 0 else nullcontext():
            return cupy.empty(shape, dtype)
    memory = cupy.cuda.UnownedMemory(address, max(extent, 1), owner, device)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0), strides)


def _from_interface(name: str, value: Any, interface: dict[str, Any]) -> tuple[Any, Ready]:
    """View an array through its interface, which may name the stream on which the array is ready."""
    exchange.check_dtype(name, np.dtype(interface["typestr"]))
    stream = interface.get("stream")
    explicit = stream is not None
    ready = stream_handle(stream) if explicit else None
    return _wrapped(value, interface), Ready(exchange.library_of(value), ready, explicit)


def _exchange(name: str, value: Any) -> tuple[Any, Ready]:
    """View a foreign array through DLPack, which makes CuPy's current stream wait for the producer's."""
    kind, _ = value.__dlpack_device__()
    if kind not in GPU_KINDS:
        raise _refuse_place(name, getattr(value, "device", "another device"))
    exchange.check_gradient(name, value)
    module = exchange.exchanging_module(name, value)
    try:
        array = cupy.from_dlpack(value)
        return array, Ready(module, cupy.cuda.get_current_stream(array.device.id).ptr, True)
    except cupy.cuda.runtime.CUDARuntimeError:
        raise
    except (RuntimeError, BufferError, TypeError) as error:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {getattr(value, 'dtype', error)}") from error


class DeviceMemory(ar.Memory):
    """CuPy's arrays in GPU memory."""

    xp = cupy

    def view(self, name: str, value: Any) -> tuple[Any, exchange.Library]:
        """Return (a CuPy view, its library); within a call, make the call wait for the array."""
        array, library = view(name, value)
        if (wait_for := late_arrays.get()) is not None:
            wait_for(array, library)
        return array, library

    def address(self, array: Any) -> int:
        """Return the address of an array's first byte."""
        return int(array.data.ptr)

    def empty(self, library: exchange.Library, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Allocate an output; a tensor comes from torch's allocator, which must know of it."""
        torch = sys.modules.get("torch")
        if not isinstance(library, Ready) or library.module is None or library.module is not torch:
            return cupy.empty(shape, dtype)
        device = f"cuda:{cupy.cuda.runtime.getDevice()}"
        chosen, torchs = cupy.cuda.get_current_stream().ptr, torch.cuda.current_stream(device)
        kind = getattr(torch, dtype.name)
        if torchs.cuda_stream == chosen:
            tensor = torch.empty(shape, dtype=kind, device=device)
        else:  # memory that is free on the call's stream, and that torch reuses only after its own stream has read it
            with torch.cuda.stream(torch.cuda.ExternalStream(chosen, device=device)):
                tensor = torch.empty(shape, dtype=kind, device=device)
            tensor.record_stream(torchs)
        made = _wrapped(tensor, tensor.__cuda_array_interface__, tensor.device.index)
        library.made.append((made, tensor))
        return made

    def is_writable(self, _array: Any, value: Any) -> bool:
        """Return whether a kernel may write to an array: its interface has a read-only flag."""
        interface = None if isinstance(value, cupy.ndarray) or _is_torch(value) else _interface(value)
        return interface is None or not interface["data"][1]

    def check_place(self, names: Sequence[str], arrays: Sequence[Any]) -> None:
        """Raise ValueError unless all arrays are on one GPU."""
        first = arrays[0].device.id
        for name, array in zip(names, arrays, strict=True):
            if array.device.id != first:
                raise ValueError(f"{name}: expected device {first} like {names[0]}, got device {array.device.id}")
