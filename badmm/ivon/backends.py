"""Which kernels an optimizer on torch tensors runs on."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import badmm_kernels

if TYPE_CHECKING:
    import torch

BACKENDS = ("auto", "kernels", "torch")


def load(name: str, device: torch.device, backend: str = "auto") -> Any:
    """The optimizer's namespace for tensors of a device; a GPU's kernels run on torch's current stream.

    backend: "kernels", compiled by Numba or CuPy; "torch", the same steps as torch operations; "auto": the first where
    its compiler is installed. ValueError for another.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    compiler = "cupy" if device.type == "cuda" else "numba"
    if backend == "torch" or (backend == "auto" and find_spec(compiler) is None):
        return importlib.import_module(f"badmm_kernels.torch.{name}")
    return badmm_kernels.load(name, "gpu" if device.type == "cuda" else "cpu")
