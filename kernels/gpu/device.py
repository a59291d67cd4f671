"""What the rest of kernels/gpu needs of a device, and which one is in use: CuPy's, or a test's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kernels import arrays as ar
from kernels import exchange

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent / "include"
OPTIONS = ("--std=c++17", "--fmad=false", f"-I{INCLUDE}", f"-I{HERE}")
MISSING = (
    "device: expected CuPy for device='gpu', got {error}; install the extra that matches the driver's CUDA version, "
    "bayesian-admm[cuda12] or bayesian-admm[cuda13] (never both)"
)
UNUSABLE = "device: expected an NVIDIA GPU with its driver for device='gpu', got {error}"


class Lapack(Protocol):
    """Factorisations of stacks (n, d, d) that do not wait and do not say whether they succeeded."""

    def cholesky(self, stack: Any) -> Any:
        """Lower factors, upper triangles zero; anything where there is none."""

    def solve_triangular(self, factors: Any, right: Any, transposed: bool) -> Any:
        """L⁻¹B or L⁻ᵀB for right-hand sides (n, d, k)."""

    def eigvalsh(self, stack: Any) -> Any:
        """Eigenvalues (n, d) of symmetric matrices, ascending."""


class Device(Protocol):
    """Memory and kernels of the GPUs of one machine. Kernels run, and arrays are made, where `on` says."""

    @property
    def memory(self) -> ar.Memory:
        """How arrays are viewed and made."""

    @property
    def lapack(self) -> Lapack:
        """Its factorisations."""

    def on(
        self, libraries: Sequence[exchange.Library], arrays: Sequence[Any], stream: Any
    ) -> AbstractContextManager[Any]:
        """The arrays' device, and the stream that a call of theirs runs on."""

    def processors(self) -> int:
        """Multiprocessors of the current device."""

    def launch(
        self, source: str, kernel: str, grid: tuple[int, ...], block: tuple[int, ...], call: np.ndarray[Any, Any]
    ) -> None:
        """Run a kernel of kernels/gpu/<source>.cu on the current stream, with one argument by value."""

    def status(self) -> int:
        """Address of the current device's record of domain errors."""

    def read(self, array: Any) -> np.ndarray[Any, Any]:
        """A small array on the host; waits for the current stream."""

    def take_status(self, index: int | None) -> list[np.ndarray[Any, Any]]:
        """Wait for all work on a device, or on every device used; their records, cleared."""


_device: Device | None = None


def current() -> Device:
    """The device in use; CuPy's unless a test put another in its place. Raises RuntimeError where there is none."""
    global _device
    if _device is None:
        try:
            from kernels.gpu.cupy_device import CuPyDevice
        except ImportError as error:
            raise RuntimeError(MISSING.format(error=error)) from error
        _device = CuPyDevice()
    return _device


@contextmanager
def using(device: Device) -> Iterator[Device]:
    """Another device in the place of CuPy's."""
    global _device
    before, _device = _device, device
    try:
        yield device
    finally:
        _device = before


@cache
def source_text(name: str) -> str:
    """kernels/gpu/<name>.cu, headed by a digest of everything it includes: CuPy's cache of compiled modules looks at
    the text alone."""
    included = [*sorted(INCLUDE.glob("badmm/*.h")), *sorted(HERE.glob("*.cuh"))]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in included)).hexdigest()[:16]
    return f"// headers: sha256 {digest}\n{(HERE / f'{name}.cu').read_text(encoding='utf-8')}"
