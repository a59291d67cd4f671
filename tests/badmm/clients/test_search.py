"""The promises of a client's search: lengths in the Fisher metric, the rounding floor, when it ends, what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from badmm import Gamma, Gaussian
from badmm.clients import problem as problem_module
from badmm.clients.exact import _Search, solve_client
from badmm.clients.laplace import laplace
from badmm.clients.problem import EPSILON, BoundClient, ClientProblem, Evaluation
from badmm.clients.tolerance import LOST_RESIDUAL, ROUNDINGS, Tolerance
from badmm.families.family import Natural
from badmm.families.registry import bind
from badmm.likelihoods import PoissonRegression
from tests.badmm.clients.test_bound_clients import LOGISTIC, Kinked, problem_of
from tests.badmm.clients.test_natural_chart import LogSquare

FAMILIES = ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian")
every_gaussian = pytest.mark.parametrize("family", FAMILIES)


def plain(client: Any, family: str, prior: Any, rho: float) -> ClientProblem:
    """A problem without a dual."""
    server = bind(family, prior)
    zero = tuple(np.zeros(shape) for shape in server.shapes)
    return ClientProblem(BoundClient(0, client, server, 1.0), server.prior_natural, zero, rho)


# ---- lengths ---------------------------------------------------------------------------------------------------------


def fisher_length(problem: ClientProblem, natural: Natural, change: Natural) -> float:
    """√(dλ·F(λ) dλ), from μ = ∇A by central differences along the change."""
    size = 1e-5 / max(float(np.abs(slot).max()) for slot in change)
    ends = [
        problem.family.expectation(tuple(a + sign * size * b for a, b in zip(natural, change, strict=True)))
        for sign in (1.0, -1.0)
    ]
    slopes = [(a - b) / (2 * size) for a, b in zip(*ends, strict=True)]
    return float(np.sqrt(sum(np.sum(a * b) for a, b in zip(slopes, change, strict=True))))


@every_gaussian
def test_residual_and_displacement_are_lengths_in_the_fisher_metric(family: str) -> None:
    problem = problem_of(LOGISTIC, family)
    at = problem.evaluate(solve_client(problem, Tolerance(relative=0.3)).natural)
    target = problem.target(at)
    left = tuple(a - b for a, b in zip(target, at.natural, strict=True))
    moved = tuple(a - b for a, b in zip(at.natural, problem.natural_global, strict=True))
    assert problem.residual(at, target) == pytest.approx(fisher_length(problem, at.natural, left), rel=1e-6)
    assert problem.displacement(at, at.natural) == pytest.approx(fisher_length(problem, at.natural, moved), rel=1e-6)
    for far in (np.inf, np.nan, 1e200):
        beyond = tuple(np.full_like(slot, far) for slot in at.natural)
        assert problem.residual(at, beyond) == float("inf")


@pytest.mark.parametrize("limit", [1024, 1])
@every_gaussian
def test_the_rounding_floor_is_one_epsilon_of_every_term_of_the_map(
    family: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """λ_g, η/ρ, ∇L/ρ, and what an error of the mean makes of E[∇ℓ]: every part counts by itself."""
    monkeypatch.setattr(problem_module, "MATRIX_LIMIT", limit)
    rho = 0.2
    problem = problem_of(LOGISTIC, family, rho)
    at = problem.evaluate(problem.natural_global)
    assert isinstance(at.posterior, Gaussian)
    floor = problem.rounding(at)
    assert at.hessian is not None or family == "isotropic_gaussian"
    # the floor's length is that of errors with fixed signs: terms scale it as they are, each by its own factor
    whole = LOGISTIC.curvature(at.posterior)[2]
    own = np.diag(np.diag(whole)) if family == "diagonal_gaussian" and limit == 1 else whole
    terms = [
        (np.abs(g) + (np.abs(e) + np.abs(s)) / rho) * EPSILON
        for g, e, s in zip(problem.natural_global, problem.dual, at.natural_gradient, strict=True)
    ]
    terms[0] += EPSILON * np.abs(own) @ np.abs(at.posterior.mean) / rho
    total = 0.0
    for place, size in enumerate(terms):
        change = [np.zeros_like(slot) for slot in terms]
        change[place] = size * problem_module._signs(size.shape)
        total += fisher_length(problem, at.natural, tuple(change))
    assert floor == pytest.approx(total, rel=1e-5)


@every_gaussian
def test_the_objective_of_a_loss_at_the_mean_is_that_of_a_proximal_step(family: str) -> None:
    """L + ρ/2 ‖m − m_c‖² in S_c up to a constant, m_c and S_c the cavity's, whatever the precision."""
    client, rho = LOGISTIC.configured("delta"), 0.7
    problem = problem_of(client, family, rho)
    xi, operator = problem.family.canonical(problem.cavity)  # type: ignore[attr-defined]
    S = operator.plus(np.zeros((3, 3)))
    center = np.linalg.solve(S, xi)
    values = []
    for mean in (np.zeros(3), np.array([1.0, -2.0, 0.5])):
        q = problem.family.posterior(problem.natural_global)
        assert isinstance(q, Gaussian)
        at = problem.evaluate(problem.family.natural(Gaussian.of(mean, q.operator)))
        values.append(problem.objective(at) - client.loss(mean) - 0.5 * rho * (mean - center) @ S @ (mean - center))
    assert values[0] == pytest.approx(values[1], rel=1e-10)


def test_signs_of_rounding_errors_are_mixed_and_symmetric() -> None:
    vector, matrix = problem_module._signs((40,)), problem_module._signs((40, 40))
    for signs in (vector, matrix):
        assert set(np.unique(signs)) == {-1.0, 1.0} and abs(signs.mean()) < 0.3
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (matrix != matrix[0]).any() and np.linalg.matrix_rank(matrix) > 5


@pytest.mark.parametrize("family", [*FAMILIES, "gamma"])
def test_a_distribution_that_is_given_is_not_made_again(family: str) -> None:
    """It carries what is computed from it: a factor, quadrature nodes."""
    prior: Any = Gamma(2.0, 1.0) if family == "gamma" else None
    problem = plain(LogSquare(), family, prior, 1.0) if prior else problem_of(LOGISTIC, family)
    q = problem.family.posterior(problem.natural_global)
    tried = problem.try_evaluate(problem.natural_global, q)
    assert tried is not None and tried.posterior is q
    assert problem.evaluate(problem.natural_global, q).posterior is q
    again = problem.try_at(q)
    assert again is not None and again.posterior is q and problem.evaluations == 3
    for found, wanted in zip(again.natural, problem.natural_global, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)


# ---- ends ------------------------------------------------------------------------------------------------------------


@every_gaussian
@pytest.mark.parametrize("expectation", ["quadrature", "delta"])
def test_every_way_to_search_keeps_to_the_evaluations_it_is_given(family: str, expectation: str) -> None:
    client = LOGISTIC.configured(expectation)  # type: ignore[arg-type]
    enough = solve_client(problem_of(client, family), Tolerance(1e-12)).evaluations
    for limit in range(1, enough + 1):
        problem = problem_of(client, family)
        solution = solve_client(problem, Tolerance(1e-12, max_evaluations=limit))
        assert solution.evaluations == problem.evaluations == limit
        assert (solution.events == ()) == (limit == enough) == (solution.inexact == 0.0)


@every_gaussian
@pytest.mark.parametrize("expectation", ["quadrature", "delta"])
def test_a_residual_equal_to_the_tolerance_meets_it(family: str, expectation: str) -> None:
    client = LOGISTIC.configured(expectation)  # type: ignore[arg-type]
    near = solve_client(problem_of(client, family), Tolerance(1e-4))
    assert 1e-10 < near.residual < 1e-4
    again = solve_client(problem_of(client, family), Tolerance(near.residual))
    assert (again.evaluations, again.residual, again.inexact) == (near.evaluations, near.residual, 0.0)
    tighter = solve_client(problem_of(client, family), Tolerance(np.nextafter(near.residual, 0.0)))
    assert tighter.evaluations > near.evaluations


@every_gaussian
@pytest.mark.parametrize("expectation", ["quadrature", "delta"])
def test_a_start_that_is_given_is_not_evaluated_again(family: str, expectation: str) -> None:
    client = LOGISTIC.configured(expectation)  # type: ignore[arg-type]
    problem, again = (problem_of(client, family) for _ in range(2))
    alone = solve_client(problem, Tolerance(1e-10))
    started = solve_client(again, Tolerance(1e-10), again.bound.evaluate(again.natural_global))
    assert started.evaluations == again.evaluations == alone.evaluations - 1
    for found, wanted in zip(started.natural, alone.natural, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_displacement_is_asked_for_where_the_steps_that_led_there_leave_it_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not at λ_g; and from a start elsewhere at any point that is near enough."""
    near = problem_of(LOGISTIC, "full_gaussian")
    solved = solve_client(near, Tolerance(1e-12)).natural
    server = bind("full_gaussian", near.family.posterior(solved))
    # with η = ∇L at λ_g the solution is λ_g: a dual beside it leaves it near
    slope = near.bound.evaluate(solved).natural_gradient
    dual = tuple(slot * (1 + 1e-5) for slot in slope)
    problem = ClientProblem(BoundClient(0, LOGISTIC, server, 1.0), server.prior_natural, dual, 0.7)
    asked: list[Evaluation] = []
    measure = problem.displacement

    def noted(at: Evaluation, natural: Natural) -> float:
        asked.append(at)
        return measure(at, natural)

    monkeypatch.setattr(problem, "displacement", noted)
    start = problem.evaluate(problem.natural_global)
    assert problem.residual(start, problem.target(start)) < 1e-4
    solution = solve_client(problem, Tolerance(relative=1e-3), start)
    assert solution.evaluations <= 4 and 1 <= len(asked) <= 3 and asked[0] is not start
    elsewhere = problem_of(LOGISTIC, "full_gaussian")
    at = elsewhere.evaluate(elsewhere.family.natural(elsewhere.family.posterior(solved)))
    far = solve_client(elsewhere, Tolerance(relative=1e-3), at)
    assert far.evaluations == 1 and far.residual < 1e-10


class AtFloor(ClientProblem):
    """A problem whose map has the rounding errors it is said to have."""

    floor = 0.0

    def rounding(self, at: Evaluation) -> float:
        return self.floor


@pytest.mark.parametrize("size", [2e-2, 0.1])
def test_a_residual_at_the_rounding_floor_is_no_loss(size: float) -> None:
    """Kinks that would be lost, unless so many rounding errors explain them."""
    smooth = problem_of(LOGISTIC, "full_gaussian")
    mean = smooth.family.posterior(solve_client(smooth, Tolerance(1e-13)).natural).mean
    kinked = problem_of(Kinked(size, mean), "full_gaussian")
    problem = AtFloor(kinked.bound, kinked.natural_global, kinked.dual, kinked.rho)
    problem.floor = 2 * size / ROUNDINGS
    solution = solve_client(problem, Tolerance(1e-10))
    assert LOST_RESIDUAL < solution.inexact == solution.residual < 2 * size


@pytest.mark.parametrize(
    ("residual", "stalled", "floor", "meets"),
    [
        (1e-4, True, 1.0, True),
        (1e-4, False, 1.0, False),
        (5e-7, False, 1.0, True),
        (5e-7, False, 6e-8, True),
        (5e-7, False, 4e-8, False),
        (2e-3, True, 1.0, False),
        (1e-12, False, 0.0, True),
    ],
)
def test_a_residual_counts_as_rounding_where_it_is_small_or_no_longer_falls(
    residual: float, stalled: bool, floor: float, meets: bool
) -> None:
    plainly = problem_of(LOGISTIC, "full_gaussian")
    problem = AtFloor(plainly.bound, plainly.natural_global, plainly.dual, plainly.rho)
    problem.floor = floor
    at = problem.evaluate(problem.natural_global)
    search = _Search(problem, Tolerance(1e-12), at)
    assert search._meets(at, residual, stalled) == meets and not search.stopped_early


def test_a_search_that_starts_from_the_laplace_approximation_is_short() -> None:
    """The separable site: mixing from the prior stalls, from the mode it does not."""
    X = np.column_stack([np.ones(30), np.linspace(20.0, 80.0, 30)])
    problem = plain(PoissonRegression(X, np.arange(30) % 3), "full_gaussian", Gaussian(np.zeros(2), 1e-4), 0.25)
    solution = solve_client(problem, Tolerance(1e-9))
    assert solution.residual <= 1e-9 and solution.events == () and solution.evaluations <= 40


# ---- narrowing -------------------------------------------------------------------------------------------------------


class Wide:
    """ℓ whose curvature is `share` ρ times the precision of a posterior that has less than `needed`, and 0 beyond."""

    def __init__(self, needed: float, share: float, rho: float) -> None:
        self.needed, self.share = needed, share * rho

    def expectations(self, q: Gaussian) -> Any:
        precision = float(q.operator.diagonal[0])
        return 0.0, np.zeros(q.dim), np.eye(q.dim) * (self.share * precision if precision < self.needed else 0.0)


@pytest.mark.parametrize("rho", [0.25, 4.0])
@pytest.mark.parametrize("power", [0, 1, 2, 3, 4, 5, 6, 7, 12])
def test_a_laplace_approximation_narrows_by_the_least_power_of_four_in_few_evaluations(power: int, rho: float) -> None:
    problem = plain(Wide(0.9 * 4.0**power, 2.5, rho), "full_gaussian", Gaussian(np.zeros(2), 1.0), rho)
    q = problem.family.posterior(problem.natural_global)
    assert isinstance(q, Gaussian)
    at = laplace(problem, q, 400)
    assert at is not None and isinstance(at.posterior, Gaussian)
    np.testing.assert_allclose(at.posterior.precision, 4.0**power * np.eye(2), rtol=1e-12)
    # one at the mode; powers 0, 1, 3, 7, ... until one is enough, and then a bisection
    assert problem.evaluations == 1 + max(1, 2 * power.bit_length())


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_curvature_of_the_precisions_own_size_needs_no_narrowing(share: float) -> None:
    problem = plain(Wide(1e6, share, 0.5), "full_gaussian", Gaussian(np.zeros(2), 1.0), 0.5)
    q = problem.family.posterior(problem.natural_global)
    assert isinstance(q, Gaussian)
    at = laplace(problem, q, 400)
    assert at is not None and isinstance(at.posterior, Gaussian)
    np.testing.assert_allclose(at.posterior.precision, np.eye(2), rtol=1e-12)
    assert problem.evaluations == 2
    endless = plain(Wide(np.inf, 2.5, 0.5), "full_gaussian", Gaussian(np.zeros(2), 1.0), 0.5)
    assert laplace(endless, q, 400) is None
