"""GPUs through CuPy: compiled modules, the record of domain errors, cuSOLVER and cuBLAS.

Beside arrays.py and streams.py the only module that imports CuPy. Nothing here waits for a device but `read` and
`take_status`, and once a device `status`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import cupy
import numpy as np

from badmm_kernels.face import arrays as ar
from badmm_kernels.face import exchange
from badmm_kernels.gpu.arrays import DeviceMemory, Ready
from badmm_kernels.gpu.launch import STATUS
from badmm_kernels.gpu.protocol import MISSING, UNUSABLE
from badmm_kernels.gpu.source import OPTIONS, source_text
from badmm_kernels.gpu.streams import running

OLDEST = 14  # the first whose triangular solves take stacks


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
        self._making = threading.Lock()

    def on(
        self, libraries: Sequence[exchange.Library], arrays: Sequence[Any], stream: Any
    ) -> AbstractContextManager[None]:
        """The arrays' device, and the stream that streams.py chooses."""
        known = [library for library in libraries if isinstance(library, Ready)]
        return running(known, arrays[0].device.id, stream)

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
            with self._making:
                if index not in self._status:
                    self._status[index] = self._record()
        return int(self._status[index].data.ptr)

    def _record(self) -> Any:
        """Zeros that every stream finds; once a device, the host waits for them, and for nothing else."""
        apart = cupy.cuda.Stream(non_blocking=True)
        with apart:
            record = cupy.zeros(STATUS.itemsize, cupy.uint8)
        apart.synchronize()
        return record

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
