"""A client's problem: solved to the tolerance from any start, inside the domain, or refused with a reason."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from badmm import ClientError, Gamma, Gaussian, LostClientError, solve
from badmm.clients.exact import solve_client
from badmm.clients.newton import newton
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.clients.tolerance import ROUNDINGS, Tolerance
from badmm.families.family import Natural
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression, PoissonRegression, Quadratic, SoftmaxRegression
from tests.badmm.clients.test_natural_chart import LogRate

RNG = np.random.default_rng(2)
X = RNG.normal(size=(20, 4)) @ RNG.normal(size=(4, 4))
Y = (RNG.random(20) < 0.4).astype(int)
COUNTS = RNG.poisson(3.0, size=20)


def problem_of(client: Any, family: str, prior: Any, rho: float = 1.0, dual: Natural | None = None) -> ClientProblem:
    server = bind(family, prior)
    eta = tuple(np.zeros(s) for s in server.shapes) if dual is None else dual
    return ClientProblem(BoundClient(0, client, server, 1.0), server.prior_natural, eta, rho)


def residual(problem: ClientProblem, natural: Natural) -> float:
    at = problem.evaluate(natural)
    return problem.residual(at, problem.target(at))


CLIENTS: dict[str, Any] = {
    "logistic": LogisticRegression(X, Y),
    "poisson": PoissonRegression(X / 4, COUNTS),
    "softmax": SoftmaxRegression(X[:, :2], Y, 2),
    "quadratic": Quadratic(X.T @ X, X[0]),
}
RHOS = (0.05, 1.0, 30.0)
EVALUATIONS: dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]] = {
    ("logistic", "isotropic_gaussian"): ((6, 7, 4), (4, 3, 2)),
    ("logistic", "diagonal_gaussian"): ((11, 15, 7), (6, 6, 3)),
    ("logistic", "full_gaussian"): ((12, 13, 8), (6, 6, 3)),
    ("poisson", "isotropic_gaussian"): ((7, 6, 5), (5, 4, 2)),
    ("poisson", "diagonal_gaussian"): ((12, 12, 9), (7, 6, 3)),
    ("poisson", "full_gaussian"): ((11, 13, 10), (5, 5, 4)),
    ("softmax", "isotropic_gaussian"): ((6, 6, 6), (4, 3, 2)),
    ("softmax", "diagonal_gaussian"): ((18, 19, 6), (11, 11, 2)),
    ("softmax", "full_gaussian"): ((16, 15, 13), (9, 9, 8)),
    ("quadratic", "isotropic_gaussian"): ((2, 2, 2), (2, 2, 2)),
    ("quadratic", "diagonal_gaussian"): ((4, 3, 2), (4, 3, 2)),
    ("quadratic", "full_gaussian"): ((0, 0, 0), (0, 0, 0)),
}
"""What each ρ takes to a residual of 1e-12, and to a thousandth of the displacement; fewer are welcome."""


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize(("name", "family"), EVALUATIONS)
def test_solution_meets_the_tolerance_in_as_few_evaluations_as_ever(name: str, family: str, rho: float) -> None:
    many, few = (counts[RHOS.index(rho)] for counts in EVALUATIONS[name, family])
    problem = problem_of(CLIENTS[name], family, Gaussian(np.zeros(4), 0.5), rho)
    solution = solve_client(problem, Tolerance(1e-12, max_evaluations=400))
    assert solution.residual <= 1e-12 and solution.inexact == 0.0 and solution.events == ()
    assert residual(problem, solution.natural) <= 1e-11
    assert solution.evaluations - problem.slopes <= many + 1  # at the last digit one more may be needed
    assert problem.slopes <= 4 * many
    again = problem_of(CLIENTS[name], family, Gaussian(np.zeros(4), 0.5), rho)
    early = solve_client(again, Tolerance(1e-12, relative=1e-3))
    assert early.evaluations == again.evaluations <= few + again.slopes
    assert early.inexact == 0.0 or 1e-12 < early.inexact == early.residual


@pytest.fixture(scope="module")
def skewed() -> dict[str, Any]:
    """Clients whose curvature under the prior is a thousand times their own, and changes along the way."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 5))
    y, counts, labels = rng.random(100) < 0.3, rng.poisson(np.exp(X[:, 0] / 4)), rng.integers(0, 3, 100)
    softmax = SoftmaxRegression(X[:, :2], labels, 3)
    return {"logistic": LogisticRegression(X, y), "poisson": PoissonRegression(X / 4, counts), "softmax": softmax}


@pytest.mark.parametrize("expectation", ["quadrature", "delta"])
@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
@pytest.mark.parametrize("name", ["logistic", "poisson", "softmax"])
def test_the_residual_told_bounds_the_true_one(
    name: str, family: str, expectation: str, skewed: dict[str, Any]
) -> None:
    """At loose and tight goals, whether the solution was evaluated or foretold; a bound is near the goal."""
    client = skewed[name] if name == "softmax" else skewed[name].configured(expectation)
    for rho, relative in product((0.05, 0.3, 1.0, 30.0), (1e-1, 1e-2, 1e-3, 1e-5)):
        problem = problem_of(client, family, Gaussian(np.zeros(client.dim), 0.1), rho)
        solution = solve_client(problem, Tolerance(relative=relative))
        at = problem.evaluate(solution.natural)
        true, goal = residual(problem, solution.natural), relative * min(1.0, problem.displacement(at, at.natural))
        assert true <= 1.001 * solution.residual + problem.rounding(at), (rho, relative)
        # and what an early stop leaves is told as such
        assert solution.inexact == solution.residual or true <= 1e-11 + ROUNDINGS * problem.rounding(at), (
            rho,
            relative,
        )
        assert solution.residual <= 3.1 * goal + ROUNDINGS * problem.rounding(at), (rho, relative)


def test_wide_poisson_start_overflows_and_is_solved_all_the_same() -> None:
    problem = problem_of(PoissonRegression(10 * X, COUNTS), "full_gaussian", Gaussian(np.zeros(4), 1e-3))
    solution = solve_client(problem, Tolerance(1e-11, max_evaluations=400))
    assert solution.residual <= 1e-11 and solution.evaluations <= 24


@pytest.mark.parametrize("family", ["diagonal_gaussian", "full_gaussian"])
def test_solution_minimises_the_variational_objective(family: str) -> None:
    client, prior, rho = LogisticRegression(X, Y), Gaussian(np.zeros(4), 0.5), 0.7
    problem = problem_of(client, family, prior, rho)
    q = problem.family.posterior(solve_client(problem, Tolerance(1e-12, max_evaluations=400)).natural)
    assert isinstance(q, Gaussian)

    def objective(m: np.ndarray, factor: np.ndarray) -> float:
        covariance = factor @ factor.T
        precision = np.linalg.inv(covariance)
        loss = client.expectations(Gaussian(m, (precision + precision.T) / 2))[0]
        divergence = 0.5 * (0.5 * (np.trace(covariance) + m @ m) - 2 * np.log(np.abs(np.diag(factor))).sum())
        return float(loss + rho * divergence)

    factor = np.linalg.cholesky(q.covariance)
    best = objective(q.mean, factor)
    mask = np.tril(np.ones((4, 4))) if family == "full_gaussian" else np.eye(4)
    for seed in range(20):
        step = np.random.default_rng(seed).normal(size=(5, 4)) * 1e-3
        assert objective(q.mean + step[0], factor + step[1:] * mask) >= best - 1e-12


def test_isotropic_delta_client_is_a_proximal_step() -> None:
    client = LogisticRegression(X, Y).configured("delta")
    prior, rho = Gaussian(np.full(4, 0.3), 0.8), 2.0
    problem = problem_of(client, "isotropic_gaussian", prior, rho)
    m = solve_client(problem, Tolerance(1e-13, max_evaluations=400)).natural[0] / 0.8
    proximal = lambda t: client.loss(t) + 0.5 * rho * 0.8 * np.sum((t - 0.3) ** 2)  # noqa: E731
    assert m == pytest.approx(minimize(proximal, np.zeros(4), tol=1e-12).x, abs=1e-6)


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
def test_newton_alone_solves_from_far_away(family: str) -> None:
    problem = problem_of(LogisticRegression(X, Y), family, Gaussian(np.full(4, 3.0), 0.1))
    start = problem.evaluate(problem.natural_global)
    *_, last = newton(problem, start, 2000)
    assert residual(problem, last.natural) < 1e-9


def test_user_gamma_client_with_natural_gradient_alone() -> None:
    problem = problem_of(LogRate(), "gamma", Gamma([2.0, 9.0], [1.0, 0.2]))
    solution = solve_client(problem, Tolerance(1e-12, max_evaluations=400))
    assert residual(problem, solution.natural) <= 1e-11


def test_violated_condition_names_client_and_penalty() -> None:
    dual = (np.zeros(4), -3.0 * np.eye(4))
    problem = problem_of(LogisticRegression(X, Y), "full_gaussian", Gaussian(np.zeros(4), 1.0), 0.5, dual)
    assert problem.bound.required_rho(problem.natural_global, dual) == pytest.approx(3.0)
    with pytest.raises(LostClientError, match=r"client 0: .* needs rho > 3, got rho = 0.5") as caught:
        solve_client(problem, Tolerance(1e-10, max_evaluations=400))
    assert caught.value.client == 0
    assert caught.value.required_rho == pytest.approx(3.0)


def test_limit_on_evaluations_is_an_event() -> None:
    problem = problem_of(LogisticRegression(X, Y), "full_gaussian", Gaussian(np.zeros(4), 1.0))
    enough = solve_client(problem, Tolerance(1e-12, max_evaluations=400)).evaluations
    again = ClientProblem(problem.bound, problem.natural_global, problem.dual, problem.rho)
    solution = solve_client(again, Tolerance(1e-12, max_evaluations=enough - 1))
    assert solution.evaluations == enough - 1
    assert any(f"stopped after {enough - 1} evaluations" in event for event in solution.events)


class Broken:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def expectations(self, q: Gaussian) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (KeyError("lost"), "client 1: expectations raised KeyError: 'lost'"),
        (3.0, r"client 1: expectations: expected \(loss, gradient, hessian\), got float"),
        (
            (0.0, np.zeros(3), np.eye(2)),
            r"client 1: expectations: expected_gradient: expected shape \(2,\), got \(3,\)",
        ),
        (
            (0.0, np.zeros(2), np.ones(2)),
            r"client 1: expectations: expected_hessian: expected shape \(2, 2\), got \(2,\)",
        ),
        (
            (np.nan, np.zeros(2), np.eye(2)),
            r"client 1: expectations: expected_loss: expected finite values, got nan at index \(\)",
        ),
        (
            (0.0, np.array([0.0, np.nan]), np.eye(2)),
            "client 1: expectations: expected_gradient: expected finite values",
        ),
        ((0.0, np.zeros(2), np.array([[1.0, 2.0], [0.0, 1.0]])), "client 1: .* expected a symmetric matrix"),
    ],
)
def test_faulty_clients_are_named(answer: Any, message: str) -> None:
    clients = [Quadratic(np.eye(2), np.ones(2)), Broken(answer)]
    with pytest.raises(ClientError, match=message) as caught:
        solve(clients, family="full_gaussian", prior=Gaussian(np.zeros(2), 1.0), rounds=2)
    assert caught.value.client == 1
    if isinstance(answer, Exception):
        assert caught.value.__cause__ is answer


def test_trial_points_may_be_nearly_singular_without_a_warning() -> None:
    steep = LogisticRegression(np.outer(np.linspace(-1, 1, 20), [1e5, 1.0]), (np.arange(20) > 9).astype(int))
    problem = problem_of(steep, "full_gaussian", Gaussian(np.zeros(2), 1e-6))
    assert solve_client(problem, Tolerance(1e-9, max_evaluations=400)).residual <= 1e-6


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
def test_a_solution_at_mean_zero_is_recognised(family: str) -> None:
    balanced = LogisticRegression(np.concatenate([X, X]), np.repeat([0, 1], len(X)))
    problem = problem_of(balanced, family, Gaussian(np.zeros(4), 1.0))
    solution = solve_client(problem, Tolerance(1e-12, max_evaluations=100))
    assert solution.residual <= 1e-12
    assert solution.natural[0] == pytest.approx(np.zeros(4), abs=1e-10)
