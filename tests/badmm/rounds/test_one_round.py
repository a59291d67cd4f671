"""The one-round theorem on whole runs, and that the checks of it can fail."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from badmm.families import registry
from validation.check import Check
from validation.runs import one_round

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("group", "least"),
    [(partial(one_round.one_round_checks, 8), 8), (one_round.factor_checks, 60), (one_round.any_start_checks, 3)],
    ids=["one round", "factors", "any start"],
)
def test_checks_pass(group: Callable[[], Iterator[Check]], least: int) -> None:
    """`python -m validation` runs the same with more random quadratics; the corners are the first four."""
    found = list(group())
    assert len(found) >= least
    assert [c for c in found if not c.passed] == []
    assert all(c.tolerance <= 1e-12 for c in found)


def test_no_conjugate_family_is_overlooked() -> None:
    names = [name for name in registry.names() if not registry.takes_expectations(name)]
    assert {"gaussian_gamma", "poisson", "gamma"} <= set(names)
    found = {name: one_round.conjugate_problem(name) for name in names}
    assert all(problem.family == name and problem.num_clients > 1 for name, problem in found.items())
    assert set(names) <= set(one_round.FAMILIES)


def test_the_check_of_unknown_noise_sees_each_slot() -> None:
    problem = one_round.regression_problem(1)
    result = problem.solve(rounds=1)
    assert one_round.backward_error(problem, result) < 1e-12
    for slot in range(4):
        gradients = tuple(g * (1 + 1e-6 * (k == slot)) for k, g in enumerate(problem.gradients))
        assert one_round.backward_error(replace(problem, gradients=gradients), result) > 1e-8


def test_a_start_off_the_prior_needs_more_rounds() -> None:
    observed, predicted, rounds = one_round.broken_start()
    assert observed == pytest.approx(predicted, rel=1e-12)
    assert observed > 0.01
    # the error halves a round: from about 0.1 to 1e-12
    assert 35 <= rounds <= 42
    assert one_round.broken_start_check().passed


def test_problems_cover_the_range_asked_for() -> None:
    problems = [one_round.quadratic_problem(seed) for seed in range(60)]
    sizes = [(p.num_clients, len(p.prior.mean)) for p in problems]
    assert {(50, 200), (1, 200), (50, 1), (1, 1)} <= set(sizes)
    assert len({K for K, _ in sizes}) > 20
    conditions = [np.linalg.cond(p.solution[1]) for p in problems]
    assert 9e6 < max(conditions) < 1.1e7
    assert sorted(conditions)[30] > 100


@pytest.mark.parametrize("problem", one_round.small_problems(), ids=["quadratic", "diabetes", "gamma"])
def test_one_round_is_not_exact_at_another_penalty(problem: one_round.LinearProblem) -> None:
    rho = 2.0 / problem.num_clients
    result = problem.solve(rho=rho, alpha=1 / (1 + rho * problem.num_clients), damping=1.0, rounds=1)
    assert one_round.backward_error(problem, result) > 0.01
    # and the closed form for the wrong step sizes is not what the run does
    assert one_round.factor_error(problem, rho, 1.0) < 1e-12
    wrong = (rho * problem.num_clients - 0.9) / (rho * problem.num_clients + 1) - 1 / 3
    assert abs(wrong) > 1e-2


def test_backward_error_sees_each_part() -> None:
    problem = one_round.quadratic_problem(9)
    result = problem.solve(rounds=1)
    assert one_round.backward_error(problem, result) < 1e-14
    # the solution of other data is off by what the data are off by
    scaled = one_round.gaussian_problem(
        list(-problem.gradients[1] * (1 + 1e-6)),
        list(-problem.gradients[0]),
        problem.prior.mean,
        problem.prior.precision,
    )
    error = one_round.backward_error(scaled, result)
    assert 1e-8 < error < 1e-5
