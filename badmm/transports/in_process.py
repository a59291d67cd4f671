"""All clients in this process: a message is handed on as it is."""

from __future__ import annotations

from typing import Any

from badmm.transports.messages import Message, Reply, combine


class InProcess:
    """One process that is the server and holds every client; `deterministic`: client by client, as the engines do."""

    rank, size = 0, 1
    deadline: float | None = None
    deterministic = False

    def __init__(self, *, deterministic: bool = False) -> None:
        self.deterministic = deterministic

    def broadcast(self, message: Message) -> Message:
        """The message itself."""
        return message

    def reduce(self, reply: Any) -> Reply:
        """The reply itself, since this process has every client, or the sum of each client's."""
        return reply if isinstance(reply, Reply) else combine(reply)
