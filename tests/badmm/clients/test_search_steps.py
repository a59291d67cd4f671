"""A client's search step by step: damping, radii, stalls, what is foreseen, and Newton's quartered steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from badmm import Gaussian
from badmm.clients import exact
from badmm.clients.at_mean import MeanSearch
from badmm.clients.exact import _Search, solve_client
from badmm.clients.tolerance import Tolerance
from tests.badmm.clients.test_bound_clients import LOGISTIC, problem_of
from tests.badmm.clients.test_search import plain


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
    search = MeanSearch(problem, Tolerance(1e-10), problem.evaluate(problem.natural_global))
    assert search.run() is not None and problem.evaluations <= 15

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
        tolerance = Tolerance(1e-12, max_evaluations=limit)
        MeanSearch(problem, tolerance, problem.evaluate(problem.natural_global)).run()
        means = [float(mean[0]) for mean in client.asked]
        shares = [0.5 * 0.25**power for power in range(min(tried, limit) - 1)]
        assert means[1 : len(shares) + 1] == pytest.approx(shares, rel=1e-12)
        if reach < 1e-3 or limit == 3:
            assert len(means) <= min(tried, limit) or reach > 0.1
