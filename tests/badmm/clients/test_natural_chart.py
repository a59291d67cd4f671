"""The chart of families other than Gaussians, and a client that gives its loss and natural gradient alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import polygamma, psi

import badmm
import badmm_kernels
from badmm import Gamma
from badmm.clients.charts import LONGEST, chart_around
from badmm.clients.exact import solve_client
from badmm.clients.newton import newton
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.clients.tolerance import Tolerance
from badmm.families.family import Natural
from badmm.families.registry import bind


class LogRate:
    """ℓ = (log θ)²/2 under a gamma, whose E[ℓ] is not linear in μ, by its natural gradient alone."""

    def natural_gradient(self, q: Any) -> Natural:
        log_mean = psi(q.shape) - np.log(q.rate)
        by_shape = polygamma(1, q.shape) * log_mean + 0.5 * polygamma(2, q.shape)
        found: Natural = badmm_kernels.load("gamma").natural_gradient(q.shape, q.rate, by_shape, -log_mean / q.rate)
        return found


class LogSquare(LogRate):
    """The same with its loss."""

    def expected_loss(self, q: Any) -> float:
        return float(0.5 * np.sum(polygamma(1, q.shape) + (psi(q.shape) - np.log(q.rate)) ** 2))


def gamma_problem() -> ClientProblem:
    server = bind("gamma", Gamma([2.0, 9.0], [1.0, 0.2]))
    dual = (np.array([0.1, -0.3]), np.array([-0.2, 0.01]))
    return ClientProblem(BoundClient(0, LogSquare(), server, 1.0), server.prior_natural, dual, 0.8)


def test_the_equations_of_a_chart_of_natural_parameters_are_the_slope_of_the_objective() -> None:
    problem = gamma_problem()
    start = bind("gamma", Gamma([3.0, 5.0], [2.0, 0.5])).prior_natural
    center = problem.evaluate(start)
    chart = chart_around(problem, center)
    assert chart.size == 4 and chart.hessian is None

    def at(x: np.ndarray) -> tuple[float, np.ndarray]:
        q = chart.distribution(x)
        assert q is not None
        found = problem.evaluate(problem.family.natural(q), q)
        return problem.objective(found) / problem.rho, chart.equations(x, found)

    x = np.array([0.1, -0.2, 0.05, 0.15])
    _, slope = at(x)
    for j, unit in enumerate(np.eye(4)):
        ahead, back = at(x + 1e-5 * unit)[0], at(x - 1e-5 * unit)[0]
        assert (ahead - back) / 2e-5 == pytest.approx(slope[j], rel=1e-6, abs=1e-8)
    here = chart.distribution(np.zeros(4))
    assert here is not None
    for found, wanted in zip(problem.family.natural(here), start, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    inverse = np.stack([chart.precondition(unit) for unit in np.eye(4)])
    np.testing.assert_allclose(inverse, inverse.T, rtol=1e-10, atol=1e-12)
    # the metric of the chart: half the curvature of 2 KL(q_x‖q_0) at 0, each coordinate of θ by itself
    metric = np.linalg.inv(inverse)
    for j, one in enumerate(np.eye(4)):
        for other in np.eye(4):
            step = 1e-3 * (one + other)
            moved = [chart.distribution(sign * step) for sign in (1.0, -1.0)]
            naturals = [problem.family.natural(q) for q in moved if q is not None]
            curved = sum(problem.family.kl(natural, start) for natural in naturals) / 1e-6
            assert curved == pytest.approx((one + other) @ metric @ (one + other), rel=1e-4, abs=1e-6), j
    for far in (LONGEST, 60.0):
        assert chart.distribution(np.array([0.0, 0.0, far, 0.0])) is None
    assert chart.distribution(np.array([0.0, 0.0, np.nan, 0.0])) is None


class Towards:
    """L = KL(q‖p) to another member, whose natural gradient is λ − λ_p."""

    def __init__(self, family: Any, aim: Natural) -> None:
        self.family, self.aim = family, aim

    def natural_gradient(self, q: Any) -> Natural:
        return tuple(a - b for a, b in zip(self.family.natural(q), self.aim, strict=True))

    def expected_loss(self, q: Any) -> float:
        return float(self.family.kl(self.family.natural(q), self.aim))


PAIRS: dict[str, tuple[Any, Any]] = {
    "gamma": (badmm.Gamma([2.0, 9.0], [1.0, 0.2]), badmm.Gamma([3.0, 5.0], [2.0, 0.5])),
    "weibull": (badmm.Weibull([0.5, 3.0], shape=0.7), badmm.Weibull([1.5, 2.0], shape=0.7)),
    "laplace": (badmm.Laplace([0.3, 4.0], location=-2.0), badmm.Laplace([1.0, 2.0], location=-2.0)),
    "binomial": (badmm.Binomial([-2.0, 0.3], trials=9), badmm.Binomial([-1.0, 0.8], trials=9)),
    "negative_binomial": (badmm.NegativeBinomial([0.4, 20.0], size=2.5), badmm.NegativeBinomial([1.0, 9.0], size=2.5)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_client_of_any_family_is_solved_by_every_search(name: str) -> None:
    """At (λ_p + ρ λ_g)/(1 + ρ) = argmin KL(q‖p) + ρ KL(q‖q_g), also where the family fixes parameters."""
    start, aim = PAIRS[name]
    family, rho = bind(name, start), 1.5
    towards = Towards(family, family.natural(aim))
    zero = tuple(np.zeros(shape) for shape in family.shapes)
    wanted = tuple((p + rho * g) / (1 + rho) for p, g in zip(towards.aim, family.prior_natural, strict=True))
    problems = [ClientProblem(BoundClient(0, towards, family, 1.0), family.prior_natural, zero, rho) for _ in range(2)]
    solution = solve_client(problems[0], Tolerance(1e-12))
    *_, last = newton(problems[1], problems[1].evaluate(family.prior_natural), 200, tolerance=1e-8)
    for found, other, exact in zip(solution.natural, last.natural, wanted, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-10)
        np.testing.assert_allclose(other, exact, rtol=1e-6)
    assert solution.evaluations <= 20 and problems[1].evaluations <= 40
    chart = chart_around(problems[0], last)
    here, x = chart.distribution(np.zeros(chart.size)), 1e-4 * np.arange(1.0, chart.size + 1)
    assert here is not None
    moved = [chart.distribution(sign * x) for sign in (1.0, -1.0)]
    curved = sum(family.kl(family.natural(q), last.natural) for q in moved if q is not None)
    metric = np.linalg.inv(np.stack([chart.precondition(unit) for unit in np.eye(chart.size)]))
    assert x @ metric @ x == pytest.approx(curved, rel=1e-4)


def test_newtons_method_solves_a_problem_without_expectations_of_a_gradient() -> None:
    problem = gamma_problem()
    *_, last = newton(problem, problem.evaluate(problem.natural_global), 200)
    wanted = solve_client(gamma_problem(), Tolerance(1e-12)).natural
    for found, slot in zip(last.natural, wanted, strict=True):
        np.testing.assert_allclose(found, slot, rtol=1e-7)
    assert problem.evaluations < 60
