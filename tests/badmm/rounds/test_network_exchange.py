"""What crosses between the server and the networks' clients, and that the server reads nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from badmm.methods import NETWORKS
from badmm.methods.fedprox import FedProx
from badmm.rounds import network_round as rounds
from badmm.rounds.network_method import NetworkMethod, State
from badmm.transports import InProcess, Message, Reply
from tests.badmm.rounds.federated_problems import DIM, federation


class Arrays(InProcess):
    """Hands on NumPy arrays, as an engine of buffers does, and keeps what it saw."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.replies: list[Reply] = []

    def broadcast(self, message: Message) -> Message:
        self.messages.append(replace(message, arrays={k: v.numpy().copy() for k, v in message.arrays.items()}))
        return self.messages[-1]

    def reduce(self, reply: Reply) -> Reply:
        self.replies.append(replace(reply, sums={k: v.numpy().copy() for k, v in reply.sums.items()}))
        return self.replies[-1]


def run(method: NetworkMethod, transport: InProcess, count: int = 3) -> State:
    fed = federation("softmax", epochs=2, batch_size=4, lr=0.05)
    state = method.start(fed, torch.full((DIM,), 0.1, dtype=torch.float64))
    for _ in range(count):
        rounds.play(method, fed, state, lr=0.05, fraction=0.75, transport=transport)
    return state


@pytest.mark.parametrize("name", NETWORKS)
def test_sums_cross_and_the_bits_are_those_in_process(name: str) -> None:
    engine = Arrays()
    here, there = run(NETWORKS[name](), InProcess()), run(NETWORKS[name](), engine)
    for mine, theirs in ((here.server, there.server), (here.clients, there.clients)):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    for message, reply in zip(engine.messages, engine.replies, strict=True):
        assert set(message.arrays) == set(NETWORKS[name].broadcast)
        # and one number, FedLap's prior precision
        assert {array.shape for array in message.arrays.values()} <= {(DIM,), (1,)}
        # one array of the parameters' shape each, whatever the number of clients, and sums of numbers
        assert {array.shape for array in reply.sums.values()} <= {(DIM,), (), (1,)}
        assert reply.clients == 3


@pytest.mark.parametrize("name", NETWORKS)
def test_the_server_line_reads_no_clients_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = NETWORKS[name]()
    line, seen = type(method).server, []

    def server(self: NetworkMethod, state: State, *arguments: object) -> object:
        seen.append((dict(state.clients), state.round))
        return line(self, state, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(method), "server", server)
    run(method, InProcess(), 2)
    assert seen == [({}, 0), ({}, 1)]


def test_fedprox_without_a_penalty_is_fedavg() -> None:
    averaged, proximal = run(NETWORKS["fedavg"](), InProcess()), run(FedProx(rho=0.0), InProcess())
    assert torch.equal(averaged.server["mean"], proximal.server["mean"])
    for rho in (-0.1, float("nan"), True):
        with pytest.raises(ValueError, match="rho: expected a number of at least 0, got"):
            FedProx(rho=rho)
