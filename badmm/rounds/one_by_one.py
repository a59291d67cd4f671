"""Clients that answer one by one, so that their sums can be taken in their order, whichever rank they live on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badmm.families.family import Natural
from badmm.rounds.exact_clients import ExactClients
from badmm.rounds.workers import Workers
from badmm.transports.messages import Message, Reply


class OneByOne:
    """Populations of one client each, as one population whose answer is a reply per client."""

    def __init__(self, alone: Sequence[ExactClients], workers: Workers) -> None:
        self.alone, self.workers = list(alone), workers
        self._empty: Natural = ()

    def __len__(self) -> int:
        return len(self.alone)

    def start(self, natural: Natural, duals: Natural, clients: Natural, lines: Sequence[Natural] = ()) -> None:
        """As `ExactClients.start`."""
        self._empty = tuple(slot[:0] for slot in duals)
        for k, one in enumerate(self.alone):
            row = slice(k, k + 1)
            own = [tuple(slot[row] for slot in slots) for slots in (duals, clients, *lines)]
            one.start(natural, own[0], own[1], own[2:])

    def answer(self, message: Message) -> list[Reply]:
        """Each client's reply, in the order of clients."""
        return self.workers.map(lambda one: one.answer(message), self.alone)

    @property
    def duals(self) -> Natural:
        """η (K', ...)."""
        return self._stacked([one.duals for one in self.alone])

    @property
    def clients(self) -> Natural:
        """λ_k (K', ...)."""
        return self._stacked([one.clients for one in self.alone])

    @property
    def lines(self) -> list[Natural]:
        """The dual lines of earlier rounds, newest last."""
        return [self._stacked(rows) for rows in zip(*(one.lines for one in self.alone), strict=True)]

    def _stacked(self, rows: Sequence[Natural]) -> Natural:
        return tuple(np.concatenate(slots) for slots in zip(self._empty, *rows, strict=True))
