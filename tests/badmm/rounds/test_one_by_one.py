"""Clients that answer one by one are the clients of one population: the same rounds, the same state to go on from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import badmm
from badmm import ClientError, Gaussian
from badmm.families.registry import bind
from badmm.likelihoods import Quadratic
from badmm.rounds.history import SolverState
from badmm.rounds.one_by_one import OneByOne
from badmm.rounds.workers import Workers
from badmm.transports import InProcess

PRIOR = Gaussian(np.zeros(2), 1.0)


def clients(count: int = 4) -> list[Quadratic]:
    rng = np.random.default_rng(3)
    return [Quadratic(np.array([[2.0 + k, c], [c, 1.0]]), rng.normal(size=2)) for k, c in enumerate([0.9] * count)]


def run(deterministic: bool, **options: Any) -> badmm.rounds.history.Result:
    shared: dict[str, Any] = {"family": "diagonal_gaussian", "prior": PRIOR, "tol": 0.0, "workers": 1}
    return badmm.solve(
        options.pop("own", clients()), **shared, **options, transport=InProcess(deterministic=deterministic)
    )


def assert_same(one: SolverState, other: SolverState) -> None:
    for name in ("natural", "duals", "clients", "total", "sent"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert len(ours) == len(theirs), name
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10, err_msg=name)
    assert len(one.mixing_lines) == len(other.mixing_lines)
    for ours, theirs in zip(one.mixing_lines, other.mixing_lines, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_they_are_one_population(participation: float) -> None:
    """Of all clients, whose lines are mixed, and of absent ones, whose last terms are kept."""
    one, other = (run(flag, rounds=6, participation=participation) for flag in (False, True))
    assert one.state.mixing_lines if participation == 1.0 else one.state.sent
    assert_same(one.state, other.state)
    for a, b in zip(one.history, other.history, strict=True):
        assert (a.bytes_up, a.bytes_down, a.mixed, a.events) == (b.bytes_up, b.bytes_down, b.mixed, b.events)
        assert a.gap == pytest.approx(b.gap, rel=1e-6, abs=1e-10)
        assert a.objective == pytest.approx(b.objective, rel=1e-12)
    # what they left is what they go on from
    part = run(True, rounds=3, participation=participation)
    rest = run(True, rounds=6, participation=participation, state=part.state)
    for name in ("natural", "duals", "clients", "sent"):
        for a, b in zip(getattr(rest.state, name), getattr(other.state, name), strict=True):
            np.testing.assert_array_equal(a, b)


def test_they_start_at_their_own_duals() -> None:
    rng = np.random.default_rng(0)
    duals = (rng.normal(size=(4, 2)), rng.uniform(-0.2, 0.2, (4, 2)))
    one, other = (run(flag, rounds=1, duals=duals) for flag in (False, True))
    assert_same(one.state, other.state)


class Broken(Quadratic):
    def expectations(self, posterior: Any) -> Any:
        raise OSError("no disk")


def test_one_that_raises_is_named_with_its_error() -> None:
    own = [*clients(2), Broken(np.eye(2), np.ones(2)), *clients(1)]
    with pytest.raises(ClientError, match=r"^client 2: expectations raised OSError: no disk$") as caught:
        run(True, rounds=2, own=own)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.client == 2


def test_a_rank_without_clients_has_arrays_of_none() -> None:
    family = bind("diagonal_gaussian", PRIOR)
    empty = OneByOne([], Workers(1))
    none = tuple(np.zeros((0, *shape)) for shape in family.shapes)
    empty.start(family.prior_natural, none, none, none)
    assert len(empty) == 0 and empty.errors == {} and empty.lines == []
    for slots in (empty.duals, empty.clients, empty.sent):
        assert [slot.shape for slot in slots] == [(0, 2), (0, 2)]
