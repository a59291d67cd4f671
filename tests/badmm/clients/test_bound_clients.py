"""What the package makes of a client's answers: temperature, growth, shapes, and the two ways to give derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from badmm import ClientError, Gamma, Gaussian
from badmm.clients import problem as problem_module
from badmm.clients.charts import chart_around, mean_chart
from badmm.clients.coordinates import ChartedProblem
from badmm.clients.exact import _first as first, solve_client
from badmm.clients.laplace import laplace
from badmm.clients.newton import newton
from badmm.clients.problem import BoundClient, ClientProblem, NotFiniteError
from badmm.clients.tolerance import Tolerance
from badmm.families.family import Natural
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression, PoissonRate, Quadratic

RNG = np.random.default_rng(11)
D, TAU = 3, 4.0
X = RNG.normal(size=(15, D)) @ np.diag([1.0, 2.0, 0.5])
LOGISTIC = LogisticRegression(X, (RNG.random(15) < 0.5).astype(int))
ROOT = RNG.normal(size=(D, D))
PRECISION: dict[str, Any] = {
    "isotropic_gaussian": 0.6,
    "diagonal_gaussian": np.array([0.5, 1.0, 2.0]),
    "full_gaussian": ROOT @ ROOT.T + np.eye(D),
}
MEAN = np.array([0.3, -0.4, 0.2])
every_gaussian = pytest.mark.parametrize("family", PRECISION)


class ByGradient:
    """The same loss by its natural gradient alone."""

    def __init__(self, client: LogisticRegression, family: str, tell: bool = True) -> None:
        self.client, self.family = client, bind(family, Gaussian(MEAN, PRECISION[family]))
        if tell:
            self.expected_loss = lambda q: client.expectations(q)[0]

    def natural_gradient(self, q: Gaussian) -> Natural:
        _, gradient, hessian = self.client.expectations(q)
        return self.family.natural_gradient(q, gradient, hessian)


class Growing:
    """A loss of any kind that says how it grows."""

    def natural_gradient(self, q: Gaussian) -> Natural:
        return (np.zeros(D), np.zeros((D, D)))

    def growth(self, family: Any) -> np.ndarray:
        return 2.0 * np.eye(D)


def problem_of(client: Any, family: str, rho: float = 0.7, temperature: float = 1.0) -> ClientProblem:
    server = bind(family, Gaussian(MEAN, PRECISION[family]))
    dual = tuple(-0.1 * np.ones(s) if len(s) == 1 else 0.2 * np.eye(D) for s in server.shapes)
    return ClientProblem(BoundClient(0, client, server, temperature), server.prior_natural, dual, rho)


@every_gaussian
@pytest.mark.parametrize("gradient", [False, True])
def test_the_temperature_divides_loss_and_derivatives(family: str, gradient: bool) -> None:
    client: Any = ByGradient(LOGISTIC, family) if gradient else LOGISTIC
    server = bind(family, Gaussian(MEAN, PRECISION[family]))
    cold, hot = (BoundClient(0, client, server, t) for t in (1.0, TAU))
    assert hot.loss(server.prior) == pytest.approx(cold.loss(server.prior) / TAU, rel=1e-14)
    a, b = cold.evaluate(server.prior_natural), hot.evaluate(server.prior_natural)
    assert a.loss == pytest.approx(cold.loss(server.prior), rel=1e-14)
    assert b.loss == pytest.approx(a.loss / TAU, rel=1e-14)
    for one, other in zip(a.natural_gradient, b.natural_gradient, strict=True):
        np.testing.assert_allclose(other, one / TAU, rtol=1e-13)
    if not gradient:
        assert a.gradient is not None and b.gradient is not None and b.curvature is not None
        np.testing.assert_allclose(b.gradient, a.gradient / TAU, rtol=1e-13)
        assert isinstance(server.prior, Gaussian)
        whole: np.ndarray = LOGISTIC.curvature(server.prior)[2] / TAU
        np.testing.assert_allclose(np.asarray(b.curvature), whole, rtol=1e-12)


def test_the_temperature_divides_what_helps_the_condition() -> None:
    server = bind("full_gaussian", Gaussian(np.zeros(D), 1.0))
    dual = (np.zeros(D), -3.0 * np.eye(D))
    for temperature, needed in ((1.0, 1.0), (TAU, 2.5)):
        for client in (Growing(), Quadratic(2.0 * np.eye(D), np.zeros(D))):
            bound = BoundClient(0, client, server, temperature)
            assert bound.required_rho(server.prior_natural, dual) == pytest.approx(needed, rel=1e-12)


def test_a_client_without_a_loss_has_none() -> None:
    client = ByGradient(LOGISTIC, "full_gaussian", tell=False)
    server = bind("full_gaussian", Gaussian(MEAN, PRECISION["full_gaussian"]))
    assert np.isnan(BoundClient(0, client, server, 1.0).loss(server.prior))


@every_gaussian
def test_both_ways_to_give_derivatives_lead_to_one_solution(family: str) -> None:
    exact = Tolerance(1e-12, max_evaluations=400)
    wanted = solve_client(problem_of(LOGISTIC, family), exact)
    problem = problem_of(ByGradient(LOGISTIC, family), family)
    found = solve_client(problem, exact)
    assert found.residual <= 1e-12
    *_, last = newton(problem, problem.evaluate(problem.natural_global), 400)
    for a, b, c in zip(wanted.natural, found.natural, last.natural, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(c, a, rtol=1e-6, atol=1e-7)


@every_gaussian
@pytest.mark.parametrize("gradient", [False, True])
def test_a_charts_equations_are_the_slope_of_the_objective(family: str, gradient: bool) -> None:
    """Over ρ, by central differences, and the Hessian that a chart knows by theirs."""
    problem = problem_of(ByGradient(LOGISTIC, family) if gradient else LOGISTIC, family)
    center = problem.evaluate(problem.natural_global)
    for chart in {chart_around(problem, center), mean_chart(problem, center)}:
        here = chart.distribution(np.zeros(chart.size))
        assert here is not None and here.mean == pytest.approx(MEAN)
        f = chart.equations(np.zeros(chart.size), center)
        hessian = np.empty((chart.size, chart.size))
        for j, unit in enumerate(np.eye(chart.size)):
            values, slopes = [], []
            for step in (1e-4, -1e-4):
                q = chart.distribution(step * unit)
                assert q is not None
                at = problem.evaluate(problem.family.natural(q), q)
                values.append(problem.objective(at) / problem.rho)
                slopes.append(chart.equations(step * unit, at))
            assert (values[0] - values[1]) / 2e-4 == pytest.approx(f[j], rel=1e-5, abs=1e-6)
            hessian[:, j] = (slopes[0] - slopes[1]) / 2e-4
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-5)
        inverse = np.stack([chart.precondition(unit) for unit in np.eye(chart.size)])
        np.testing.assert_allclose(inverse, inverse.T, atol=1e-10)
        assert np.linalg.eigvalsh(inverse).min() > 0
        if chart.hessian is not None:
            np.testing.assert_allclose(chart.hessian, hessian, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(inverse @ chart.hessian, np.eye(chart.size), atol=1e-9)


@pytest.mark.parametrize("family", ["diagonal_gaussian", "full_gaussian"])
def test_the_laplace_approximation_is_the_mode_with_the_curvature_there(family: str) -> None:
    rho = 0.7
    problem = problem_of(LOGISTIC, family, rho)
    xi, cavity = problem.family.canonical(problem.cavity)  # type: ignore[attr-defined]
    matrix = cavity.plus(np.zeros((D, D)))
    penalised = lambda t: LOGISTIC.loss(t) / rho + 0.5 * t @ matrix @ t - xi @ t  # noqa: E731
    mode = minimize(penalised, np.zeros(D), tol=1e-12).x
    q = problem.family.posterior(problem.natural_global)
    assert isinstance(q, Gaussian)
    at = laplace(problem, q, 400)
    assert at is not None and isinstance(at.posterior, Gaussian)
    assert problem.evaluations < 30
    assert at.posterior.mean == pytest.approx(mode, abs=1e-5)
    curvature = LOGISTIC.curvature(Gaussian(mode, 1e12))[2] / rho
    own = np.diag(curvature) if family == "diagonal_gaussian" else curvature
    assert at.posterior.precision == pytest.approx(cavity.array + own, rel=1e-4)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8])
def test_searches_keep_to_the_evaluations_they_are_given(limit: int) -> None:
    problem = problem_of(LOGISTIC, "full_gaussian")
    q = problem.family.posterior(problem.natural_global)
    assert isinstance(q, Gaussian)
    laplace(problem, q, limit)
    assert problem.evaluations <= limit
    problem = problem_of(LOGISTIC, "full_gaussian")
    solution = solve_client(problem, Tolerance(1e-14, max_evaluations=limit))
    assert solution.evaluations == problem.evaluations <= limit


def test_one_step_of_the_mean_is_exact_on_a_quadratic_whose_correlations_the_family_cannot_hold() -> None:
    """m⁺ = (H/ρ + S_c)⁻¹ (b/ρ + ξ_c), from any m; the precision's step is the map's."""
    H, b, rho = PRECISION["full_gaussian"], np.array([1.0, -2.0, 0.5]), 0.7
    problem = problem_of(Quadratic(H, b), "diagonal_gaussian", rho)
    at = problem.evaluate(problem.natural_global)
    coordinates, target = ChartedProblem(problem, at.posterior), problem.target(at)
    found = coordinates.goal(at, target)
    assert isinstance(found, Gaussian)
    xi, S = problem.cavity
    np.testing.assert_allclose(found.mean, np.linalg.solve(H / rho + np.diag(S), b / rho + xi), rtol=1e-12)
    np.testing.assert_allclose(found.precision, S + np.diag(H) / rho, rtol=1e-12)
    np.testing.assert_allclose(target[1], found.precision, rtol=1e-12)


class Asked(LogisticRegression):
    """Notes what it is asked for."""

    def expectations(self, q: Gaussian) -> Any:
        self.asked = "diagonal or matrix"
        return super().expectations(q)

    def curvature(self, q: Gaussian) -> Any:
        self.asked = "matrix"
        return super().curvature(q)


@pytest.mark.parametrize(
    ("family", "limit", "asked"),
    [
        ("full_gaussian", 1024, "diagonal or matrix"),
        ("isotropic_gaussian", 1024, "diagonal or matrix"),
        ("diagonal_gaussian", D, "matrix"),
        ("diagonal_gaussian", D - 1, "diagonal or matrix"),
    ],
)
def test_a_whole_hessian_is_asked_for_where_the_family_holds_none_and_it_is_small(
    family: str, limit: int, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem_module, "MATRIX_LIMIT", limit)
    client = Asked(X, (np.arange(15) % 2).astype(int))
    problem = problem_of(client, family)
    at = problem.evaluate(problem.natural_global)
    assert client.asked == asked and (at.curvature is not None) == (limit != D - 1)


@pytest.mark.parametrize("needed", [5.0, 50.0, 5e3, 5e15, 5e20, 5e50, 5e100])
def test_a_loss_that_overflows_is_met_at_the_first_power_of_ten_of_two_powers(needed: float) -> None:
    class Wide:
        """A loss that no posterior with less precision has."""

        def expectations(self, q: Gaussian) -> Any:
            if float(np.asarray(q.operator.diagonal).min()) < needed:
                return np.inf, np.zeros(D), np.eye(D)
            return 0.0, np.zeros(D), np.eye(D)

    class Endless:
        """A loss that no posterior has."""

        def expectations(self, q: Gaussian) -> Any:
            return np.inf, np.zeros(D), np.eye(D)

    server = bind("full_gaussian", Gaussian(MEAN, 1.0))
    zero = tuple(np.zeros(shape) for shape in server.shapes)
    problem = ClientProblem(BoundClient(0, Wide(), server, 1.0), server.prior_natural, zero, 1.0)
    at = first(problem)
    powers = [10.0**power for power in (1, 2, 4, 8, 16, 32, 64, 128)]
    sharp = next(power for power in powers if power >= needed)
    assert isinstance(at.posterior, Gaussian)
    np.testing.assert_allclose(np.diag(at.posterior.precision), sharp, rtol=1e-12)
    np.testing.assert_allclose(at.posterior.mean, MEAN, rtol=1e-12)
    never, asked = (
        ClientProblem(BoundClient(0, Endless(), server, 1.0), server.prior_natural, zero, 1.0),
        1 + len(powers),
    )
    with pytest.raises(NotFiniteError, match="client 0: expectations: expected_loss: expected finite values, got inf"):
        first(never)
    assert never.evaluations == asked
    fixed = bind("isotropic_gaussian", Gaussian(MEAN, 1.0))
    stuck = ClientProblem(BoundClient(0, Wide(), fixed, 1.0), fixed.prior_natural, (np.zeros(D),), 1.0)
    with pytest.raises(NotFiniteError):
        first(stuck)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_hessian_is_symmetric_in_units_of_its_largest_entry(scale: float) -> None:
    class Skewed:
        def __init__(self, skew: float) -> None:
            self.skew = skew

        def expectations(self, q: Gaussian) -> Any:
            return 0.0, np.zeros(2), scale * (np.eye(2) + np.array([[0.0, self.skew], [0.0, 0.0]]))

    server = bind("full_gaussian", Gaussian(np.zeros(2), 1.0))
    at = BoundClient(0, Skewed(1e-10), server, 1.0).evaluate(server.prior_natural)
    assert at.hessian is not None and at.hessian[0, 1] == at.hessian[1, 0] == pytest.approx(0.5e-10 * scale)
    with pytest.raises(ClientError, match="client 0: expectations: expected_hessian: expected a symmetric matrix"):
        BoundClient(0, Skewed(1e-6), server, 1.0).evaluate(server.prior_natural)


def test_the_laplace_approximation_is_for_a_gaussian_whose_precision_varies() -> None:
    problem = problem_of(LOGISTIC, "isotropic_gaussian")
    q = problem.family.posterior(problem.natural_global)
    assert isinstance(q, Gaussian) and laplace(problem, q, 400) is None
    assert problem.evaluations == 0


class Kinked:
    """A convex loss plus jumps of its gradient at the solution: the residual stays at their size, however long."""

    dim = D

    def __init__(self, size: float, at: np.ndarray) -> None:
        self.size, self.at = size, at

    def expectations(self, q: Gaussian) -> tuple[float, np.ndarray, np.ndarray]:
        loss, gradient, hessian = LOGISTIC.expectations(q)
        return loss, gradient + self.size * np.where(q.mean >= self.at, 1.0, -1.0), hessian


@pytest.mark.parametrize(("size", "lost"), [(1e-4, False), (3e-3, False), (1e-2, True), (0.1, True)])
def test_derivatives_that_do_not_fit_the_loss_are_lost_where_a_hundredth_of_a_deviation_is_left(
    size: float, lost: bool
) -> None:
    smooth = problem_of(LOGISTIC, "full_gaussian")
    at = smooth.family.posterior(solve_client(smooth, Tolerance(1e-13)).natural).mean
    problem, tolerance = problem_of(Kinked(size, at), "full_gaussian"), Tolerance(1e-10)
    if lost:
        with pytest.raises(ClientError, match=r"^client 0: no solution found \(residual .*\): no step lowers its obj"):
            solve_client(problem, tolerance)
        return
    solution = solve_client(problem, tolerance)
    assert 0.5 * size < solution.inexact == solution.residual < 2 * size
    first, last = solution.events
    assert first.startswith("client 0: Newton fallback after ")
    residual = f"{solution.residual:.2g}"
    assert (
        last == f"client 0: stopped after {solution.evaluations} evaluations at residual {residual} (tolerance 1e-10)"
    )


def test_a_linear_clients_solution_outside_the_domain_is_lost() -> None:
    server = bind("full_gaussian", Gaussian(np.zeros(D), 1.0))
    dual = (np.zeros(D), -3.0 * np.eye(D))
    problem = ClientProblem(
        BoundClient(2, Quadratic(2.0 * np.eye(D), np.ones(D)), server, 1.0), server.prior_natural, dual, 0.5
    )
    message = "client 2: its solution is outside the domain; the existence condition needs rho > 1, got rho = 0.5"
    with pytest.raises(ClientError, match=message):
        solve_client(problem, Tolerance())
    inside = ClientProblem(problem.bound, server.prior_natural, dual, 2.0)
    solution = solve_client(inside, Tolerance())
    assert solution.natural[1] == pytest.approx(np.eye(D) * (1 + (2 - 3) / 2)) and solution.evaluations == 0


class Answer:
    def __init__(self, value: Any) -> None:
        self.value = value

    def natural_gradient(self, q: Any) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(2), "client 3: natural_gradient: expected a tuple of 2 arrays, got ndarray"),
        ((np.zeros(1),), "client 3: natural_gradient: expected a tuple of 2 arrays, got 1 slots"),
        (("a", np.zeros(1)), r"client 3: natural_gradient\[0\]: expected real numbers, got str"),
        ((np.zeros(1), np.zeros(2)), r"client 3: natural_gradient\[1\]: expected shape \(1,\), got \(2,\)"),
        ((np.zeros(1), [np.inf]), r"client 3: natural_gradient\[1\]: expected finite values, got inf at index \(0,\)"),
    ],
)
def test_a_natural_gradient_of_the_wrong_kind_is_named(value: Any, message: str) -> None:
    server = bind("gamma", Gamma(1.0, 1.0))
    with pytest.raises(ClientError, match=f"^{message}$") as caught:
        BoundClient(3, Answer(value), server, 1.0).evaluate(server.prior_natural)
    assert caught.value.client == 3
    assert isinstance(caught.value, NotFiniteError) == ("finite" in message)


@pytest.mark.parametrize("family", ["gamma", "full_gaussian"])
def test_what_is_no_client_is_refused_with_what_its_family_needs(family: str) -> None:
    prior: Any = Gamma(1.0, 1.0) if family == "gamma" else Gaussian(np.zeros(1), 1.0)
    needed = "natural_gradient(posterior)"
    needed = needed if family == "gamma" else f"expectations(posterior) or {needed}"
    message = f"clients: expected objects with {needed} for family '{family}', got int at index 5"
    with pytest.raises(ValueError, match="clients: expected") as caught:
        BoundClient(5, 3, bind(family, prior), 1.0)
    assert str(caught.value) == message


def test_derivatives_beyond_the_number_range_are_refused_like_infinities() -> None:
    class Steep:
        def expectations(self, q: Gaussian) -> Any:
            return 0.0, np.array([1e101]), np.eye(1)

    server = bind("full_gaussian", Gaussian(np.zeros(1), 1.0))
    problem = ClientProblem(BoundClient(0, Steep(), server, 1.0), server.prior_natural, server.prior_natural, 1.0)
    message = r"client 0: expectations: expected_gradient: expected values below 1e\+100, got 1e\+101"
    with pytest.raises(NotFiniteError, match=message):
        problem.evaluate(server.prior_natural)
    assert problem.try_evaluate(server.prior_natural) is None
    assert problem.evaluations == 2


def test_a_conjugate_client_gives_its_loss_and_its_constant_over_the_temperature() -> None:
    server = bind("gamma", Gamma(2.0, 1.0))
    client: Any = PoissonRate([3, 1], [1.0, 2.0])
    bound = BoundClient(0, client, server, 2.0)
    assert bound.constant is not None
    assert [float(slot[0]) for slot in bound.constant] == pytest.approx([-2.0, -1.5])
    at = bound.evaluate(server.prior_natural)
    assert at.natural_gradient == bound.constant
    assert at.loss == pytest.approx(client.expected_loss(server.prior) / 2.0)
