"""What exact clients and networks have in common: absence, failures, deadlines, and the same round on several ranks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import badmm
from badmm import ClientError, Gaussian
from badmm.clients.federation import ClientData
from badmm.likelihoods import LogisticRegression
from badmm.methods import NETWORKS
from badmm.methods.admm import AdmmMethod
from badmm.methods.bayes_admm import IvonADMM
from badmm.methods.bregman_admm import BregmanADMM
from badmm.methods.fedlap import FedLap
from badmm.methods.pvi import PVI
from badmm.rounds import network_round as rounds
from badmm.rounds.loop import participants
from badmm.rounds.network_method import State
from badmm.transports import InProcess, Message, Reply, combine
from tests.badmm.rounds.federated_problems import DIM, SIZES, federation, one_round, with_data

K = len(SIZES)
METHODS: dict[str, AdmmMethod] = {
    "ivon_admm": IvonADMM(precision=2.0, rho=0.5, temperature=4.0, hess_init=0.1),
    "ivon_admm by its own steps": IvonADMM(precision=2.0, alpha=0.3, temperature=4.0, hess_init=0.1, mean_step="ivon"),
    "bregman_admm": BregmanADMM(initial_sd=0.7, temperature=20.0),
    "pvi": PVI(damping=0.5, temperature=4.0),
    "fedlap": FedLap(precision=15.0, damping=0.5),
}


class Rank(InProcess):
    """One of several threads that play processes: replies meet at a barrier and are combined in the order of ranks."""

    def __init__(self, rank: int, size: int, board: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.board, self.barrier = rank, size, board, barrier

    def _all(self, value: Any) -> list[Any]:
        self.board[self.rank] = value
        self.barrier.wait(60)
        values = list(self.board)
        self.barrier.wait(60)
        return values

    def broadcast(self, message: Message) -> Message:
        first: Message = self._all(message)[0]
        return first

    def reduce(self, reply: Reply) -> Reply:
        return combine(self._all(reply))


def on_ranks(size: int, work: Callable[[Rank], Any]) -> list[Any]:
    """work(rank) of every rank at once: what it returned or raised."""
    board: list[Any] = [None] * size
    found: list[Any] = [None] * size
    barrier = threading.Barrier(size)

    def run(rank: int) -> None:
        try:
            found[rank] = work(Rank(rank, size, board, barrier))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def begin(method: Any) -> tuple[Any, State]:
    fed = federation("softmax", epochs=2, batch_size=4, lr=0.05)
    return fed, method.start(fed, torch.full((DIM,), 0.1, dtype=torch.float64))


def play(method: AdmmMethod, count: int, **options: Any) -> State:
    fed, state = begin(method)
    for _ in range(count):
        rounds.play(method, fed, state, lr=0.05, **options)
    return state


def assert_line(method: AdmmMethod, fed: Any, state: State) -> None:
    """λ_g = (1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k) over all clients, absent or not, as the paper writes it.

    The mean has the weights w_k of the penalties ρ_k = ρ w_k.
    """
    weights = method.penalties(fed, torch.arange(K))
    alpha = method.steps(state, fed).alpha
    prior = method.member(torch.zeros(DIM, dtype=torch.float64), method.prior_precision(fed, state.server["initial"]))
    for name, first in zip(method.slots, prior, strict=True):
        duals = state.clients[f"dual_{name}"].sum(dim=0)
        expected = (1 - alpha) * (weights * state.clients[name]).mean(dim=0) + alpha * (first - duals)
        torch.testing.assert_close(state.server[name], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_absent_clients_stay_in_the_server_line(name: str) -> None:
    """Whatever α is: who is not asked keeps λ_k and η_k, and both count."""
    method = METHODS[name]
    fed, state = begin(method)
    for index in range(6):
        before = {key: rows.clone() for key, rows in state.clients.items()}
        outcome = rounds.play(method, fed, state, lr=0.05, fraction=0.5)
        assert outcome.asked == outcome.used == participants(K, index, 0.5, fed.seed)
        absent = [client for client in range(K) if client not in outcome.asked]
        for key, rows in state.clients.items():
            assert torch.equal(rows[absent], before[key][absent]), key
        assert "coordinates_damped" not in outcome.events
        assert_line(method, fed, state)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_networks_on_several_ranks_are_those_in_one_process(name: str, fraction: float) -> None:
    """Each rank trains its own clients; what differs is the order of sums."""
    method = METHODS[name]
    alone = play(method, 4, fraction=fraction)
    for size in (2, 3):
        found = on_ranks(size, lambda rank: play(method, 4, fraction=fraction, transport=rank))
        for rank, state in enumerate(found):
            for key, tensor in alone.server.items():
                torch.testing.assert_close(state.server[key], tensor, rtol=1e-9, atol=1e-11)
            own = slice(K * rank // size, K * (rank + 1) // size)
            for key, tensor in alone.clients.items():
                torch.testing.assert_close(state.clients[key][own], tensor[own], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["ivon_admm", "pvi"])
def test_a_client_that_is_left_out_counts_as_absent(name: str) -> None:
    """It keeps its rows, and the server line is that of all clients."""
    method = METHODS[name]
    fed, state = begin(method)
    rounds.play(method, fed, state, lr=0.05)
    inputs = fed.data.inputs.clone()
    inputs[fed.data.rows[2]] = float("nan")
    before = {key: rows[2].clone() for key, rows in state.clients.items()}
    outcome = rounds.play(method, with_data(fed, ClientData, inputs), state, lr=0.05)
    assert outcome.used == [0, 1, 3] and list(outcome.excluded) == [2]
    assert all(torch.equal(state.clients[key][2], row) for key, row in before.items())
    assert_line(method, fed, state)


# ---- exact clients ---------------------------------------------------------------------------------------------------


class Slow(LogisticRegression):
    """Takes more than a second."""

    def expectations(self, posterior: Any) -> Any:
        time.sleep(1.2)
        return super().expectations(posterior)


class Broken(LogisticRegression):
    """Never answers."""

    def expectations(self, posterior: Any) -> Any:
        raise OSError("no disk")


def clients(kind: type[LogisticRegression], which: int) -> list[LogisticRegression]:
    rng = np.random.default_rng(1)
    kinds = [kind if k == which else LogisticRegression for k in range(4)]
    return [one(rng.normal(size=(12, 2)), rng.integers(0, 2, 12)) for one in kinds]


SHARED: dict[str, Any] = {"family": "full_gaussian", "prior": Gaussian(np.zeros(2), 1.0), "rounds": 2, "workers": 1}


@pytest.mark.parametrize("which", [0, 3])
def test_a_client_that_raises_ends_the_run_on_every_rank(which: int) -> None:
    """No rank waits for one that has raised, and all name the client."""
    own = clients(Broken, which)
    parts = (own[:2], own[2:3], own[3:])
    for error in on_ranks(3, lambda rank: badmm.solve(parts[rank.rank], **SHARED, transport=rank)):
        assert isinstance(error, ClientError) and error.client == which
        assert str(error) == f"client {which}: expectations raised OSError: no disk"
    with pytest.raises(ClientError, match=f"client {which}: expectations raised OSError") as caught:
        badmm.solve(own, **SHARED)
    assert isinstance(caught.value.__cause__, OSError)


def within(seconds: float) -> InProcess:
    transport = InProcess()
    transport.deadline = seconds
    return transport


def test_an_exact_client_that_misses_the_deadline_is_named() -> None:
    quick = clients(LogisticRegression, 2)
    assert badmm.solve(quick, **SHARED, transport=within(60.0)).rounds == 2
    with pytest.raises(ClientError, match="client 2: expected an answer within the deadline of 1 s, got none after 1"):
        badmm.solve(clients(Slow, 2), **SHARED, transport=within(1.0))


@pytest.mark.parametrize("name", ["fedavg", "ivon_admm"])
def test_networks_that_miss_the_deadline_are_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one stack after the other, who follows the slow one is late as well."""
    method, fed = NETWORKS[name](), federation("squares", epochs=1, lr=0.05)
    one_round(method, fed, largest=1)  # compiles
    work = type(method).client

    def client(self: Any, state: State, task: Any) -> Any:
        time.sleep(3.0 if 2 in task.members else 0.0)
        return work(self, state, task)

    monkeypatch.setattr(type(method), "client", client)
    state = method.start(fed, torch.full((DIM,), 0.1, dtype=torch.float64))
    before = {key: rows.clone() for key, rows in state.clients.items()}
    outcome = rounds.play(method, fed, state, lr=0.05, largest=1, transport=within(2.5))
    assert outcome.used == [0, 1] and list(outcome.excluded) == [2, 3]
    assert outcome.excluded[2].startswith("expected an answer within the deadline of 2.5 s, got none after 3")
    for key, rows in state.clients.items():
        assert torch.equal(rows[2:], before[key][2:])
