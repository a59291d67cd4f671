"""A device that is the host: the very .cu text that NVRTC compiles, compiled by g++ and run on NumPy's memory.

The whole of `badmm_kernels.gpu` runs on it, argument checks, launch geometry, status record and all; only CuPy's own
calls do not.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs

import badmm_kernels
from badmm_kernels.face import arrays as ar, exchange
from badmm_kernels.gpu import device as gpu_device
from badmm_kernels.gpu.launch import STATUS
from badmm_kernels.gpu.source import HERE, INCLUDE, source_text

TESTS = Path(__file__).resolve().parent
COMPILER = os.environ.get("CXX") or shutil.which("g++") or "g++"
# no _FORTIFY_SOURCE: its longjmp refuses to change stacks
FLAGS = ("-std=c++17", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-fPIC", "-shared", "-pthread", "-Wall",
         "-Werror", "-Wno-unknown-pragmas")  # fmt: skip
WORKERS = 2
# What stands in the place of a driver's launch: a kernel's address and its argument in, every block run.
LAUNCHER = """
namespace cuda_on_host {
#ifdef BADMM_SWEEP_CUH
typedef badmm::Sweep Argument;
#else
typedef badmm::Call Argument;
#endif
inline void entry(const void *kernel, const void *call)
{
    reinterpret_cast<void (*)(const Argument)>(const_cast<void *>(kernel))(*static_cast<const Argument *>(call));
}
}
extern "C" void host_launch(const void *kernel, const unsigned *grid, const unsigned *block, const void *call,
                            unsigned workers)
{
    cuda_on_host::run_grid(cuda_on_host::entry, kernel, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]},
                           call, workers);
}
extern "C" unsigned long long host_size(int which)
{
    return which == 0 ? sizeof(badmm::Call) : which == 1 ? sizeof(badmm::Slot) : sizeof(badmm::Status);
}
"""


def folder() -> Path:
    """Where compiled libraries are kept between runs, by digest."""
    path = TESTS.parents[1] / "build" / "host-kernels"
    path.mkdir(parents=True, exist_ok=True)
    return path


@cache
def compiled(text: str, level: str = "-O1") -> ctypes.CDLL:
    """A .cu text as a shared library of host code."""
    shim = TESTS / "cuda_on_host.h"
    whole = f'#include "cuda_on_host.h"\n{text}\n{LAUNCHER}'
    digest = hashlib.sha256(
        b"\0".join([whole.encode(), shim.read_bytes(), " ".join([*FLAGS, level]).encode()])
    ).hexdigest()[:24]
    library = folder() / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as scratch:
            source, built = Path(scratch) / "kernels.cpp", Path(scratch) / "kernels.so"
            source.write_text(whole, encoding="utf-8")
            command = [
                COMPILER,
                *FLAGS,
                level,
                f"-I{TESTS}",
                f"-I{INCLUDE}",
                f"-I{HERE}",
                "-o",
                str(built),
                str(source),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"g++ could not compile the kernels:\n{done.stderr}")
            moved = library.with_name(f".{library.name}.{os.getpid()}")
            shutil.copy(built, moved)
            os.replace(moved, library)
    return ctypes.CDLL(str(library))


class HostLapack:
    """LAPACK in the part of cuSOLVER and cuBLAS: failures are not reported, as there."""

    def cholesky(self, stack: Any) -> Any:
        """potrf, whatever it says."""
        (potrf,) = get_lapack_funcs(("potrf",), (stack,))
        return np.stack([potrf(matrix, lower=True, clean=True)[0] for matrix in stack])

    def solve_triangular(self, factors: Any, right: Any, transposed: bool) -> Any:
        """trtrs, member by member."""
        (trtrs,) = get_lapack_funcs(("trtrs",), (factors,))
        solved = [trtrs(a, b, lower=True, trans=transposed)[0] for a, b in zip(factors, right, strict=True)]
        return np.ascontiguousarray(np.stack(solved))

    def eigvalsh(self, stack: Any) -> Any:
        """syevd; NaN where the matrix is not finite, instead of an exception."""
        return np.stack([np.linalg.eigvalsh(a) if np.isfinite(a).all() else np.full(len(a), np.nan) for a in stack])


class HostDevice:
    """One device, in this process; `text` gives the source of a name, in the place of what badmm_kernels/gpu has."""

    def __init__(self, processors: int = 1, text: Callable[[str], str] = source_text, level: str = "-O1") -> None:
        self.memory = ar.Memory()
        self.lapack = HostLapack()
        self._processors = processors
        self._text, self._level = text, level
        self._status = np.zeros(1, STATUS)
        self.launched: list[tuple[str, str, tuple[int, ...], tuple[int, ...]]] = []
        self.waits = 0

    def on(self, _libraries: Sequence[exchange.Library], _arrays: Sequence[Any], _stream: Any) -> Any:
        """The host has one place and one order; like CuPy, it computes NaN without a warning."""
        return np.errstate(all="ignore")

    def processors(self) -> int:
        """As many as the test said."""
        return self._processors

    def library(self, source: str) -> ctypes.CDLL:
        """A source, compiled."""
        return compiled(self._text(source), self._level)

    def launch(self, source: str, kernel: str, grid: Sequence[int], block: Sequence[int], call: Any) -> None:
        """Run every block of a kernel."""
        self.launched.append((source, kernel, tuple(grid), tuple(block)))
        library = self.library(source)
        sizes = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
        entry = ctypes.cast(getattr(library, kernel), ctypes.c_void_p)
        library.host_launch(entry, *sizes, ctypes.c_void_p(call.ctypes.data), ctypes.c_uint(WORKERS))

    def status(self) -> int:
        """Address of the record of domain errors."""
        return int(self._status.ctypes.data)

    def read(self, array: Any) -> Any:
        """A copy, counted as a wait."""
        self.waits += 1
        return np.array(array)

    def take_status(self, _index: int | None) -> list[Any]:
        """The record, cleared."""
        self.waits += 1
        record = self._status[0].copy()
        self._status[...] = np.zeros(1, STATUS)
        return [record]


@contextmanager
def on_host(**options: Any) -> Iterator[HostDevice]:
    """`badmm_kernels.gpu` on the host."""
    device = HostDevice(**options)
    with gpu_device.using(device):
        yield device


def load(family: str, device: str = "gpu") -> ModuleType:
    """A family's GPU namespace, while `on_host` holds."""
    return badmm_kernels.load(family, device=device)
