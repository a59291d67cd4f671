"""The lines of a round that server and clients of every method with duals share, by the kernels of their family.

They take what the kernels take: arrays of NumPy or tensors of any device that has kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import badmm_kernels

if TYPE_CHECKING:
    import torch

Slots = tuple[Any, ...]
"""A natural-shaped tuple, one array or tensor per slot."""


def kernels(family: str, device: torch.device) -> Any:
    """A family's kernels for tensors of a device; RuntimeError where it has none."""
    return badmm_kernels.load(family, "gpu" if device.type == "cuda" else "cpu")


def contributions(
    ns: Any, clients: Slots, duals: Slots, alpha: float, num_clients: int, before: Slots | None = None
) -> Slots:
    """c_k = (1 − α)/K λ_k − α η_k, a row per client; its change from what the server has of the client, where given.

    A client that is absent adds nothing to the sum of changes, so that it keeps its λ_k and η_k in the server's line.
    """
    if before is None:
        return tuple(ns.server_contribution(clients, duals, alpha, num_clients))
    return tuple(ns.contribution_change(clients, duals, before, alpha, num_clients))


def server_line(ns: Any, prior: Slots, total: Slots, alpha: float) -> Slots:
    """λ_g ← α λ_0 + Σ_k c_k."""
    return tuple(ns.server_update(prior, total, alpha))


def added(total: Sequence[Any], change: Sequence[Any]) -> Slots:
    """The running sum Σ_k c_k with the changes of a round."""
    return tuple(a + b for a, b in zip(total, change, strict=True))
