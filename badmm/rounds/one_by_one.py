"""Clients that answer one by one, so that their sums can be taken in their order, whichever rank they live on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badmm.checks import ClientError
from badmm.families.family import Natural
from badmm.rounds.exact_clients import ExactClients
from badmm.rounds.loop import Deadline
from badmm.rounds.workers import Workers
from badmm.transports.messages import Message, Reply


class OneByOne:
    """Populations of one client each, as one population whose answer is a reply of each."""

    def __init__(self, alone: Sequence[ExactClients], workers: Workers) -> None:
        self.alone, self.workers = list(alone), workers
        self._none: dict[str, Natural] = {}

    def __len__(self) -> int:
        return len(self.alone)

    def start(
        self, natural: Natural, duals: Natural, clients: Natural, sent: Natural = (), lines: Sequence[Natural] = ()
    ) -> None:
        """As `ExactClients.start`."""
        self._none = {"duals": _none(duals), "clients": _none(clients), "sent": _none(sent)}
        for k, one in enumerate(self.alone):
            row = slice(k, k + 1)
            own = [tuple(slot[row] for slot in slots) for slots in (duals, clients, sent, *lines)]
            one.start(natural, own[0], own[1], own[2], own[3:])

    def answer(self, message: Message, deadline: Deadline) -> list[Reply]:
        """Each client's reply, in the order of clients."""
        return self.workers.map(lambda one: one.answer(message, deadline), self.alone)

    @property
    def errors(self) -> dict[int, ClientError]:
        """What clients raised."""
        return {client: error for one in self.alone for client, error in one.errors.items()}

    @property
    def duals(self) -> Natural:
        """η (K', ...)."""
        return self._stacked("duals")

    @property
    def clients(self) -> Natural:
        """λ_k (K', ...)."""
        return self._stacked("clients")

    @property
    def sent(self) -> Natural:
        """The last sent c_k (K', ...), empty where all take part in every round."""
        return self._stacked("sent")

    @property
    def lines(self) -> list[Natural]:
        """The dual lines of earlier rounds, newest last."""
        rounds = zip(*(one.lines for one in self.alone), strict=True)
        return [tuple(np.concatenate(slots) for slots in zip(*rows, strict=True)) for rows in rounds]

    def _stacked(self, name: str) -> Natural:
        rows = [getattr(one, name) for one in self.alone]
        return tuple(np.concatenate(slots) for slots in zip(*rows, strict=True)) if rows else self._none[name]


def _none(slots: Natural) -> Natural:
    return tuple(slot[:0] for slot in slots)
