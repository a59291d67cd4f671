"""How messages reach the clients: one file per engine, each with one implementation of `Transport`."""

from badmm.transports.in_process import InProcess
from badmm.transports.messages import Message, Reply, Transport, combine

__all__ = ["InProcess", "Message", "Reply", "Transport", "combine"]
