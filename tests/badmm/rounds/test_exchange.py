"""What the server sees of the clients, how many threads serve them, and clients that are absent."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import badmm
from badmm import Gaussian, SolverState
from badmm.likelihoods import LogisticRegression, Quadratic
from badmm.rounds import exact_clients
from badmm.rounds.loop import participants
from badmm.rounds.workers import Workers
from badmm.transports import InProcess
from badmm.transports.messages import Message, Reply

D, K = 3, 8


def clients() -> list[LogisticRegression]:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(K):
        X = rng.normal(size=(30, D)) + rng.normal(size=D)
        found.append(LogisticRegression(X, (rng.random(30) < 1 / (1 + np.exp(-X @ [1.0, -1.0, 0.5]))).astype(int)))
    return found


SHARED: dict[str, Any] = {"family": "full_gaussian", "prior": Gaussian(np.zeros(D), 1.0)}


class Spy(InProcess):
    """Keeps every reply and message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.replies: list[Reply] = []

    def broadcast(self, message: Message) -> Message:
        self.messages.append(message)
        return message

    def reduce(self, reply: Reply) -> Reply:
        self.replies.append(reply)
        return reply


def test_one_natural_parameter_crosses_each_way_and_the_rest_are_numbers() -> None:
    spy = Spy()
    result = badmm.solve(clients(), **SHARED, transport=spy)
    assert result.converged
    size = D + D * (D + 1) // 2
    for i in range(1, result.rounds + 1):
        # the first reply is the number of clients, the first message measures the start
        step, measure = spy.messages[2 * i - 1], spy.messages[2 * i]
        assert step.kind == "step" and not step.arrays and measure.kind == "measure"
        assert measure.arrays["natural"].shape == (size,)
        assert set(spy.replies[2 * i].sums) == {"contribution"} and not spy.replies[2 * i + 1].sums
        assert spy.replies[2 * i].sums["contribution"].shape == (size,)
    up = sum(reply.nbytes for reply in spy.replies[1:]) * K
    down = sum(message.nbytes for message in spy.messages) * K
    assert (result.history[-1].bytes_up, result.history[-1].bytes_down) == (up, down)


@pytest.mark.parametrize("family", ["diagonal_gaussian", "full_gaussian"])
def test_workers_change_no_bit(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_clients, "WORTH_A_THREAD", 0.0)  # threads however short the work
    results = [badmm.solve(clients(), **(SHARED | {"family": family}), workers=count) for count in (1, 2, 5)]
    for other in results[1:]:
        assert other.rounds == results[0].rounds
        for mine, theirs in zip(results[0].natural + results[0].duals, other.natural + other.duals, strict=True):
            assert np.array_equal(mine, theirs)


def test_workers_share_the_work_and_keep_its_order() -> None:
    barrier = threading.Barrier(2)

    def work(item: int) -> tuple[int, str]:
        barrier.wait(30)  # ends only where two work at once
        return item * item, threading.current_thread().name

    with Workers(2) as pool:
        found = pool.map(work, [1, 2, 3, 4])
        assert [square for square, _ in found] == [1, 4, 9, 16]
        assert len({name for _, name in found}) == 2
        with pytest.raises(ZeroDivisionError):
            pool.map(lambda item: 1 // item, [1, 0, 2])
    with pytest.raises(ValueError, match="workers: expected a positive integer, got 0"):
        Workers(0)
    with pytest.raises(ValueError, match="workers: expected a positive integer, got 0"):
        badmm.solve(clients(), **SHARED, workers=0)


def test_participants_are_drawn_from_the_rounds_stream() -> None:
    drawn = [participants(10, index, 0.3, 1) for index in range(200)]
    assert all(len(set(members)) == 3 and members == sorted(members) for members in drawn)
    assert drawn == [participants(10, index, 0.3, 1) for index in range(200)]
    assert drawn != [participants(10, index, 0.3, 2) for index in range(200)]
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts.min() > 30 and counts.max() < 95
    assert participants(10, 5, 1.0, 0) == list(range(10)) and len(participants(10, 5, 0.01, 0)) == 1


@pytest.mark.parametrize("steps", [{}, {"rho": 1.0, "alpha": 0.2, "damping": 1.0}], ids=["auto", "explicit"])
def test_absent_clients_keep_their_terms_and_the_fixed_point_is_the_same(steps: dict[str, Any]) -> None:
    everyone = badmm.solve(clients(), **SHARED, tol=1e-11)
    states: list[SolverState] = []
    some = badmm.solve(
        clients(), **SHARED, **steps, participation=0.5, rounds=400, tol=1e-9, seed=3, callbacks=[states.append]
    )
    for mine, theirs in zip(everyone.natural, some.natural, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-6, abs=1e-6)
    for before, after in pairwise(states[:20]):
        asked = participants(K, before.round, 0.5, 3)
        absent = [k for k in range(K) if k not in asked]
        for slot in range(2):
            assert np.array_equal(before.clients[slot][absent], after.clients[slot][absent])
            assert np.array_equal(before.duals[slot][absent], after.duals[slot][absent])
        # the running sum is Σ c_k over all clients, present or not
        alpha = after.record.alpha
        for slot in range(2):
            total = ((1 - alpha) / K * after.clients[slot] - alpha * after.duals[slot]).sum(axis=0)
            assert after.total[slot] == pytest.approx(total, rel=1e-9, abs=1e-9)


def test_a_run_with_absent_clients_resumes_bit_for_bit() -> None:
    shared = SHARED | {"participation": 0.4, "seed": 1, "tol": 0.0}
    whole = badmm.solve(clients(), **shared, rounds=9)
    half = badmm.solve(clients(), **shared, rounds=4)
    rest = badmm.solve(clients(), **shared, rounds=9, state=SolverState.from_arrays(*half.state.to_arrays()))
    for mine, theirs in zip(whole.natural + whole.duals, rest.natural + rest.duals, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-12, abs=1e-12)
    assert rest.history[-1].bytes_up == whole.history[-1].bytes_up


def test_the_tolerance_of_clients_falls_with_the_gap() -> None:
    """A handful of evaluations a client, and the same solution as with clients solved to rounding."""
    loose, exact = badmm.solve(clients(), **SHARED), badmm.solve(clients(), **SHARED, client_tol=1e-13)
    assert loose.rounds <= exact.rounds + 1
    assert sum(r.evaluations for r in loose.history) < 0.7 * sum(r.evaluations for r in exact.history)
    for mine, theirs in zip(exact.natural, loose.natural, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-7, abs=1e-7)


def test_the_gap_is_in_posterior_standard_deviations() -> None:
    """Free of the parameters' units, and √2 times the root of the mean KL where it is small."""
    found = []
    for unit in (1.0, 1e3):
        states: list[SolverState] = []
        scaled = [LogisticRegression(client.X * unit, client.y) for client in clients()]
        prior = Gaussian(np.zeros(D), unit**2)
        badmm.solve(scaled, family="full_gaussian", prior=prior, rounds=6, tol=0.0, callbacks=[states.append])
        found.append([state.record.gap for state in states])
        last = states[-1]
        assert last.family is not None
        kl = [last.family.kl(tuple(slot[k] for slot in last.clients), last.natural) for k in range(K)]
        assert last.gap == pytest.approx(np.sqrt(2 * np.mean(kl)), rel=0.05)
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_client_of_one_coordinate_is_not_hidden_by_another() -> None:
    """A prior that fixes one coefficient: the others are as near the solution as without it."""
    fixed = Gaussian(np.array([1.0, 0.0, 0.0]), np.diag([1e12, 1.0, 1.0]))
    result = badmm.solve(clients(), family="full_gaussian", prior=fixed)
    exact = badmm.solve(clients(), family="full_gaussian", prior=fixed, tol=1e-10, client_tol=1e-11, rounds=40)
    assert result.converged
    q, p = result.posterior, exact.posterior
    assert isinstance(q, Gaussian) and isinstance(p, Gaussian)
    assert np.abs((q.mean - p.mean) / np.sqrt(p.variance)).max() < 1e-6


def test_quadratic_clients_take_no_evaluations() -> None:
    result = badmm.solve([Quadratic(np.eye(2), np.ones(2))] * 3, family="full_gaussian", prior=Gaussian(np.zeros(2), 1))
    assert result.rounds <= 2 and all(record.evaluations == 0 for record in result.history)


def linear_clients(seed: int) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """Six clients whose problems are solved at once, and the pooled posterior's precision under a unit prior."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    return [badmm.likelihoods.LinearRegression(X[i::6], y[i::6], 1.0) for i in range(6)], X.T @ X + np.eye(3)


PARTIAL: dict[str, Any] = {
    "family": "full_gaussian",
    "prior": Gaussian(np.zeros(3), 1.0),
    "participation": 0.34,
    "tol": 1e-10,
}


def test_agreement_of_those_who_took_part_is_not_convergence() -> None:
    members, precision = linear_clients(2)
    states: list[Any] = []
    badmm.solve(members, **PARTIAL, method="pvi", seed=2, rounds=40, callbacks=[states.append])
    first = next(state for state in states if state.gap <= PARTIAL["tol"])
    assert np.abs(first.posterior.precision - precision).max() > 1e-4
    assert len(states) > first.round


@pytest.mark.parametrize("method", ["bayes_admm", "newton"])
@pytest.mark.parametrize("seed", range(3))
def test_converged_with_absent_clients_means_converged(method: str, seed: int) -> None:
    members, precision = linear_clients(seed)
    result = badmm.solve(members, **PARTIAL, method=method, seed=seed, rounds=100)
    assert result.converged and isinstance(result.posterior, Gaussian)
    np.testing.assert_allclose(result.posterior.precision, precision, rtol=1e-9)
