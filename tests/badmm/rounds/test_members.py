"""Clients that leave a run for good, and clients that join one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import badmm
from badmm.likelihoods import LogisticRegression, Quadratic
from badmm.transports import InProcess
from badmm.transports.messages import Message

D = 3


def quadratics(count: int = 6) -> list[Quadratic]:
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(count, D, D))
    return [Quadratic(root @ root.T + np.eye(D), rng.normal(size=D)) for root in roots]


def logistic(count: int = 6, rows: int = 60) -> list[LogisticRegression]:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(count):
        X = rng.normal(size=(rows, D))
        found.append(LogisticRegression(X, (rng.random(rows) < 1 / (1 + np.exp(-X @ [1.0, -0.7, 0.4]))).astype(int)))
    return found


SHARED: dict[str, Any] = {"family": "full_gaussian", "prior": badmm.Gaussian(np.zeros(D), 1.0), "workers": 1}
NEWTON: dict[str, Any] = {"method": "newton", "expectation": "delta"}


def apart(a: badmm.Result | badmm.SolverState, b: badmm.Result) -> float:
    pairs = zip(a.natural, b.natural, strict=True)
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)


def test_leaving_is_one_subtraction_and_exact_where_gradients_are_constant() -> None:
    clients = quadratics()
    states: list[badmm.SolverState] = []
    whole = badmm.solve(clients, **SHARED)
    state = whole.state.without([2])
    found = badmm.solve([*clients[:2], *clients[3:]], **SHARED, state=state, callbacks=[states.append])
    never = badmm.solve([*clients[:2], *clients[3:]], **SHARED, tol=1e-12)
    # where the further rounds begin: λ_g + η_2
    subtracted = replace(whole.state, natural=tuple(g + e[2] for g, e in zip(whole.natural, whole.duals, strict=True)))
    assert apart(subtracted, never) < 1e-12
    assert found.converged and found.rounds == whole.rounds + 1 and apart(found, never) < 1e-12
    assert len(found.duals[0]) == 5 and len(found.history) == 1


@pytest.mark.parametrize("gone", [[0], [5], [1, 4]])
def test_a_client_that_left_was_never_there(gone: list[int]) -> None:
    clients = logistic()
    rest = [client for k, client in enumerate(clients) if k not in gone]
    whole = badmm.solve(clients, **SHARED)
    found = badmm.solve(rest, **SHARED, state=whole.state.without(gone), tol=1e-9)
    never = badmm.solve(rest, **SHARED, tol=1e-11)
    assert found.converged and apart(found, never) < 1e-8
    assert found.rounds - whole.rounds < never.rounds


@pytest.mark.parametrize("client", range(6))
def test_newton_is_there_in_three_rounds(client: int) -> None:
    clients = logistic()
    rest = [*clients[:client], *clients[client + 1 :]]
    whole = badmm.solve(clients, **SHARED, **NEWTON)
    found = badmm.solve(rest, **SHARED, **NEWTON, state=whole.state.without([client]), rounds=whole.rounds + 3, tol=0.0)
    never = badmm.solve(rest, **SHARED, **NEWTON, tol=1e-12)
    assert apart(found, never) < 1e-8


def test_a_client_that_joins_was_always_there() -> None:
    clients = logistic()
    before = badmm.solve(clients[:4], **SHARED)
    found = badmm.solve(clients, **SHARED, state=before.state.joined_by(2), tol=1e-9)
    always = badmm.solve(clients, **SHARED, tol=1e-11)
    assert found.converged and apart(found, always) < 1e-8
    # who joins changes nothing before it has answered
    first = before.state.joined_by(2)
    assert all(np.array_equal(a, b) for a, b in zip(first.natural, before.natural, strict=True))
    assert all((slot[4:] == 0).all() for slot in first.duals)


@pytest.mark.parametrize("steps", [{"participation": 0.5}, {"per_round": 2}, {"alpha": 0.3, "rho": 1.0}])
def test_leaving_holds_with_absent_clients_and_every_step(steps: dict[str, Any]) -> None:
    clients = quadratics()
    whole = badmm.solve(clients, **SHARED, **steps, rounds=300, tol=1e-11)
    found = badmm.solve(clients[1:], **SHARED, **steps, rounds=900, tol=1e-11, state=whole.state.without([0]))
    never = badmm.solve(clients[1:], **SHARED, tol=1e-12)
    assert found.converged and apart(found, never) < 1e-8


def test_nothing_of_who_left_is_sent_or_kept() -> None:
    clients = quadratics()
    whole = badmm.solve(clients, **SHARED)
    state = whole.state.without([2])
    assert state.total == () and state.sent == () and not any((state.mixing_lines, state.mixing_totals, state.records))

    class Spy(InProcess):
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[Message] = []

        def broadcast(self, message: Message) -> Message:
            self.messages.append(message)
            return message

    spy, never = Spy(), badmm.solve([*clients[:2], *clients[3:]], **SHARED)
    badmm.solve([*clients[:2], *clients[3:]], **SHARED, state=state, transport=spy)
    assert [message.kind for message in spy.messages[:2]] == ["contribute", "measure"]
    sent = spy.messages[1].arrays["natural"]
    assert sent[:D] == pytest.approx(never.natural[0], rel=1e-12, abs=1e-12)


def test_who_is_meant_has_to_be_there() -> None:
    state = badmm.solve(quadratics(), **SHARED).state
    with pytest.raises(ValueError, match=r"clients: expected indices from 0 to 5, got \[6\]"):
        state.without([6])
    for bad, text in (
        ({"per_round": 0}, "per_round: expected a positive integer, got 0"),
        ({"per_round": 7}, "per_round: expected at most 6 clients, got 7"),
        ({"per_round": 2, "participation": 0.5}, "per_round: expected no participation beside it, got 0.5"),
    ):
        with pytest.raises(ValueError, match=text):
            badmm.solve(quadratics(), **SHARED, **bad)
