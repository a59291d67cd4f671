"""How messages reach the clients: one file per engine, each with one implementation of `Transport`."""

from badmm.rounds.messages import Message, Reply, Transport, combine
from badmm.transports.in_process import InProcess

__all__ = ["InProcess", "Message", "Reply", "Transport", "combine"]
