"""Buffers that training changes (running means of batch normalisation) beside the parameters, whatever the method.

    "average"  a client starts a round at the server's buffers; the server's are Σ_k w_k b_k / Σ_k w_k, w_k = K N_k/N
    "local"    a client goes on with its own buffers; the server's serve for scoring alone

They travel under `NAME`, (k, B) up and (B,) down, and are kept in `State.server` and, where local, `State.clients`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from badmm.clients.federation import Federation, Task

NAME = "buffers"
Tensors = dict[str, Any]


def begin(federation: Federation, server: Tensors, clients: Tensors) -> None:
    """The network's own buffers at the server, and at local clients, where there are none yet."""
    own = federation.initial_buffers
    if own.numel():
        server.setdefault(NAME, own.clone())
        if federation.stack.policy == "local":
            clients.setdefault(NAME, own.repeat(federation.num_clients, 1))


def of_task(server: Mapping[str, Tensor], clients: Mapping[str, Tensor], task: Task) -> Tensor | None:
    """The members' buffers (k, B), which training changes; None for a network without."""
    if NAME in clients:
        return clients[NAME][task.index]
    return server[NAME].repeat(len(task.members), 1) if NAME in server else None


def reduce(federation: Federation, members: Tensor, rows: Tensor) -> Tensor:
    """Σ_k w_k (b_k, 1), (B + 1,) in float64, over the clients `members`."""
    weights = federation.weights[members].double()
    total = rows.new_zeros(rows.shape[1] + 1).double()
    for row, weight in zip(rows, weights.tolist(), strict=True):
        total[:-1].add_(row, alpha=weight)
    total[-1] = weights.sum()
    return total


def average(total: Tensor, dtype: torch.dtype) -> Tensor:
    """The server's buffers (B,) from the sum (B + 1,)."""
    own: Tensor = (total[:-1] / total[-1]).to(dtype)
    return own
