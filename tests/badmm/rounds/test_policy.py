"""Step sizes, the mixing of dual lines, and what the server may see."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from badmm import Gaussian, solve
from badmm.families.family import Natural
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression
from badmm.rounds.mixing import DualMixing
from badmm.rounds.policy import Policy, Steps


def test_explicit_values_are_used_as_they_are() -> None:
    policy = Policy(7, 0.03, 0.4, 0.9, mixed_damping=1.0)
    for size in (1.0, 5.0, 0.1):
        assert policy.steps(lambda: 10.0) == Steps(0.03, 0.4, 0.9)
        policy.observe(size)
    assert not policy.safeguarded
    assert policy.scalars_up == policy.scalars_down == 0


@given(st.integers(1, 60), st.lists(st.tuples(st.floats(1e-9, 1e3), st.floats(-5.0, 50.0)), min_size=1, max_size=30))
def test_automatic_values_meet_the_condition_and_their_bounds(clients: int, rounds: list[tuple[float, float]]) -> None:
    policy = Policy(clients, "auto", "auto", "auto", mixed_damping=0.7)
    for i, (size, need) in enumerate(rounds):
        steps = policy.steps(lambda need=need: need)  # type: ignore[misc]
        assert steps.rho > need and steps.rho >= (1.0 if i else 1 / clients)
        assert steps.alpha == 1.0
        assert 1 / (4 * clients) <= steps.damping <= 1.0
        assert not (steps.mixing and i == 0)
        policy.observe(size)
    twin = Policy(clients, "auto", "auto", "auto", mixed_damping=0.7)
    twin.restore(policy.state())
    assert twin.steps(lambda: 0.3) == policy.steps(lambda: 0.3)


def test_damping_is_halved_where_changes_grow() -> None:
    policy = Policy(10, 1.0, 1.0, "auto")
    seen = []
    for size in (4.0, 6.0, 9.0, 2.0, 1.5):
        seen.append(policy.steps(lambda: 0.0).damping)
        policy.observe(size)
    assert seen == pytest.approx([1.0, 1.0, 0.5, 0.25, 0.325])


def test_mixing_solves_a_linear_map_in_as_many_rounds_as_it_has_modes() -> None:
    family = bind("diagonal_gaussian", Gaussian(np.zeros(3), np.ones(3)))
    rates = np.array([0.9, -0.8, 0.5])
    target = np.array([[1.0, 2.0, 3.0]])
    eta: Natural = (np.zeros((1, 3)), np.zeros((1, 3)))
    mixing = DualMixing(family, 8)
    for _ in range(5):
        line = (target + rates * (eta[0] - target), np.zeros((1, 3)))
        eta = mixing.mix(mixing.weights(family.prior_natural, eta, line))
    assert eta[0] == pytest.approx(target, abs=1e-9)


def test_mixing_uses_sums_alone() -> None:
    family = bind("full_gaussian", Gaussian(np.zeros(2), 1.0))
    rng = np.random.default_rng(0)
    a, b = DualMixing(family, 4), DualMixing(family, 4)
    for _ in range(4):
        old, new = ((rng.normal(size=(5, 2)), np.stack([np.diag(rng.random(2)) for _ in range(5)])) for _ in range(2))
        order = rng.permutation(5)
        first = a.weights(family.prior_natural, old, new)
        # other clients' duals, the same sums
        second = b.weights(family.prior_natural, tuple(s[order] for s in old), tuple(s[order] for s in new))
        assert first == pytest.approx(second, rel=1e-9)
        assert first.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
def test_defaults_need_fewer_rounds_than_pvi_and_never_leave_the_condition(family: str) -> None:
    rng = np.random.default_rng(1)
    theta, clients = rng.normal(size=5) * 2, []
    for _ in range(12):
        X = rng.normal(size=(8, 5)) @ np.diag([1, 1, 2, 2, 3.0]) + rng.normal(size=5)
        clients.append(LogisticRegression(X, (X @ theta + rng.logistic(size=8) > 0).astype(int)))
    shared: dict[str, Any] = {"family": family, "prior": Gaussian(np.zeros(5), 1.0), "tol": 1e-8, "rounds": 200}
    ours, pvi = solve(clients, **shared), solve(clients, method="pvi", **shared)
    assert ours.converged and ours.rounds < pvi.rounds
    assert min(record.condition_margin for record in ours.history) > 0
    assert not any("violated" in event for record in ours.history for event in record.events)
