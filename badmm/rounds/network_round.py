"""A round of networks: the round loop with stacks of clients, a method's server line, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from badmm.checks import ServerDomainError
from badmm.clients.federation import Federation
from badmm.rounds import network_buffers as buffers
from badmm.rounds.loop import Ask, Loop, Played
from badmm.rounds.network_clients import NetworkClients, raise_pending
from badmm.rounds.network_method import Events, NetworkMethod, State
from badmm.rounds.workers import Workers
from badmm.transports.in_process import InProcess
from badmm.transports.messages import Numbers, Reply, Transport

SPLIT = "stacks_trained_in_parts"
"""The event of a stack that raised though none of its clients does: memory, or an error of its own."""


class NetworkServer:
    """The server's tensors of `state`, and a method's server line on them; clients that are lost are left out."""

    needs_everyone = False

    def __init__(self, method: NetworkMethod, federation: Federation, state: State) -> None:
        self.method, self.federation, self.state = method, federation, state
        self.events: Events = {}

    def step(self) -> tuple[Numbers, Mapping[str, Any]]:
        """What the method broadcasts, and the buffers that clients start from."""
        server = self.state.server
        names = self.method.broadcast
        if buffers.NAME in server and buffers.NAME not in self.state.clients:
            names = (*names, buffers.NAME)
        return {}, {name: server[name] for name in names}

    def update(self, reply: Reply) -> None:
        """The method's line; ServerDomainError where the kernels refuse it. The server has no client's rows."""
        federation, state = self.federation, self.state
        server = State(dict(state.server), {}, state.round)
        sums = {name: torch.as_tensor(array, device=federation.device) for name, array in reply.sums.items()}
        running = sums.pop(buffers.NAME, None)
        if running is not None:
            server.server[buffers.NAME] = buffers.average(running, federation.dtype)
        try:
            self.events = self.method.server(server, federation, reply.clients, sums)
            raise_pending(federation.device)
        except ValueError as error:
            raise ServerDomainError(f"no server update in round {state.round + 1}: {error}") from error
        state.server, state.round = server.server, state.round + 1
        if reply.totals["split"]:
            self.events = {**self.events, SPLIT: int(reply.totals["split"])}

    def measure(self, ask: Ask) -> None:
        """Nothing: predictions are scored on data that the server holds."""


def play(
    method: NetworkMethod,
    federation: Federation,
    state: State,
    *,
    lr: float,
    largest: int = 8,
    fraction: float = 1.0,
    workers: int = 1,
    transport: Transport | None = None,
) -> Played:
    """Run round `state.round` and change `state` to what follows it; at most `largest` clients train together.

    `workers` threads each train a stack at a time, every one of them on a single core, so that results do not depend on
    how many there are; on a GPU leave them at 1. A client that raises, is late, or returns what is not finite or not
    usable by the method, is left out: it keeps its rows and its dual. ClientError where none is left, ServerDomainError
    where the kernels refuse the server's update.

    The reply's totals are each client's mean minibatch loss ("loss") and gradients of single points ("gradients"); its
    bytes count the tensors as they are. Every process of a `transport` calls this with the same federation and trains
    its share of the clients: those from K · rank/size on. `state.clients` has the rows of all, of which a process
    changes its own.
    """
    transport = InProcess() if transport is None else transport
    count = federation.num_clients
    buffers.begin(federation, state.server, state.clients)
    first, end = (count * place // transport.size for place in (transport.rank, transport.rank + 1))
    server, before = NetworkServer(method, federation, state), torch.get_num_threads()
    with Workers(workers, torch.set_num_threads, (1,)) as pool:
        torch.set_num_threads(1)
        try:
            clients = NetworkClients(method, federation, state, lr, largest, pool, range(first, end))
            identity = [method.name, count, federation.num_parameters, str(federation.dtype)]
            options: dict[str, Any] = {"fraction": fraction, "seed": federation.seed, "index": state.round}
            loop = Loop(server, clients, transport, count, identity, **options)
            return loop.round()
        finally:
            torch.set_num_threads(before)
