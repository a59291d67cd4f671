"""GPUs through CuPy: streams, compiled modules, the record of domain errors, cuSOLVER and cuBLAS.

The only module, beside arrays.py, that imports CuPy. Nothing here waits for a device but `read` and `take_status`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np

from kernels import arrays as ar
from kernels import exchange
from kernels.gpu.arrays import DeviceMemory, Ready, stream_handle, viewed
from kernels.gpu.device import OPTIONS, UNUSABLE, source_text
from kernels.gpu.launch import STATUS


class _Handle:
    """A stream handle in the form of the CUDA stream protocol."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


def _stream(handle: int) -> Any:
    """CuPy's object for a stream handle."""
    current = cupy.cuda.get_current_stream()
    if handle == current.ptr:
        return current
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_Handle(handle))
    return cupy.cuda.ExternalStream(handle)


class _Order:
    """The stream that a call runs on, and the others that its arrays are ready on."""

    def __init__(self, chosen: Any, current: int, only_carried: bool) -> None:
        self.chosen, self._current, self._only_carried = chosen, current, only_carried
        self._others: dict[int, Any] = {}

    def behind(self, library: Ready) -> None:
        """The call waits for the library's stream."""
        handle = self._current if library.stream is None else library.stream
        if handle == self.chosen.ptr or handle in self._others or (self._only_carried and not library.carried):
            return
        self._others[handle] = other = _stream(handle)
        self.chosen.wait_event(other.record())

    def meet(self, array: Any, library: Ready) -> None:
        """The call waits for an array that it meets late; one on another device will be refused by name."""
        if array.device.id == cupy.cuda.runtime.getDevice():
            self.behind(library)

    def release(self) -> None:
        """The other streams wait for the call: what it wrote may be theirs."""
        if self._others:
            done = self.chosen.record()
            for other in self._others.values():
                other.wait_event(done)


class CuPyLapack:
    """cuSOLVER and cuBLAS by CuPy's own functions; a single matrix takes the path that is not batched."""

    def cholesky(self, stack: Any) -> Any:
        """Lower factors; potrf or potrfBatched."""
        return cupy.linalg.cholesky(stack[0])[None] if len(stack) == 1 else cupy.linalg.cholesky(stack)

    def solve_triangular(self, factors: Any, right: Any, transposed: bool) -> Any:
        """trsm or trsmBatched."""
        from cupyx.scipy.linalg import solve_triangular  # loads cuBLAS, which the other families do without

        trans = "T" if transposed else "N"
        if len(factors) == 1:
            return cupy.ascontiguousarray(solve_triangular(factors[0], right[0], trans=trans, lower=True))[None]
        return cupy.ascontiguousarray(solve_triangular(factors, right, trans=trans, lower=True))

    def eigvalsh(self, stack: Any) -> Any:
        """syevd or syevjBatched."""
        return cupy.linalg.eigvalsh(stack[0])[None] if len(stack) == 1 else cupy.linalg.eigvalsh(stack)


class CuPyDevice:
    """Every NVIDIA GPU that the driver shows; `text` gives the source of a name. RuntimeError where there is none."""

    def __init__(self, text: Callable[[str], str] = source_text) -> None:
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise RuntimeError(UNUSABLE.format(error=error)) from error
        if count < 1:
            raise RuntimeError(UNUSABLE.format(error="no device"))
        self.memory: ar.Memory = DeviceMemory()
        self.lapack = CuPyLapack()
        self._text = text
        self._modules: dict[str, Any] = {}
        self._functions: dict[tuple[str, str], Any] = {}
        self._processors: dict[int, int] = {}
        self._status: dict[int, Any] = {}

    @contextmanager
    def on(self, libraries: Sequence[exchange.Library], arrays: Sequence[Any], stream: Any) -> Iterator[None]:
        """The arrays' device; the given stream, or that of the first library: torch's current one, else CuPy's.

        Arrays that are ready on other streams, `out` among them, are waited for, on the device, and their streams wait
        for the call. With `stream` given, the caller has ordered them, except those that carry a stream themselves.
        """
        with cupy.cuda.Device(arrays[0].device.id):
            current = cupy.cuda.get_current_stream().ptr
            known = [lib for lib in libraries if isinstance(lib, Ready)]
            home = None if known[0].carried else known[0].stream
            handle = stream_handle(stream) if stream is not None else current if home is None else home
            order = _Order(_stream(handle), current, only_carried=stream is not None)
            for library in known:
                order.behind(library)
            token = viewed.set(order.meet)
            try:
                with order.chosen:
                    yield
            finally:
                viewed.reset(token)
                order.release()

    def processors(self) -> int:
        """Multiprocessors of the current device."""
        index = cupy.cuda.runtime.getDevice()
        if index not in self._processors:
            self._processors[index] = cupy.cuda.Device(index).attributes["MultiProcessorCount"]
        return self._processors[index]

    def launch(self, source: str, kernel: str, grid: Sequence[int], block: Sequence[int], call: Any) -> None:
        """Run a kernel on the current stream; CuPy passes an array of one element by value."""
        if (source, kernel) not in self._functions:
            self._functions[source, kernel] = self._function(source, kernel)
        self._functions[source, kernel](tuple(grid), tuple(block), (call,))

    def _function(self, source: str, kernel: str) -> Any:
        """A compiled kernel; CuPy keeps modules on disk, and one a device in memory."""
        if source not in self._modules:
            self._modules[source] = cupy.RawModule(code=self._text(source), options=OPTIONS)
        return self._modules[source].get_function(kernel)

    def status(self) -> int:
        """Address of the current device's record, made on first use."""
        index = cupy.cuda.runtime.getDevice()
        if index not in self._status:
            record = cupy.zeros(STATUS.itemsize, cupy.uint8)
            cupy.cuda.get_current_stream().synchronize()  # once a device: other streams must find zeros
            self._status[index] = record
        return int(self._status[index].data.ptr)

    def read(self, array: Any) -> np.ndarray[Any, Any]:
        """A copy on the host, after the current stream's work."""
        return np.asarray(cupy.asnumpy(array))

    def take_status(self, index: int | None) -> list[np.ndarray[Any, Any]]:
        """Wait for all work on one device, or on every device used; their records, cleared where they say something."""
        records = []
        for device, record in list(self._status.items()):
            if index not in (None, device):
                continue
            with cupy.cuda.Device(device) as here:
                here.synchronize()
                seen = cupy.asnumpy(record).view(STATUS)[0]
                if seen["launch"]:
                    record.fill(0)
                    here.synchronize()
            records.append(seen)
        return records
