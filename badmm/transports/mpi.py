"""MPI: `mpiexec -n 4 python program.py`, each rank with clients of its own (mpi4py; any MPI library).

Arrays cross as buffers: a sum is one `Allreduce` in place, in pieces below MPI's largest count; λ_g is one `Bcast`.
While a rank waits for another it sleeps, so that ranks may outnumber cores.
"""

from __future__ import annotations

import atexit
import time
from typing import Any

import numpy as np
from mpi4py import MPI as mpi

from badmm.checks import RankError
from badmm.transports.ranks import Array, Ranks

LONGEST_NAP = 1e-3
"""Seconds between two looks at a request: what a wait may be longer than it has to be."""


class MPI(Ranks):
    """The ranks of a communicator (default: a duplicate of COMM_WORLD, whose messages meet no one else's).

    deadline: seconds that an answer may take; after twice that a rank gives the others up, and a program that ends then
    ends on all ranks, since a rank that does not answer would keep MPI from shutting down. deterministic: sums run
    through the clients in their order, so that any number of ranks gives the same bits; ranks then add in turn.
    """

    def __init__(self, communicator: Any = None, *, deadline: float | None = None, deterministic: bool = False) -> None:
        super().__init__(deadline, deterministic)
        self.communicator: Any = mpi.COMM_WORLD.Dup() if communicator is None else communicator
        self.rank, self.size = self.communicator.Get_rank(), self.communicator.Get_size()

    def gather(self, data: bytes) -> list[bytes]:
        """Sizes, then bytes, each one call to all ranks."""
        sizes = np.empty(self.size, dtype=np.int64)
        self._wait(self.communicator.Iallgather(np.array([len(data)], dtype=np.int64), sizes))
        ends = np.cumsum(sizes)
        everything = np.empty(int(ends[-1]), dtype=np.uint8)
        counts = sizes.tolist()
        self._wait(self.communicator.Iallgatherv(np.frombuffer(data, dtype=np.uint8), [everything, counts]))
        return [everything[end - size : end].tobytes() for size, end in zip(sizes, ends, strict=True)]

    def add(self, part: Array) -> None:
        """Allreduce in place."""
        self.communicator.Allreduce(mpi.IN_PLACE, part, op=mpi.SUM)

    def share(self, part: Array, root: int) -> None:
        """Bcast."""
        self.communicator.Bcast(part, root=root)

    def send(self, part: Array, to: int) -> None:
        """Send."""
        self.communicator.Send(part, dest=to)

    def receive(self, part: Array, source: int) -> None:
        """Recv."""
        self.communicator.Recv(part, source=source)

    def _wait(self, request: Any) -> None:
        began, nap = time.monotonic(), 1e-5
        while not request.Test():
            if self.patience is not None and time.monotonic() - began > self.patience:
                atexit.register(self.communicator.Abort, 3)
                raise RankError(f"rank {self.rank}: some of {self.size} ranks did not answer in {self.patience:g} s")
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)
