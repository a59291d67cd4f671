"""What the rest of this folder needs of a device: its memory, its kernels, its factorisations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from badmm_kernels.face import arrays as ar
from badmm_kernels.face import exchange

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
        """Run a kernel of kernels/badmm_kernels/gpu/<source>.cu on the current stream, with one argument by value."""

    def status(self) -> int:
        """Address of the current device's record of domain errors."""

    def read(self, array: Any) -> np.ndarray[Any, Any]:
        """A small array on the host; waits for the current stream."""

    def take_status(self, index: int | None) -> list[np.ndarray[Any, Any]]:
        """Wait for all work on a device, or on every device used; their records, cleared."""
