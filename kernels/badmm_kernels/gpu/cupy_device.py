"""GPUs through CuPy: compiled modules, the record of domain errors, cuSOLVER and cuBLAS.

Only this module, arrays.py and streams.py import CuPy. Only `read`, `take_status` and the first `status` of a device
wait for the device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import cupy
import numpy as np

from badmm_kernels.face import arrays as ar, exchange
from badmm_kernels.gpu.arrays import DeviceMemory, Ready
from badmm_kernels.gpu.launch import STATUS
from badmm_kernels.gpu.protocol import MISSING, UNUSABLE
from badmm_kernels.gpu.source import OPTIONS, source_text
from badmm_kernels.gpu.streams import running

OLDEST = 14  # the first version of CuPy whose triangular solves take stacks


class CuPyLapack:
    """cuSOLVER and cuBLAS through CuPy; a single matrix takes the functions that are not batched."""

    def cholesky(self, stack: Any) -> Any:
        """Return lower factors, by potrf or potrfBatched."""
        return cupy.linalg.cholesky(stack[0])[None] if len(stack) == 1 else cupy.linalg.cholesky(stack)

    def solve_triangular(self, factors: Any, right: Any, transposed: bool) -> Any:
        """Return L⁻¹B or L⁻ᵀB, by trsm or trsmBatched."""
        from cupyx.scipy.linalg import solve_triangular  # loads cuBLAS, which elementwise families do not need

        trans = "T" if transposed else "N"
        if len(factors) == 1:
            return cupy.ascontiguousarray(solve_triangular(factors[0], right[0], trans=trans, lower=True))[None]
        return cupy.ascontiguousarray(solve_triangular(factors, right, trans=trans, lower=True))

    def eigvalsh(self, stack: Any) -> Any:
        """Return eigenvalues, by syevd or syevjBatched."""
        return cupy.linalg.eigvalsh(stack[0])[None] if len(stack) == 1 else cupy.linalg.eigvalsh(stack)


class CuPyDevice:
    """All NVIDIA GPUs that the driver shows; raises RuntimeError if there is none.

    text: function from the name of a source to its text.
    """

    def __init__(self, text: Callable[[str], str] = source_text) -> None:
        if int(cupy.__version__.split(".")[0]) < OLDEST:
            raise RuntimeError(MISSING.format(error=f"CuPy {cupy.__version__}, older than {OLDEST}"))
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
        self._status_lock = threading.Lock()

    def on(
        self, libraries: Sequence[exchange.Library], arrays: Sequence[Any], stream: Any
    ) -> AbstractContextManager[None]:
        """Return a context that selects the arrays' device and the stream that streams.py chooses."""
        known = [library for library in libraries if isinstance(library, Ready)]
        return running(known, arrays[0].device.id, stream)

    def processors(self) -> int:
        """Return the number of multiprocessors of the current device."""
        index = cupy.cuda.runtime.getDevice()
        if index not in self._processors:
            self._processors[index] = cupy.cuda.Device(index).attributes["MultiProcessorCount"]
        return self._processors[index]

    def launch(self, source: str, kernel: str, grid: Sequence[int], block: Sequence[int], call: Any) -> None:
        """Run a kernel on the current stream; CuPy passes the array `call` of one element by value."""
        if (source, kernel) not in self._functions:
            self._functions[source, kernel] = self._function(source, kernel)
        self._functions[source, kernel](tuple(grid), tuple(block), (call,))

    def _function(self, source: str, kernel: str) -> Any:
        """Return a compiled kernel; CuPy caches modules on disk, and in memory per device."""
        if source not in self._modules:
            self._modules[source] = cupy.RawModule(code=self._text(source), options=OPTIONS)
        return self._modules[source].get_function(kernel)

    def status(self) -> int:
        """Return the address of the current device's record of domain errors, allocated on first use."""
        index = cupy.cuda.runtime.getDevice()
        if index not in self._status:
            with self._status_lock:
                if index not in self._status:
                    self._status[index] = self._record()
        return int(self._status[index].data.ptr)

    def _record(self) -> Any:
        """Return a record of zeros. The host waits for them alone, so that every stream finds them."""
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            record = cupy.zeros(STATUS.itemsize, cupy.uint8)
        stream.synchronize()
        return record

    def read(self, array: Any) -> np.ndarray[Any, Any]:
        """Copy an array to the host, after the work of the current stream."""
        return np.asarray(cupy.asnumpy(array))

    def take_status(self, index: int | None) -> list[np.ndarray[Any, Any]]:
        """Wait for one device, or for every device used; return their records and clear those that hold an error."""
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
