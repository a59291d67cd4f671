"""The kernels' dual and server lines on torch tensors: no update of a natural parameter is written a second time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import badmm_kernels

Slots = tuple[Tensor, ...]


class Lines:
    """A family's kernels for tensors of one device, which they take (where contiguous) and return without a copy."""

    def __init__(self, family: str, device: torch.device) -> None:
        self.ns: Any = badmm_kernels.load(family, "gpu" if device.type == "cuda" else "cpu")

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Slots:
        """The kernel `name` of tensors, tuples of tensors and numbers."""
        found: Slots = getattr(self.ns, name)(*map(_contiguous, arguments), **keywords)
        return found

    def contribution(self, clients: Slots, duals: Slots, taking_part: Tensor, alpha: float) -> Slots:
        """What clients send, summed: Σ_{k∈S} [(1 − α)/|S| λ_k − α η_k] − α Σ_{k∉S} η_k.

        `clients` (|S|, P) a slot, `duals` (K, P) a slot, `taking_part` the index S (|S|,). With all clients it is
        Σ_k c_k of the server line of arXiv:2506.13150; those that do not take part keep their dual, as in its duality
        structure.
        """
        count = len(duals[0])
        if len(taking_part) == count:
            return self.call("server_total", clients, duals, alpha)
        rest = torch.ones(count, dtype=torch.bool, device=taking_part.device)
        rest[taking_part] = False
        total = self.call("server_total", clients, tuple(slot[taking_part] for slot in duals), alpha)
        # α = 1 leaves the duals alone, whatever stands for the absent clients' parameters
        absent = tuple(slot[rest] for slot in duals)
        away = self.call("server_total", absent, absent, 1.0)
        return tuple(here + alpha * there for here, there in zip(total, away, strict=True))

    def server(self, prior: Slots, total: Slots, alpha: float) -> Slots:
        """λ_g ← α λ_0 + Σ_k c_k."""
        return self.call("server_update", prior, total, alpha)


def _contiguous(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_contiguous, value))
    return value.contiguous() if isinstance(value, Tensor) else value
