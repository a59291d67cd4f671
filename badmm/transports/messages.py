"""What crosses between the server and the clients: messages down, replies up, and the reduction of replies.

A message goes to every client that takes part. A reply holds reductions over clients alone: sums of arrays and numbers,
maxima and minima of numbers. The server never sees what one client holds: duals, λ_k and data stay with the clients.
Both carry the round and a digest of the configuration, so that what belongs elsewhere is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol, runtime_checkable

from badmm.checks import RankError

Arrays = Mapping[str, Any]
Numbers = Mapping[str, float]


def _nbytes(arrays: Arrays, *numbers: Numbers) -> int:
    return sum(int(array.nbytes) for array in arrays.values()) + 8 * sum(map(len, numbers))


@dataclass(frozen=True)
class Message:
    """What the server broadcasts: its kind, the round, numbers such as ρ and γ, arrays such as λ_g.

    `members` are the indices of the clients that take part (None: all); they address the message and are not counted
    in `nbytes`, the size of what one client receives.
    """

    kind: str
    round: int
    digest: str
    numbers: Numbers = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    members: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of numbers (8 each) and arrays."""
        return _nbytes(self.arrays, self.numbers)


@dataclass(frozen=True)
class Reply:
    """What clients send back, reduced: `sums` of arrays and `totals` of numbers, `maxima` and `minima` of numbers.

    `clients` counts who is in the sums. `failures` names those who are not, with the reason; `absent` those who did not
    answer, whose earlier terms are in `sums` and nowhere else; `notes` are messages for the history. `nbytes` is the
    size of what one client sends: a reply of many is as large as that of one, unless the sums have more digits than a
    client's own numbers, and `client_nbytes` says what those take.
    """

    round: int
    digest: str
    clients: int = 1
    sums: Arrays = field(default_factory=dict)
    totals: Numbers = field(default_factory=dict)
    maxima: Numbers = field(default_factory=dict)
    minima: Numbers = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    client_nbytes: int | None = None
    absent: Mapping[int, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of numbers (8 each) and arrays, or `client_nbytes`."""
        if self.client_nbytes is not None:
            return self.client_nbytes
        return _nbytes(self.sums, self.totals, self.maxima, self.minima)


class Transport(Protocol):
    """How a message reaches the processes that hold clients, and how their replies are reduced.

    Every process calls both methods in turn: `broadcast` returns the server's message everywhere, `reduce` the
    reduction of all processes' replies. `deadline` is the number of seconds within which a message has to be answered
    (None: any). The round loop counts clients of its own process that take longer among the failures of its reply; an
    engine that gives up on another process adds that process's clients to the failures of the reduction. What an engine
    may have beside these: `Settling`, `Deterministic`, `Screening`, `Following`.
    """

    rank: int
    size: int
    deadline: float | None

    def broadcast(self, message: Message) -> Message:
        """The message of rank 0."""

    def reduce(self, reply: Reply) -> Reply:
        """The reduction of all ranks' replies, in the order of ranks (`combine`)."""


@runtime_checkable
class Settling(Protocol):
    """An engine whose ranks end together."""

    def settle(self, error: BaseException | None) -> None:
        """Raise `RankError` where another rank failed, and tell the others of `error`."""


@runtime_checkable
class Deterministic(Protocol):
    """An engine that, where `deterministic` is true, adds in the order of clients, whichever rank they live on.

    Its `reduce` then takes one reply per client.
    """

    deterministic: bool


class Judge(Protocol):
    """What a server knows of sums and of λ."""

    @property
    def numbers(self) -> int:
        """In a λ as sent, and in a term of Σ c_k."""

    def screen(self, sums: Arrays) -> str | None:
        """Why sums cannot be used; None where they can."""

    def length(self, sums: Arrays) -> float:
        """The length of a term in the metric at λ_g."""

    def inside(self, natural: Any) -> bool:
        """Whether a λ as it is sent lies in the domain."""


@runtime_checkable
class Screening(Protocol):
    """An engine that sees each process's sums by themselves and can leave one out."""

    judge: Judge | None


@runtime_checkable
class Remembering(Protocol):
    """An engine that keeps each process's last sums and adds them up in every round, whoever takes part in it.

    Its processes send sums over all of their clients, not how these have changed: a reply that is lost is then of no
    consequence for later ones.
    """

    remembers: bool


@runtime_checkable
class Following(Protocol):
    """An engine whose process only answers: a site, whose server is elsewhere."""

    def begin(self, population: Any, answer: Callable[[Message], Reply], digest: str) -> None:
        """Start with these clients, which `answer`, or go on from what is remembered of them."""

    def follow(self) -> Message:
        """Answer until the server is done; its last message."""


@contextmanager
def joined(transport: Transport) -> Iterator[None]:
    """What runs within ends on every rank: an error of one rank is a `RankError` that names it on the others."""
    try:
        yield
    except RankError:
        raise
    except BaseException as error:
        if isinstance(transport, Settling):
            transport.settle(error)
        raise
    if isinstance(transport, Settling):
        transport.settle(None)


def combine(replies: Iterable[Reply]) -> Reply:
    """The reduction of replies, in their order: the same order gives the same bits."""
    return reduce(_two, replies)


def _two(a: Reply, b: Reply) -> Reply:
    if (a.round, a.digest) != (b.round, b.digest):
        raise ValueError(
            f"reply: expected round {a.round} and digest {a.digest}, got round {b.round} and digest {b.digest}"
        )
    return Reply(
        a.round,
        a.digest,
        a.clients + b.clients,
        _merge(a.sums, b.sums, lambda x, y: x + y),
        _merge(a.totals, b.totals, lambda x, y: x + y),
        _merge(a.maxima, b.maxima, max),
        _merge(a.minima, b.minima, min),
        {**a.failures, **b.failures},
        (*a.notes, *b.notes),
        a.client_nbytes if b.client_nbytes is None else b.client_nbytes,
        {**a.absent, **b.absent},
    )


def _merge(a: Mapping[str, Any], b: Mapping[str, Any], two: Any) -> dict[str, Any]:
    """Entry by entry; an entry that only one side has is its own: a process without clients has none."""
    return {**a, **{name: two(a[name], value) if name in a else value for name, value in b.items()}}


def digest(configuration: Any) -> str:
    """A short checksum of what all parties must agree on, of anything that JSON can hold."""
    text = json.dumps(configuration, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
