"""Convex client problems that are far from their start: wide priors, columns of any unit, sites without events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from badmm import Gaussian, LostClientError, solve
from badmm.clients.exact import ClientSolution, solve_client
from badmm.clients.laplace import laplace
from badmm.clients.newton import newton
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.clients.tolerance import Tolerance
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression, PoissonRegression

RNG = np.random.default_rng(5)
N = 60
AGE = RNG.uniform(20, 80, N)
NOISE = RNG.normal(size=N)
CASE = RNG.random(N)
DESIGNS = {
    "age in years": np.column_stack([np.ones(N), AGE]),
    "age in days": np.column_stack([np.ones(N), 365.0 * AGE]),
    "calendar years": np.column_stack([np.ones(N), 1960.0 + AGE]),
    "a column of 1e8": np.column_stack([np.ones(N), NOISE, 1e8 * AGE]),
    "a column of 1e-8": np.column_stack([np.ones(N), 1e-8 * NOISE]),
    "more columns than rows": RNG.normal(size=(10, 20)),
}
LIKELIHOODS: dict[str, Callable[[np.ndarray], Any]] = {
    "logistic": lambda X: LogisticRegression(X, CASE[: len(X)] < 0.4),
    "separated": lambda X: LogisticRegression(X, X[:, -1] > np.median(X[:, -1])),
    "counts": lambda X: PoissonRegression(X, np.floor(6 * CASE[: len(X)])),
}


def problem_of(client: Any, family: str, precision: Any, rho: float = 1.0) -> ClientProblem:
    server = bind(family, Gaussian(np.zeros(client.dim), precision))
    zero = tuple(np.zeros(shape) for shape in server.shapes)
    return ClientProblem(BoundClient(0, client, server, 1.0), server.prior_natural, zero, rho)


def solved(problem: ClientProblem, evaluations: int = 400) -> ClientSolution:
    return solve_client(problem, Tolerance(1e-10, max_evaluations=evaluations))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
def test_a_weak_prior_and_any_units_are_solved(family: str, design: str, likelihood: str) -> None:
    problem = problem_of(LIKELIHOODS[likelihood](DESIGNS[design]), family, 1e-4, 0.25)
    solution = solved(problem)
    # the residual may stand at the rounding floor of a badly scaled precision, but nothing is left to gain
    assert solution.inexact == 0.0
    assert solution.residual < 1e-3
    at = problem.evaluate(solution.natural)
    best = problem.objective(at)
    for seed in range(6):
        step = 0.05 * np.random.default_rng(seed).normal(size=len(at.natural[0])) / np.sqrt(at.posterior.variance)
        moved = problem.try_evaluate(problem.family.parameter((at.natural[0] + step, *at.natural[1:])))
        assert moved is not None
        assert problem.objective(moved) > best


@pytest.mark.parametrize("unit", [1e-6, 365.0, 1e7])
@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
def test_units_of_a_column_change_neither_answer_nor_effort(family: str, unit: float) -> None:
    scale = np.array([1.0, unit])
    X, y = np.column_stack([np.ones(N), (AGE - 50) / 10]), CASE < 0.4
    plain = solved(problem_of(LogisticRegression(X, y), family, np.array([1e-3, 1e-3])))
    scaled = solved(problem_of(LogisticRegression(X * scale, y), family, 1e-3 * scale**2))
    server = bind(family, Gaussian(np.zeros(2), 1.0))
    a, b = server.posterior(plain.natural), server.posterior(scaled.natural)
    assert b.mean * scale == pytest.approx(a.mean, rel=1e-7)
    assert b.variance * scale**2 == pytest.approx(a.variance, rel=1e-7)
    assert scaled.evaluations == pytest.approx(plain.evaluations, abs=3)


def test_a_site_without_events_agrees_with_a_direct_minimisation() -> None:
    X = DESIGNS["age in years"][:30]
    problem = problem_of(PoissonRegression(X, np.zeros(30)), "full_gaussian", 0.01, 0.5)
    q = problem.family.posterior(solved(problem).natural)

    def objective(p: np.ndarray) -> float:
        factor = np.array([[np.exp(p[2]), 0.0], [p[3], np.exp(p[4])]])
        with np.errstate(over="ignore"):
            rate = np.exp(np.minimum(X @ p[:2] + 0.5 * np.sum((X @ factor) ** 2, axis=1), 700.0))
        return float(rate.sum() + 0.5 * (0.005 * (np.sum(factor**2) + p[:2] @ p[:2]) - p[2] - p[4]))

    factor = np.linalg.cholesky(q.operator.covariance)  # type: ignore[attr-defined]
    found = np.array([*q.mean, np.log(factor[0, 0]), factor[1, 0], np.log(factor[1, 1])])
    direct = minimize(objective, found, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-9, "fatol": 1e-12})
    assert objective(found) == pytest.approx(direct.fun, abs=1e-8)


def test_sites_without_events_give_the_pooled_posterior() -> None:
    X, y = DESIGNS["age in years"], np.r_[np.zeros(30), np.floor(4 * CASE[30:])]
    prior = Gaussian(np.zeros(2), 0.01)
    sites = [PoissonRegression(X[part], y[part]) for part in np.array_split(np.arange(N), 4)]
    found = solve(sites, family="full_gaussian", prior=prior)
    pooled = solve([PoissonRegression(X, y)], family="full_gaussian", prior=prior)
    assert found.converged
    assert found.posterior.mean == pytest.approx(pooled.posterior.mean, rel=1e-5, abs=1e-6)


def test_a_client_short_of_evaluations_is_a_step_behind_and_not_lost() -> None:
    problem = problem_of(PoissonRegression(DESIGNS["age in years"], np.zeros(N)), "full_gaussian", 1e-4)
    narrow = Gaussian(np.zeros(2), 1e4 * np.eye(2))
    before = problem.objective(problem.evaluate(problem.family.natural(narrow)))
    solution = solved(problem, 200)
    assert solution.inexact > 0
    assert any("stopped after 200 evaluations" in event for event in solution.events)
    assert problem.objective(problem.evaluate(solution.natural)) < before


class Wave:
    """ℓ = 5 cos θ + θ²/20 by its exact Gaussian expectations: many stationary points."""

    dim = 1

    def expectations(self, q: Gaussian) -> tuple[float, np.ndarray, np.ndarray]:
        m, v = q.mean, q.variance
        shrunk = 5 * np.exp(-0.5 * v)
        value = float((shrunk * np.cos(m) + (m * m + v) / 20)[0])
        return value, -shrunk * np.sin(m) + m / 10, (-shrunk * np.cos(m) + 0.1)[:, None]


@pytest.mark.parametrize("start", [0.0, 0.4, -2.5, 9.0])
def test_a_loss_that_is_not_convex_is_descended(start: float) -> None:
    server = bind("full_gaussian", Gaussian([start], np.array([[4.0]])))
    problem = ClientProblem(
        BoundClient(0, Wave(), server, 1.0), server.prior_natural, tuple(np.zeros(s) for s in server.shapes), 0.05
    )
    first = problem.evaluate(problem.natural_global)
    values = [problem.objective(first)]
    for at in newton(problem, first, 300):
        values.append(problem.objective(at))
    assert (np.diff(values) <= 1e-9 * np.abs(values[:-1])).all()
    solution = solved(problem)
    assert solution.residual < 1e-8
    assert problem.objective(problem.evaluate(solution.natural)) < values[0]


def test_a_lost_client_names_the_condition_only_where_it_is_violated() -> None:
    assert "condition" not in str(LostClientError(0, "no solution found", rho=1.0, required_rho=0.5))
    assert str(LostClientError(0, "no solution found", rho=0.5, required_rho=1.0)).endswith(
        "the existence condition needs rho > 1, got rho = 0.5"
    )


def test_the_mode_is_found_from_a_prior_that_overflows() -> None:
    X = DESIGNS["a column of 1e8"]
    problem = problem_of(PoissonRegression(X, np.floor(6 * CASE)), "full_gaussian", 1.0)
    wide = Gaussian(np.zeros(3), np.eye(3))
    at = laplace(problem, Gaussian.of(wide.mean, wide.operator.scaled(1e20)), 400)
    assert at is not None
    assert np.isfinite(at.loss)
