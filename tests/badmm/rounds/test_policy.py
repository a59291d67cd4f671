"""Step sizes, the mixing of dual lines, and what the server may see."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from badmm import Gaussian, solve
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression
from badmm.methods.newton import NewtonPolicy
from badmm.rounds.exact_clients import mix
from badmm.rounds.mixing import DualMixing
from badmm.rounds.policy import ALIKE, MARGIN, PATIENCE, Policy, Steps


def test_explicit_values_are_used_as_they_are() -> None:
    policy = Policy(7, 0.03, 0.4, 0.9, mixed_damping=1.0)
    for size in (1.0, 5.0, 0.1):
        assert policy.steps(lambda: 10.0) == Steps(0.03, 0.4, 0.9)
        policy.observe(size)
    assert not policy.safeguarded


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, 0.0, "rho: expected a positive number, got 0.0"),
        (0, "large", "rho: expected \"auto\" or a number, got 'large'"),
        (1, 1.01, "alpha: expected a number in (0, 1], got 1.01"),
        (1, 0.0, "alpha: expected a number in (0, 1], got 0.0"),
        (2, 1.01, "damping: expected a number in (0, 1], got 1.01"),
        (2, True, "damping: expected a number in (0, 1], got True"),
    ],
)
def test_step_sizes_have_bounds(position: int, value: Any, message: str) -> None:
    settings: list[Any] = ["auto"] * 3
    settings[position] = value
    with pytest.raises(ValueError, match="expected") as caught:
        Policy(3, *settings)
    assert str(caught.value) == message
    for fine in (1e-9, 1.0):
        settings[position] = fine
        assert (policy := Policy(3, *settings)) and fine in (policy.rho, policy.alpha, policy.damping)


def test_automatic_values_of_the_first_rounds() -> None:
    """ρ = 1/K and then 1, or what the condition needs with a margin; γ = 1 and, once rounds are short, mixing."""
    policy = Policy(4, "auto", "auto", "auto", mixed_damping=0.7)
    assert policy.steps(lambda: 0.0) == Steps(0.25, 1.0, 1.0) and policy.steps(lambda: 0.5).rho == 0.75
    policy.observe(3.0)
    assert policy.steps(lambda: 0.0) == Steps(1.0, 1.0, 1.0) and policy.steps(lambda: 0.5).rho == 1.0
    assert policy.steps(lambda: 4.0).rho == 6.0
    policy.observe(0.5)
    assert policy.steps(lambda: 0.0) == Steps(1.0, 1.0, 0.7, True) and policy.safeguarded
    fresh = {"damping": 1.0, "size": np.inf, "round": 0.0, "best": np.inf, "waited": 0.0, "plain_rho": 0.0}
    assert Policy(4, "auto", "auto", "auto").state() == fresh


@pytest.mark.parametrize(
    ("alpha", "damping", "mixed", "mixes"),
    [("auto", "auto", 1.0, True), (1.0, "auto", 0.7, True), (0.5, "auto", 1.0, False), (1.0, 1.0, 1.0, False)]
    + [("auto", "auto", 0.0, False)],
)
def test_lines_are_mixed_where_the_server_takes_whole_steps_of_its_own_damping(
    alpha: Any, damping: Any, mixed: float, mixes: bool
) -> None:
    policy = Policy(4, 1.0, alpha, damping, mixed_damping=mixed)
    policy.observe(0.1)
    assert policy.mixes is mixes and policy.steps(lambda: 0.0).mixing is mixes


def test_damping_recovers_and_has_a_floor() -> None:
    policy, seen = Policy(10, 1.0, 1.0, "auto"), []
    for size in (4.0, *(5.0 + i for i in range(7)), *[1.0] * 3):
        policy.observe(size)
        seen.append(policy.steps(lambda: 0.0).damping)
    falling = [0.5**i for i in range(6)]
    assert seen == pytest.approx([*falling, 0.025, 0.025, 0.025 * 1.3, 0.025 * 1.69, 0.025 * 2.197])


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


def test_quadratic_rounds_are_not_mixed_and_weigh_the_others_in_part() -> None:
    policy = Policy(12, "auto", "auto", "auto", mixed_damping=1.0)
    policy.quadratic = True
    for size in (2.0, 0.5, 0.6):
        assert policy.steps(lambda: -0.2) == Steps((ALIKE[0] / 12) ** ALIKE[1], 1.0, 1.0)
        policy.observe(size)
    assert policy.steps(lambda: 0.5).rho == pytest.approx(0.75)
    alone = Policy(1, "auto", "auto", "auto", mixed_damping=1.0)
    alone.quadratic = True
    assert alone.steps(lambda: 0.0).rho == 1.0


def test_the_server_learns_where_losses_see_the_mean_alone() -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60, 3))
    clients = [LogisticRegression(X[part], rng.random(20) < 0.4) for part in np.array_split(np.arange(60), 3)]
    for family, expectation, first in (("full_gaussian", "delta", 1.0), ("full_gaussian", "auto", 1 / 3)):
        run = solve(clients, family=family, prior=Gaussian(np.zeros(3), 1.0), expectation=expectation)  # type: ignore[arg-type]
        assert run.history[0].rho == pytest.approx(first)
        assert any(record.mixed for record in run.history) is (expectation == "auto")
    run = solve(clients, family="diagonal_gaussian", prior=Gaussian(np.zeros(3), 1.0), expectation="delta")
    assert run.history[0].rho == pytest.approx(1 / 3)


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
    target = np.array([1.0, 2.0, 3.0])
    eta, lines = np.zeros(3), []
    mixing = DualMixing(family, 8)
    for _ in range(5):
        line = target + rates * (eta - target)
        lines.append((line[None], np.zeros((1, 3))))
        weights = mixing.weights(family.prior_natural, (line, np.zeros(3)), (line - eta, np.zeros(3)))
        assert weights.sum() == pytest.approx(1.0)
        eta = mixing.mixed(weights)[0]
        # the clients mix their own lines to the same
        assert mix(lines, weights)[0][0] == pytest.approx(eta, abs=1e-12)
    assert eta == pytest.approx(target, abs=1e-9)


ONE = bind("diagonal_gaussian", Gaussian(np.zeros(1), np.ones(1)))


def remembered(mixing: DualMixing, steps: list[tuple[float, float]]) -> np.ndarray:
    """The last weights after rounds with these (Σ G, Σ (G − η)) in the first slot of one coordinate."""
    zero = np.zeros(1)
    for total, change in steps:
        weights = mixing.weights(ONE.prior_natural, (np.array([total]), zero), (np.array([change]), zero))
    return np.asarray(weights)


def test_the_memory_is_of_so_many_earlier_rounds() -> None:
    mixing = DualMixing(ONE, 3)
    assert [len(remembered(mixing, [(0.9**i, 0.9**i)])) for i in range(6)] == [1, 2, 3, 4, 4, 4]
    assert len(mixing.totals) == len(mixing.changes) == 4
    mixing.reset()
    assert len(remembered(mixing, [(1.0, 1.0)])) == 1


def test_directions_that_repeat_are_not_separated() -> None:
    family = bind("diagonal_gaussian", Gaussian(np.zeros(2), np.ones(2)))
    mixing, zero = DualMixing(family, 8), np.zeros(2)
    mixing.restore([(zero, zero)] * 2, [(np.array(change), zero) for change in ([2.0, 1.0], [2.0, 1.0 + 1e-12])])
    weights = mixing.weights(family.prior_natural, (zero, zero), (np.array([1.0, 2.0]), zero))
    # their joint weight is that of one direction; taken apart they would weigh 1e12 and be refused
    assert len(weights) == 3 and np.abs(weights).sum() < 1e4
    assert weights[0] + weights[1] == pytest.approx(0.5, rel=1e-3)


def test_a_mode_that_does_not_shrink_is_refused_and_the_rounds_before_are_forgotten() -> None:
    """Weights of 1/ε amplify rounding: the round's own line is used, and a later round can be mixed again."""
    mixing = DualMixing(ONE, 8)
    assert remembered(mixing, [(0.0, 1.0), (1.0, 1.0 - 1e-7)]).tolist() == [1.0]
    assert len(mixing.totals) == len(mixing.changes) == 1
    assert mixing.totals[0][0] == 1.0 and mixing.changes[0][0] == 1.0 - 1e-7
    assert len(remembered(mixing, [(1.5, 0.5)])) == 2


def test_plain_rounds_take_over_where_mixing_stalls() -> None:
    policy = Policy(4, "auto", "auto", "auto", mixed_damping=1.0)
    policy.observe(0.1)
    for _ in range(PATIENCE + 1):
        assert policy.steps(lambda: 0.0).mixing
        policy.observe(0.1, mixed=True, gap=1.0, primal=1.0, change=1e-3)
    steps = policy.steps(lambda: 0.0)
    assert (steps.mixing, steps.rho, steps.alpha, steps.damping) == (False, 1.0, 0.2, 1.0)
    policy.observe(0.1, gap=1.0, primal=1.0, change=1e-3)
    assert policy.steps(lambda: 0.0).rho == 2.0
    policy.observe(0.1, gap=1.0, primal=1.0, change=1e-3)
    assert policy.steps(lambda: 0.0).rho == 4.0
    policy.observe(0.1, gap=1.0, primal=1.0, change=0.1)  # 4 · 0.1 is within a factor of 3
    assert policy.steps(lambda: 0.0).rho == 4.0
    policy.observe(0.1, gap=1.0, primal=1e-3, change=1.0)
    assert policy.steps(lambda: 0.0).rho == 2.0
    policy.observe(0.1, gap=1.0, primal=1e-3, change=1.0)
    assert policy.steps(lambda: 0.0).rho == 1.0
    assert policy.steps(lambda: 4.0).rho == 6.0
    twin = Policy(4, "auto", "auto", "auto", mixed_damping=1.0)
    twin.restore(policy.state())
    assert twin.steps(lambda: 0.0) == policy.steps(lambda: 0.0)


def test_lines_are_mixed_once_a_round_moves_less_than_the_length_of_lambda() -> None:
    policy = Policy(4, "auto", "auto", "auto", mixed_damping=0.7)
    for size, mixing in ((2.0, False), (1.0, False), (0.999, True), (1.5, False)):
        policy.observe(size)
        steps = policy.steps(lambda: 0.0)
        assert steps.mixing == mixing and (steps.damping == 0.7) == mixing


def test_mixing_goes_on_while_the_gap_halves() -> None:
    policy = Policy(4, "auto", "auto", "auto", mixed_damping=1.0)
    policy.observe(0.1)
    for i in range(5 * PATIENCE):
        policy.observe(0.1, mixed=True, gap=0.9**i)
    assert policy.steps(lambda: 0.0).mixing


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


def rho_of(policy: Policy, required: float) -> float:
    return policy.steps(lambda: required).rho


def test_penalties_up_to_what_is_enough_lead_to_the_same_step_sizes() -> None:
    """For every way to choose ρ, before and within a round: whatever the condition needs below it, ρ is the same."""
    for quadratic in (None, False, True):
        for played in (0, 1, 5):
            policy = Policy(20, "auto", "auto", "auto", mixed_damping=1.0)
            for index in range(played):
                policy.observe(1.0 / (index + 1))
            policy.quadratic = quadratic
            enough = policy.enough(playing=False)
            sizes = {rho_of(policy, need) for need in (-np.inf, 0.0, 0.5 * enough, enough)}
            assert len(sizes) == 1 and rho_of(policy, 1.1 * enough + 1.0) > max(sizes)
    stalled = Policy(2, "auto", "auto", "auto", mixed_damping=1.0)
    for _ in range(2 + PATIENCE):
        stalled.observe(0.5, mixed=True, gap=1.0)
    enough = stalled.enough(playing=True)
    stalled.observe(0.5, primal=0.0, change=1.0)  # plain rounds halve ρ
    assert rho_of(stalled, enough) == rho_of(stalled, 0.0) == 0.5
    assert Policy(3, 0.6, "auto", "auto").enough(playing=True) == pytest.approx(0.6 / MARGIN)
    assert NewtonPolicy(3, "auto").enough(playing=True) == np.inf
