"""The round loop, whoever the clients are: what goes down, what comes back, who is absent, late or lost, what it costs.

    numbers, arrays = server.step()             what the clients need for their step
    reply = population.answer(message)          in every process, reduced by the transport
    server.update(reply)                        the method's server line
    server.measure(ask)                         what the server wants to know at the new λ_g, if anything

`badmm.solve` and federations of networks differ in the population and in the server's rule alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from badmm.checks import ClientError
from badmm.streams import Purpose, generator
from badmm.transports.messages import Message, Numbers, Reply, Transport, digest

Ask = Callable[..., Reply]
"""`Loop.ask`."""


class Deadline:
    """The moment after which a client's answer does not count, `seconds` from now (None: never)."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.began = seconds, time.perf_counter()

    def missed(self) -> str | None:
        """What is wrong with an answer that is there only now; None in time."""
        took = time.perf_counter() - self.began
        if self.seconds is None or took <= self.seconds:
            return None
        return f"expected an answer within the deadline of {self.seconds:g} s, got none after {took:.3g} s"


class Population(Protocol):
    """The clients of one process, which keep their own state."""

    @property
    def errors(self) -> Mapping[int, ClientError]:
        """What clients raised that the last reply counts among its failures; empty where their reasons are enough."""

    def answer(self, message: Message, deadline: Deadline) -> Any:
        """The reduction over those who take part; who is late or raises is among its failures and keeps its state.

        For an engine that adds in the order of clients: a reply of each.
        """


class Server(Protocol):
    """The server's side of a method."""

    needs_everyone: bool
    """Whether a round is lost with one client of those asked; else the others go on without it."""
    events: Any
    """What the last update had to do to stay in the domain."""

    def step(self) -> tuple[Numbers, Mapping[str, Any]]:
        """The numbers and arrays that clients need for their step."""

    def update(self, reply: Reply) -> None:
        """The server line, from the reduced reply."""

    def measure(self, ask: Ask) -> None:
        """Ask what is wanted at the new λ_g."""


@dataclass(frozen=True)
class Played:
    """One round: its number from 1 on, who was asked, the reduced reply, the server's events, and what it cost.

    The bytes are those of all messages and replies of the loop so far: down to who was asked, up from who was used.
    """

    round: int
    asked: list[int]
    reply: Reply
    events: Any
    bytes_up: int
    bytes_down: int
    seconds: float

    @property
    def used(self) -> list[int]:
        """Who is in the reply's sums."""
        return [client for client in self.asked if client not in self.reply.failures]

    @property
    def excluded(self) -> dict[int, str]:
        """Who was left out, and why."""
        return dict(sorted(self.reply.failures.items()))

    def mean(self, name: str) -> float:
        """A number's mean over the clients that were used."""
        return self.reply.totals[name] / self.reply.clients


def participants(num_clients: int, index: int, fraction: float, seed: int) -> list[int]:
    """Who takes part in round `index`: max(1, round(fraction · K)) clients at random from that round's stream, sorted.

    `fraction` in (0, 1].
    """
    count = max(1, round(fraction * num_clients))
    if count == num_clients:
        return list(range(count))
    rng = generator(seed, Purpose.PARTICIPATION, index)
    return sorted(int(client) for client in rng.choice(num_clients, count, replace=False))


class Loop:
    """Rounds of a server with K clients, of which a `fraction` is asked in each; `index` counts those played.

    `identity` is what all processes must agree on.
    """

    def __init__(
        self,
        server: Server,
        population: Population,
        transport: Transport,
        num_clients: int,
        identity: Any,
        *,
        fraction: float = 1.0,
        seed: int = 0,
        index: int = 0,
    ) -> None:
        self.server, self.population, self.transport = server, population, transport
        self.num_clients, self.fraction, self.seed, self.index = num_clients, fraction, seed, index
        self.digest = digest(identity)
        self.bytes_up = self.bytes_down = 0

    def asked(self) -> list[int]:
        """Who takes part in the round that is played."""
        return participants(self.num_clients, self.index, self.fraction, self.seed)

    def round(self) -> Played:
        """Play a round. ClientError where a client is lost that the server needs, or every one of them."""
        began, asked = time.perf_counter(), self.asked()
        reply = self.ask("step", *self.server.step())
        self.server.update(reply)
        self.index += 1
        self.server.measure(self.ask)
        seconds = time.perf_counter() - began
        return Played(self.index, asked, reply, self.server.events, self.bytes_up, self.bytes_down, seconds)

    def ask(
        self,
        kind: str,
        numbers: Numbers | None = None,
        arrays: Mapping[str, Any] | None = None,
        *,
        everyone: bool = False,
    ) -> Reply:
        """Send a message to those who take part, or to `everyone`, and return the reduction of their replies."""
        asked = self.asked()
        members = None if everyone or len(asked) == self.num_clients else tuple(asked)
        sent = Message(kind, self.index, self.digest, numbers or {}, arrays or {}, members)
        message = self.transport.broadcast(sent)
        self._check(message.digest, message.round, "message")
        reply = self.transport.reduce(self.population.answer(message, Deadline(self.transport.deadline)))
        self._check(reply.digest, reply.round, "reply")
        if reply.failures and (self.server.needs_everyone or not reply.clients):
            raise self._lost(reply)
        self.bytes_down += message.nbytes * (reply.clients + len(reply.failures) + len(reply.absent))
        self.bytes_up += reply.nbytes * reply.clients
        return reply

    def goes_on(self, more: bool, gap: float) -> bool:
        """Whether rank 0 wants more rounds: no two ranks, whatever their last bits, end at different ones."""
        if self.transport.size == 1:
            return more
        word = Message("more" if more else "done", self.index, self.digest, {"gap": gap})
        return self.transport.broadcast(word).kind == "more"

    def _lost(self, reply: Reply) -> ClientError:
        client = min(reply.failures)
        if not self.server.needs_everyone:
            number, reason = self.index + 1, reply.failures[client]
            return ClientError(client, f"no client could be used in round {number}; this one: {reason}")
        return self.population.errors.get(client) or ClientError(client, reply.failures[client])

    def _check(self, digest: str, found: int, what: str) -> None:
        if digest != self.digest:
            raise ValueError(f"{what}: expected the digest {self.digest} of this run's configuration, got {digest}")
        if found != self.index:
            raise ValueError(f"{what}: expected round {self.index}, got round {found}")
