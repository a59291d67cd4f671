"""One round of networks: who takes part, one exchange with the clients, the server line, and what happened."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from badmm.checks import ClientError, ServerDomainError
from badmm.clients.federation import Federation
from badmm.rounds import network_buffers as buffers
from badmm.rounds.exchange import Exchange, participants
from badmm.rounds.network_clients import NetworkClients, raise_pending
from badmm.rounds.network_method import Method, State
from badmm.rounds.workers import Workers
from badmm.transports.in_process import InProcess
from badmm.transports.messages import Transport, digest

SPLIT = "stacks_trained_in_parts"
"""The event of a stack that raised though none of its clients does: memory, or an error of its own."""


@dataclass
class Outcome:
    """What happened in a round: who took part, who was left out and why, bytes, work, and the server's events.

    Bytes count the tensors as they are: down, what `Method.broadcast` names, to every client that was asked; up, what
    came from each client that was used. `loss` is the mean over clients of their minibatches' mean losses.
    """

    asked: list[int]
    used: list[int] = field(default_factory=list)
    excluded: dict[int, str] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    point_gradients: float = 0.0
    loss: float = float("nan")
    lr: float = 0.0


def play(
    method: Method,
    federation: Federation,
    state: State,
    *,
    lr: float,
    largest: int = 8,
    fraction: float = 1.0,
    workers: int = 1,
    transport: Transport | None = None,
) -> Outcome:
    """Run round `state.round` and change `state` to what follows it; at most `largest` clients train together.

    `workers` threads each train a stack at a time, every one of them on a single core, so that results do not depend on
    how many there are; on a GPU leave them at 1. A client that raises, or returns what is not finite or not usable by
    the method, is left out: it keeps its rows and its dual. ClientError where none is left, ServerDomainError where the
    kernels refuse the server's update.
    """
    asked = participants(federation.num_clients, state.round, fraction, federation.seed)
    outcome = Outcome(asked, lr=lr)
    buffers.begin(federation, state.server, state.clients)
    before = torch.get_num_threads()
    with Workers(workers, torch.set_num_threads, (1,)) as pool:
        torch.set_num_threads(1)
        try:
            clients = NetworkClients(method, federation, state, lr, largest, pool)
            identity = [method.name, federation.num_clients, federation.num_parameters, str(federation.dtype)]
            exchange = Exchange(InProcess() if transport is None else transport, clients, digest(identity))
            down = (*method.broadcast, *({buffers.NAME} & state.server.keys() - state.clients.keys()))
            arrays = {name: state.server[name] for name in down}
            reply = exchange.ask("train", state.round, arrays=arrays, members=tuple(asked))
        finally:
            torch.set_num_threads(before)
    outcome.used, outcome.excluded = clients.used, dict(reply.failures)
    outcome.point_gradients = reply.totals["gradients"]
    if not reply.clients:
        client, reason = next(iter(outcome.excluded.items()))
        raise ClientError(client, f"no client could be used in round {state.round + 1}; this one: {reason}")
    outcome.bytes_up, outcome.bytes_down = exchange.bytes_up, exchange.bytes_down
    server = State(state.server, {}, state.round)
    sums = {name: torch.as_tensor(array, device=federation.device) for name, array in reply.sums.items()}
    running = sums.pop(buffers.NAME, None)
    try:
        outcome.events = method.server(server, federation, reply.clients, sums)
        raise_pending(federation.device)
    except ValueError as error:
        raise ServerDomainError(f"no server update in round {state.round + 1}: {error}") from error
    if reply.totals["split"]:
        outcome.events = {**outcome.events, SPLIT: int(reply.totals["split"])}
    if running is not None:
        server.server[buffers.NAME] = buffers.average(running, federation.dtype)
    outcome.loss = reply.totals["loss"] / reply.clients
    state.server = server.server
    state.round += 1
    return outcome
