"""One question to the clients: the message goes out, the replies come back reduced, and what crossed is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from badmm.streams import Purpose, generator
from badmm.transports.messages import Arrays, Message, Reply, Screening, Transport


class Population(Protocol):
    """The clients of one process. They keep their own state; `answer` gives the reduction over those who take part."""

    def __len__(self) -> int:
        """How many there are."""

    def answer(self, message: Message) -> Any:
        """Act on a message; a reply of all, or for an engine that is deterministic one of each client."""


def participants(num_clients: int, index: int, fraction: float, seed: int) -> list[int]:
    """Who takes part in round `index`: max(1, round(fraction · K)) clients at random from that round's stream, sorted.

    `fraction` in (0, 1].
    """
    count = max(1, round(fraction * num_clients))
    if count == num_clients:
        return list(range(count))
    rng = generator(seed, Purpose.PARTICIPATION, index)
    return sorted(int(client) for client in rng.choice(num_clients, count, replace=False))


class Exchange:
    """The server's line to the clients, with the bytes that crossed it: one message down and one reply up a client."""

    def __init__(self, transport: Transport, population: Population, digest: str) -> None:
        self.transport, self.population, self.digest = transport, population, digest
        self.bytes_up = self.bytes_down = 0

    def ask(
        self,
        kind: str,
        index: int,
        numbers: Mapping[str, float] | None = None,
        arrays: Mapping[str, Any] | None = None,
        members: tuple[int, ...] | None = None,
        screen: Callable[[Arrays], str | None] | None = None,
    ) -> Reply:
        """Send a message to `members` (None: all) and return the reduction of their replies.

        `screen` says why sums cannot be used: an engine that can leaves out whose part makes them so.
        """
        if isinstance(self.transport, Screening):
            self.transport.screen = screen
        message = self.transport.broadcast(Message(kind, index, self.digest, numbers or {}, arrays or {}, members))
        self._check(message.digest, message.round, index, "message")
        reply = self.transport.reduce(self.population.answer(message))
        self._check(reply.digest, reply.round, index, "reply")
        self.bytes_down += message.nbytes * (reply.clients + len(reply.failures))
        self.bytes_up += reply.nbytes * reply.clients
        return reply

    def agree(self, more: bool, index: int, gap: float) -> bool:
        """Whether rank 0 wants more rounds: no two ranks, whatever their last bits, end at different ones."""
        if self.transport.size == 1:
            return more
        word = Message("more" if more else "done", index, self.digest, {"gap": gap})
        return self.transport.broadcast(word).kind == "more"

    def _check(self, digest: str, found: int, index: int, what: str) -> None:
        if digest != self.digest:
            raise ValueError(f"{what}: expected the digest {self.digest} of this run's configuration, got {digest}")
        if found != index:
            raise ValueError(f"{what}: expected round {index}, got round {found}")
