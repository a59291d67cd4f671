"""The promises of a client's search: lengths in the Fisher metric, the rounding floor, when it ends, what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from badmm import Gamma, Gaussian
from badmm.clients import exact, problem as problem_module
from badmm.clients.exact import LOST_RESIDUAL, ROUNDINGS, Tolerance, _Search, solve_client
from badmm.clients.laplace import laplace
from badmm.clients.problem import EPSILON, BoundClient, ClientProblem, Evaluation
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


def started(family: str) -> tuple[_Search, np.ndarray, np.ndarray]:
    """A search at λ_g, its point and its step."""
    problem = problem_of(LOGISTIC, family)
    search = _Search(problem, Tolerance(1e-12), problem.evaluate(problem.natural_global))
    f = search._step(search.best)
    assert f is not None
    return search, search.coordinates.vector(search.best.posterior), f


class Steeper:
    """A client whose gradient is twice as large at every call: no step of its map is shorter than the last."""

    calls = 0

    def expectations(self, q: Gaussian) -> Any:
        self.calls += 1
        return 0.0, np.full(q.dim, 2.0**self.calls), np.eye(q.dim)


def test_a_step_is_damped_until_it_shortens_the_next_or_is_a_hundredth() -> None:
    """By 1, 0.4, 0.16, ..."""
    for limit, tries in ((400, 6), (4, 3)):
        problem = problem_of(Steeper(), "full_gaussian")
        search = _Search(problem, Tolerance(1e-12), problem.evaluate(problem.natural_global))
        x, f = search.coordinates.vector(search.best.posterior), search._step(search.best)
        assert f is not None
        assert search._damped(x, f, limit) is None and problem.evaluations == 1 + tries
    search, x, f = started("full_gaussian")
    problem = search.problem
    found = search._damped(x, 40.0 * f, 400)
    assert found is not None and found[1] is not None and problem.evaluations > 2
    damping = 0.4 ** (problem.evaluations - 2)
    moved = search.coordinates.vector(found[0].posterior) - x
    np.testing.assert_allclose(moved, damping * 40.0 * f, rtol=1e-9, atol=1e-12)
    assert np.linalg.norm(found[1]) < (1 - 0.1 * damping) * 40.0 * np.linalg.norm(f)


@pytest.mark.parametrize(
    ("shrinks", "tries"), [((0.89,), 1), ((0.91, 0.95), 2), ((0.91, 0.97, 0.97), 3), ((1.1,) * 9, 6)]
)
def test_a_damped_step_counts_where_the_next_is_shorter_by_a_tenth_of_the_damping(
    shrinks: tuple[float, ...], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, x, f = started("full_gaussian")
    left = iter(shrinks)
    asked: list[Any] = []

    def scripted(point: Any) -> Any:
        asked.append(point)
        return search.best, next(left) * f

    monkeypatch.setattr(search, "_try", scripted)
    found = search._damped(x, f, 400)
    assert (found is None) == (tries == 6) and len(asked) == tries


@pytest.mark.parametrize(
    ("family", "size", "refused", "lengths"),
    [
        ("diagonal_gaussian", 4.0, (), [4.0, 4.0, 4.0]),
        ("diagonal_gaussian", 50.0, (), [10.0, 40.0, 50.0, 50.0]),
        ("diagonal_gaussian", 50.0, (0, 1), [10.0, 2.5, 0.625, 2.5, 10.0, 40.0]),
        ("full_gaussian", 5e3, (0,), [1e3, 100.0, 400.0, 1600.0, 5e3]),
        ("full_gaussian", 4e5, (2,), [1e3, 4e3, 16e3, 400.0, 1600.0]),
        ("diagonal_gaussian", 50.0, (1, 2, 3), [10.0, 40.0, 10.0, 2.5, 0.625, 2.5, 10.0]),
    ],
)
def test_steps_far_from_the_solution_keep_to_a_radius(
    family: str, size: float, refused: tuple[int, ...], lengths: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that the radius cut widens it fourfold; one that does not lower the objective shortens it."""
    search, _, _ = started(family)
    taken: list[float] = []

    class Recorded:
        """Coordinates whose steps are noted, and the last of which is near."""

        def __init__(self, *_: Any) -> None: ...

        def vector(self, q: Any) -> np.ndarray:
            return np.zeros(2)

        def point(self, x: np.ndarray) -> Any:
            taken.append(float(np.linalg.norm(x)))
            search.latest = 5.0 if len(taken) < len(lengths) else 0.5
            return search.best.natural, search.best.posterior

    values = [0.0 if number in refused else -1.0 - number for number in range(len(lengths))]
    monkeypatch.setattr(exact, "ChartedProblem", Recorded)
    monkeypatch.setattr(search, "coordinates", Recorded())
    monkeypatch.setattr(search, "latest", 5.0)
    monkeypatch.setattr(search, "_step", lambda at: np.array([0.6, 0.8]) * size)
    monkeypatch.setattr(search, "_note", lambda at: None)
    monkeypatch.setattr(search.problem, "objective", lambda at: values[len(taken) - 1] if taken else 0.0)
    search.descend()
    assert taken == pytest.approx(lengths, rel=1e-12)


def test_mixing_ends_where_twelve_steps_in_a_row_do_not_halve_the_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that halves it begins the count anew."""
    for halved, wanted in ((None, 12), (4, 16)):
        search, _, f = started("full_gaussian")
        asked: list[int] = []

        def scripted(point: Any, search: Any = search, f: Any = f, asked: Any = asked, halved: Any = halved) -> Any:
            asked.append(1)
            search.residual *= 0.4 if len(asked) == halved else 0.6
            return search.best, 0.9 ** len(asked) * f

        monkeypatch.setattr(search, "_try", scripted)
        search.mix(search.best)
        assert len(asked) == wanted and not search.solved()


def test_mixing_takes_forty_evaluations_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, wanted in ((400, 40), (25, 25)):
        search, _, f = started("full_gaussian")
        search.max_evaluations = most
        asked: list[int] = []

        def scripted(point: Any, search: Any = search, f: Any = f, asked: Any = asked) -> Any:
            asked.append(1)
            search.problem.evaluations += 1
            search.residual *= 0.4
            return search.best, 0.9 ** len(asked) * f

        search.problem.evaluations = 0
        monkeypatch.setattr(search, "_try", scripted)
        search.mix(search.best)
        assert len(asked) == wanted


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


@pytest.mark.parametrize(
    ("rates", "latest", "told"),
    [
        ([], 1e-3, None),
        ([0.6], 1e-6, None),
        ([0.01, 0.6, 0.01], 1e-6, None),
        ([0.5], 1e-4, 1e-4),
        ([0.2], 1e-4, 6e-5),
        ([0.01, 0.1, 0.05], 2e-3, 6e-4),
        ([0.1], 0.5, None),
        ([np.nan], 1e-6, None),
    ],
)
def test_the_next_point_is_foreseen_by_the_slowest_fall(rates: list[float], latest: float, told: float | None) -> None:
    """Within 10⁻³ of a displacement of about 1; what is told is three times as much, but no more than the last."""
    problem = problem_of(LOGISTIC, "full_gaussian")
    at = problem.evaluate(solve_client(problem, Tolerance(1e-4)).natural)
    search = _Search(problem, Tolerance(relative=1e-3), problem.evaluate(problem.natural_global))
    assert problem.displacement(at, at.natural) > 0.5
    search.rates, search.latest, search._path = rates, latest, np.inf
    assert not search._foresees(at, None)
    assert search._foresees(at, (at.natural, at.posterior)) == (told is not None) == search.solved()
    if told is not None:
        assert search.residual == pytest.approx(told) and search.natural is at.natural and search.stopped_early
        assert search.best is at


def test_only_a_rate_that_led_near_is_kept() -> None:
    search, _, _ = started("full_gaussian")
    for latest, kept in ((0.5, [0.3]), (1.0, [0.3]), (1.5, [])):
        search.rates, search.latest = [0.1, 0.3], latest
        search._keep_near_rate()
        assert search.rates == kept


class Flat:
    """ℓ = 10 √(1 + θ²) at the mean, whose Newton step from afar leads far beyond the solution."""

    at_mean = True

    def __init__(self) -> None:
        self.asked: list[float] = []

    def expectations(self, q: Gaussian) -> Any:
        self.asked.append(float(q.mean[0]))
        root = np.sqrt(1 + q.mean**2)
        return 10 * float(root.sum()), 10 * q.mean / root, np.diag(10 / root**3)


def test_a_newton_step_that_raises_the_objective_is_quartered_and_the_next_may_be_four_times_as_long() -> None:
    client = Flat()
    problem = plain(client, "full_gaussian", Gaussian([5.0], [[1e-3]]), 1.0)
    search = _Search(problem, Tolerance(1e-10), problem.evaluate(problem.natural_global))
    search.newton(search.best)
    assert search.solved() and problem.evaluations <= 15

    def objective(m: float) -> float:
        return float(10 * np.sqrt(1 + m * m) + 0.5e-3 * (m - 5) ** 2)

    slope, curvature = 50 / np.sqrt(26), 10 / 26**1.5 + 1e-3
    shares = [(5.0 - m) / (slope / curvature) for m in client.asked[1:4]]
    refused = next(i for i, m in enumerate(client.asked[1:]) if objective(m) < objective(5.0))
    assert refused >= 1 and shares[: refused + 1] == pytest.approx([0.25**i for i in range(refused + 1)], rel=1e-6)
    here = client.asked[refused + 1]
    step = (10 * here / np.sqrt(1 + here**2) + 1e-3 * (here - 5)) / (10 / (1 + here**2) ** 1.5 + 1e-3)
    assert here - client.asked[refused + 2] == pytest.approx(min(1.0, 4 * 0.25**refused) * step, rel=1e-6)


class Cliff:
    """A loss that slopes down at the mean and is finite within a distance of it; notes where it is asked for."""

    at_mean = True

    def __init__(self, reach: float) -> None:
        self.reach = reach
        self.asked: list[np.ndarray] = []

    def expectations(self, q: Gaussian) -> Any:
        self.asked.append(q.mean)
        if np.abs(q.mean).max() > self.reach:
            return np.inf, np.zeros(q.dim), np.eye(q.dim)
        return float(-q.mean.sum()), -np.ones(q.dim), np.eye(q.dim)


@pytest.mark.parametrize(("reach", "tried"), [(0.3, 2), (0.02, 4), (1e-6, 8)])
def test_a_newton_step_is_quartered_until_the_client_can_be_evaluated_or_it_is_none(reach: float, tried: int) -> None:
    """From 0 to the mean's solution at ½, down to 4⁻⁶ of it; no evaluation beyond what it is given."""
    for limit in (400, 3):
        client = Cliff(reach)
        problem = plain(client, "full_gaussian", Gaussian(np.zeros(2), 1.0), 1.0)
        search = _Search(problem, Tolerance(1e-12, max_evaluations=limit), problem.evaluate(problem.natural_global))
        search.newton(search.best)
        means = [float(mean[0]) for mean in client.asked]
        shares = [0.5 * 0.25**power for power in range(min(tried, limit) - 1)]
        assert means[1 : len(shares) + 1] == pytest.approx(shares, rel=1e-12)
        if reach < 1e-3 or limit == 3:
            assert len(means) <= min(tried, limit) or reach > 0.1


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
