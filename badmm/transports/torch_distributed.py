"""torch.distributed: `torchrun --nproc-per-node 4 program.py`, with gloo between CPUs or NCCL between GPUs."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from badmm.checks import RankError
from badmm.transports.ranks import Array, Ranks

FOREVER = timedelta(days=365)


class TorchDistributed(Ranks):
    """The ranks of a process group; where none exists yet, the one that torchrun's environment describes is made.

    backend: "gloo" or "nccl" of the group to be made (default: gloo). device: where the backend takes tensors (default:
    the CPU, or the GPU of this local rank under NCCL). deadline: seconds that an answer may take; after
    twice that a rank gives the others up.
    deterministic: sums run through the clients in their order, so that any number of ranks gives the same bits.
    """

    def __init__(
        self,
        group: Any = None,
        *,
        backend: str = "gloo",
        device: torch.device | str | None = None,
        deadline: float | None = None,
        deterministic: bool = False,
    ) -> None:
        super().__init__(deadline, deterministic)
        self._timeout = FOREVER if self.patience is None else timedelta(seconds=self.patience)
        if not dist.is_initialized():
            dist.init_process_group(backend, timeout=self._timeout)
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        gpus = dist.get_backend(group) == "nccl"
        default = f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}" if gpus else "cpu"
        self.device = torch.device(default if device is None else device)

    def gather(self, data: bytes) -> list[bytes]:
        """Sizes, then bytes, padded to the longest."""
        sizes = [int(one) for one in self._gather(torch.tensor([len(data)]))]
        mine = torch.zeros(max(sizes), dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        parts = self._gather(mine)
        return [part[:size].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]

    def add(self, part: Array) -> None:
        """all_reduce in place."""
        self._act(part, lambda tensor: dist.all_reduce(tensor, group=self.group, async_op=True))

    def share(self, part: Array, root: int) -> None:
        """broadcast."""
        self._act(part, lambda tensor: dist.broadcast(tensor, self._peer(root), self.group, async_op=True))

    def send(self, part: Array, to: int) -> None:
        """isend."""
        self._act(part, lambda tensor: dist.isend(tensor, self._peer(to), self.group))

    def receive(self, part: Array, source: int) -> None:
        """irecv."""
        self._act(part, lambda tensor: dist.irecv(tensor, self._peer(source), self.group))

    def _peer(self, rank: int) -> int:
        """A rank of the group as the calls count it: among all."""
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        tensor = tensor.to(self.device)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        self._wait(lambda: dist.all_gather(parts, tensor, group=self.group, async_op=True))
        return [part.cpu() for part in parts]

    def _act(self, part: Array, act: Any) -> None:
        """Act on an array's own memory, or on a copy of it where the backend's tensors are."""
        here = torch.from_numpy(part)
        there = here.to(self.device)
        self._wait(lambda: act(there))
        if there is not here:
            here.copy_(there)

    def _wait(self, start: Any) -> None:
        try:
            start().wait(self._timeout)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        except RuntimeError as error:  # a rank that ended, or one that is late
            raise RankError(f"rank {self.rank}: one of {self.size} ranks does not answer: {error}") from error
