"""The interface of a device: memory, kernel launches, factorisations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from badmm_kernels.face import arrays as ar, exchange

MISSING = (
    "device: expected CuPy for device='gpu', got {error}; install the extra that matches the driver's CUDA version, "
    "bayesian-admm[cuda12] or bayesian-admm[cuda13] (never both)"
)
UNUSABLE = "device: expected an NVIDIA GPU with its driver for device='gpu', got {error}"


class Lapack(Protocol):
    """Factorisations of stacks (n, d, d) that neither wait nor report whether they succeeded."""

    def cholesky(self, stack: Any) -> Any:
        """Return lower factors with zero upper triangles; arbitrary values for a matrix without a factor."""

    def solve_triangular(self, factors: Any, right: Any, transposed: bool) -> Any:
        """Return L⁻¹B or L⁻ᵀB for right-hand sides (n, d, k)."""

    def eigvalsh(self, stack: Any) -> Any:
        """Return the eigenvalues (n, d) of symmetric matrices in ascending order."""


class Device(Protocol):
    """Memory and kernels of the GPUs of one machine; kernels run and arrays are allocated within the context `on`."""

    @property
    def memory(self) -> ar.Memory:
        """The memory that views and allocates arrays."""

    @property
    def lapack(self) -> Lapack:
        """The factorisations."""

    def on(
        self, libraries: Sequence[exchange.Library], arrays: Sequence[Any], stream: Any
    ) -> AbstractContextManager[Any]:
        """Return a context that selects the arrays' device and the stream of a call on them."""

    def processors(self) -> int:
        """Return the number of multiprocessors of the current device."""

    def launch(
        self, source: str, kernel: str, grid: tuple[int, ...], block: tuple[int, ...], call: np.ndarray[Any, Any]
    ) -> None:
        """Run a kernel of kernels/badmm_kernels/gpu/<source>.cu on the current stream, with one argument by value."""

    def status(self) -> int:
        """Return the address of the current device's record of domain errors."""

    def read(self, array: Any) -> np.ndarray[Any, Any]:
        """Copy a small array to the host; this waits for the current stream."""

    def take_status(self, index: int | None) -> list[np.ndarray[Any, Any]]:
        """Wait for one device, or for every device used; return their records and clear them."""
