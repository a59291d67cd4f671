"""A client's problem: solved to the tolerance from any start, inside the domain, or refused with a reason."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from badmm import ClientError, Gamma, Gaussian, LostClientError, solve
from badmm.clients.exact import solve_client
from badmm.clients.newton import newton
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.families.family import Natural
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression, PoissonRegression, Quadratic, SoftmaxRegression

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


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
@pytest.mark.parametrize("rho", [0.05, 1.0, 30.0])
@pytest.mark.parametrize(
    "client",
    [
        LogisticRegression(X, Y),
        PoissonRegression(X / 4, COUNTS),
        SoftmaxRegression(X[:, :2], Y, 2),
        Quadratic(X.T @ X, X[0]),
    ],
    ids=["logistic", "poisson", "softmax", "quadratic"],
)
def test_solution_meets_the_tolerance(client: Any, family: str, rho: float) -> None:
    problem = problem_of(client, family, Gaussian(np.zeros(4), 0.5), rho)
    solution = solve_client(problem, 1e-12, 400)
    assert solution.residual <= 1e-12
    assert residual(problem, solution.natural) <= 1e-11
    assert solution.iterations <= 150


def test_wide_poisson_start_overflows_and_is_solved_all_the_same() -> None:
    problem = problem_of(PoissonRegression(10 * X, COUNTS), "full_gaussian", Gaussian(np.zeros(4), 1e-3))
    solution = solve_client(problem, 1e-11, 400)
    assert solution.residual <= 1e-11


@pytest.mark.parametrize("family", ["diagonal_gaussian", "full_gaussian"])
def test_solution_minimises_the_variational_objective(family: str) -> None:
    client, prior, rho = LogisticRegression(X, Y), Gaussian(np.zeros(4), 0.5), 0.7
    problem = problem_of(client, family, prior, rho)
    q = problem.family.posterior(solve_client(problem, 1e-12, 400).natural)
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
    m = solve_client(problem, 1e-13, 400).natural[0] / 0.8
    proximal = lambda t: client.loss(t) + 0.5 * rho * 0.8 * np.sum((t - 0.3) ** 2)  # noqa: E731
    assert m == pytest.approx(minimize(proximal, np.zeros(4), tol=1e-12).x, abs=1e-6)


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
def test_newton_alone_solves_from_far_away(family: str) -> None:
    problem = problem_of(LogisticRegression(X, Y), family, Gaussian(np.full(4, 3.0), 0.1))
    start = problem.evaluate(problem.natural_global)
    *_, last = newton(problem, start, 2000)
    assert residual(problem, last.natural) < 1e-9


class LogRate:
    """E[(log θ)²]/2 under a gamma: not linear in μ, given by its natural gradient alone."""

    def natural_gradient(self, q: Gamma) -> Natural:
        from scipy.special import polygamma, psi

        from badmm_kernels import load

        log_mean = psi(q.shape) - np.log(q.rate)
        d_shape = polygamma(1, q.shape) * log_mean + 0.5 * polygamma(2, q.shape)
        found: Natural = load("gamma").natural_gradient(q.shape, q.rate, d_shape, -log_mean / q.rate)
        return found


def test_user_gamma_client_with_natural_gradient_alone() -> None:
    problem = problem_of(LogRate(), "gamma", Gamma([2.0, 9.0], [1.0, 0.2]))
    solution = solve_client(problem, 1e-12, 400)
    assert residual(problem, solution.natural) <= 1e-11


def test_violated_condition_names_client_and_penalty() -> None:
    dual = (np.zeros(4), -3.0 * np.eye(4))
    problem = problem_of(LogisticRegression(X, Y), "full_gaussian", Gaussian(np.zeros(4), 1.0), 0.5, dual)
    assert problem.bound.required_rho(problem.natural_global, dual) == pytest.approx(3.0)
    with pytest.raises(LostClientError, match=r"client 0: .* needs rho > 3, got rho = 0.5") as caught:
        solve_client(problem, 1e-10, 400)
    assert caught.value.client == 0
    assert caught.value.required_rho == pytest.approx(3.0)


def test_limit_on_evaluations_is_an_event() -> None:
    problem = problem_of(LogisticRegression(X, Y), "full_gaussian", Gaussian(np.zeros(4), 1.0))
    enough = solve_client(problem, 1e-12, 400).iterations
    again = ClientProblem(problem.bound, problem.natural_global, problem.dual, problem.rho)
    solution = solve_client(again, 1e-12, enough - 1)
    assert solution.iterations == enough - 1
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
    assert solve_client(problem, 1e-9, 400).residual <= 1e-6


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
def test_a_solution_at_mean_zero_is_recognised(family: str) -> None:
    balanced = LogisticRegression(np.concatenate([X, X]), np.repeat([0, 1], len(X)))
    problem = problem_of(balanced, family, Gaussian(np.zeros(4), 1.0))
    solution = solve_client(problem, 1e-12, 100)
    assert solution.residual <= 1e-12
    assert solution.natural[0] == pytest.approx(np.zeros(4), abs=1e-10)
