"""Which kernels an optimizer on torch tensors runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kernels

if TYPE_CHECKING:
    import torch

BACKENDS = ("auto", "kernels")


def load(name: str, device: torch.device, backend: str = "auto") -> Any:
    """The optimizer's namespace for tensors of a device; a GPU's kernels run on torch's current stream.

    backend: "kernels", or "auto". ValueError for another.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    return kernels.load(name, "gpu" if device.type == "cuda" else "cpu")
