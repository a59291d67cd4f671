"""Ranks that run one program together, each with clients of its own: what MPI and torch.distributed have in common.

Every step begins with an exchange of small headers: where a rank is, what failed there, names, shapes and numbers. Data
follow only where all ranks are at the same step and none failed, so that a rank that fails ends the run on all ranks by
name and hangs none. Numbers are reduced from the headers in the order of ranks, arrays by the engine's own reduction.
Where an engine is `deterministic`, arrays are added client by client along the chain of ranks instead: 1, 2 and 4 ranks
give the same bits.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from badmm.checks import RankError
from badmm.transports import wire
from badmm.transports.messages import Message, Reply, combine

Array = np.ndarray[Any, Any]
PIECE = 1 << 26
"""Numbers that cross at once: half a gigabyte of float64, and far below the 2³¹ that an MPI count may have."""


class Ranks(ABC):
    """One of `size` ranks. An engine says how bytes are gathered and how an array is added, shared and passed on."""

    rank: int
    size: int
    deadline: float | None
    deterministic: bool
    piece = PIECE

    def __init__(self, deadline: float | None, deterministic: bool) -> None:
        self.deadline, self.deterministic = deadline, deterministic
        self._step = 0
        self._over = False

    @property
    def patience(self) -> float | None:
        """Seconds to wait for another rank: twice the deadline, so that one that is late can still say so itself."""
        return None if self.deadline is None else 2.0 * self.deadline

    @abstractmethod
    def gather(self, data: bytes) -> list[bytes]:
        """Every rank's bytes, in the order of ranks; `RankError` where one is not there in time (`patience`)."""

    @abstractmethod
    def add(self, part: Array) -> None:
        """Sum a flat array over all ranks in place."""

    @abstractmethod
    def share(self, part: Array, root: int) -> None:
        """Overwrite a flat array by that of `root`."""

    @abstractmethod
    def send(self, part: Array, to: int) -> None:
        """Send a flat array to a rank."""

    @abstractmethod
    def receive(self, part: Array, source: int) -> None:
        """Overwrite a flat array by what `source` sends."""

    def broadcast(self, message: Message) -> Message:
        """The message of rank 0."""
        table = self._meet("broadcast", wire.header(message) if self.rank == 0 else None)[0]
        arrays = {name: self._own(message.arrays.get(name), *form) for name, form in table["arrays"].items()}
        for array in arrays.values():
            self._pieces(array, lambda part: self.share(part, 0))
        return wire.record(Message, table, arrays)

    def reduce(self, reply: Reply | Sequence[Reply]) -> Reply:
        """The reduction of all ranks' replies, the same on every rank."""
        replies = [reply] if isinstance(reply, Reply) else list(reply)
        tables = self._meet("reduce", [wire.header(one) for one in replies])
        forms = _forms([table for rank in tables for table in rank])
        numbers = combine(wire.record(Reply, table, {}) for rank in tables for table in rank)
        if self.deterministic:
            sums = self._chain(replies, forms, [bool(rank) for rank in tables])
        else:
            sums = {name: self._total(replies, name, *form) for name, form in forms.items()}
        return replace(numbers, sums=sums)

    def settle(self, error: BaseException | None) -> None:
        """End the run on all ranks together."""
        if not self._over:
            self._meet("end", None, error)

    def _meet(self, place: str, table: Any, error: BaseException | None = None) -> list[Any]:
        """Every rank's table; `RankError` unless all are at this place and none failed."""
        if self._over:
            raise RankError(f"rank {self.rank}: expected a run that goes on, got one that failed")
        here = {"step": self._step, "place": place, "error": None if error is None else _told(error), "table": table}
        self._step += 1
        try:
            ranks = [json.loads(data) for data in self.gather(wire.encode(here))]
        except BaseException:
            self._over = True
            raise
        failed = [f"rank {rank}: {one['error']}" for rank, one in enumerate(ranks) if one["error"]]
        apart = [
            f"rank {rank} at {one['place']} of step {one['step']}"
            for rank, one in enumerate(ranks)
            if (one["place"], one["step"]) != (ranks[0]["place"], ranks[0]["step"])
        ]
        if failed or apart:
            self._over = True
            if error is not None:  # it is raised where it happened
                return []
            where = f"rank 0 at {ranks[0]['place']} of step {ranks[0]['step']}"
            raise RankError("; ".join(failed) or f"ranks: expected all at one step, got {'; '.join([where, *apart])}")
        return [one["table"] for one in ranks]

    def _total(self, replies: Sequence[Reply], name: str, dtype: str, shape: Sequence[int]) -> Array:
        """An array's sum over this rank's replies, then over the ranks."""
        total = np.zeros(shape, dtype)
        for reply in replies:
            if name in reply.sums:
                total += wire.host(reply.sums[name])
        self._pieces(total, self.add)
        return total

    def _chain(
        self, replies: Sequence[Reply], forms: Mapping[str, tuple[str, list[int]]], taking: Sequence[bool]
    ) -> dict[str, Array]:
        """Sums in the order of clients: each rank adds its own to what the rank before it passes on."""
        ranks = [rank for rank, has in enumerate(taking) if has]
        if not ranks:
            return {}
        sums = {name: np.zeros(shape, dtype) for name, (dtype, shape) in forms.items()}
        if self.rank in ranks:
            place = ranks.index(self.rank)
            for name, total in sums.items():
                if place:
                    self._pieces(total, lambda part: self.receive(part, ranks[place - 1]))
                for reply in replies:
                    if name in reply.sums:
                        total += wire.host(reply.sums[name])
                if place + 1 < len(ranks):
                    self._pieces(total, lambda part: self.send(part, ranks[place + 1]))
        for total in sums.values():
            self._pieces(total, lambda part: self.share(part, ranks[-1]))
        return sums

    def _own(self, array: Any, dtype: str, shape: Sequence[int]) -> Array:
        """Rank 0's array, which is only read there; room for it elsewhere."""
        return wire.host(array) if self.rank == 0 else np.empty(shape, dtype)

    def _pieces(self, array: Array, act: Callable[[Array], None]) -> None:
        for part in pieces(array, self.piece):
            act(part)


def pieces(array: Array, size: int) -> Iterator[Array]:
    """A contiguous array as flat views of at most `size` numbers."""
    flat = array.reshape(-1)
    for first in range(0, flat.size, size):
        yield flat[first : first + size]


def share_of(rank: int, size: int, count: int) -> range:
    """The clients, of `count`, that live on a rank: as many in a row on each, to within one."""
    return range(count * rank // size, count * (rank + 1) // size)


def _forms(tables: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, list[int]]]:
    """Types and shapes of all arrays, in the order of names; `RankError` where two replies do not fit."""
    forms: dict[str, tuple[str, list[int]]] = {}
    for table in tables:
        for name, (dtype, shape) in table["arrays"].items():
            known = forms.setdefault(name, (dtype, shape))
            if known != (dtype, shape):
                raise RankError(f"{name}: expected {known[0]} of shape {known[1]}, got {dtype} of shape {shape}")
    return dict(sorted(forms.items()))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
