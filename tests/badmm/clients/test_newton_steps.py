"""The parts of a client's search by themselves: Anderson's weights, the trust region's path, Newton's steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from badmm import Gaussian
from badmm.clients import newton as module
from badmm.clients.anderson import Anderson
from badmm.clients.charts import chart_around
from badmm.clients.newton import LONG, RADIUS, _Path, _steihaug, newton
from badmm.clients.problem import BoundClient, ClientProblem
from badmm.families.registry import bind
from badmm.likelihoods import LogisticRegression, Quadratic

RNG = np.random.default_rng(5)


def reference(points: list[np.ndarray], steps: list[np.ndarray], memory: int) -> np.ndarray:
    """Walker & Ni 2011 by least squares: the affine combination of x_i + f_i with the least ‖Σ a_i f_i‖."""
    x, f = points[-memory - 1 :], steps[-memory - 1 :]
    changes, moves = (np.stack([b - a for a, b in pairwise(each)], axis=1) for each in (f, x))
    weights = np.linalg.lstsq(changes, f[-1], rcond=None)[0]
    return np.asarray(x[-1] + f[-1] - (moves + changes) @ weights)


@pytest.mark.parametrize("memory", [1, 3, 8])
def test_mixing_proposes_what_least_squares_propose(memory: int) -> None:
    """From any points, more of them than are remembered, of sizes far apart; after a reset from the next one on."""
    rng, mixing = np.random.default_rng(0), Anderson(10, memory)
    points: list[np.ndarray] = []
    steps: list[np.ndarray] = []
    for i in range(12):
        if i == 7:
            mixing.reset()
            points, steps = [], []
        points.append(rng.normal(size=10) * 10.0 ** rng.integers(-3, 3))
        steps.append(rng.normal(size=10))
        found = mixing.propose(points[-1], steps[-1])
        if len(points) == 1:
            np.testing.assert_array_equal(found, points[-1] + steps[-1])
            assert not mixing.remembers
        else:
            np.testing.assert_allclose(found, reference(points, steps, memory), rtol=1e-6, atol=1e-8)
            assert mixing.remembers


def test_a_linear_map_is_solved_in_as_many_steps_as_it_has_dimensions() -> None:
    """And a point that comes again is no difficulty."""
    mixing, A, b = Anderson(4), 0.5 * RNG.normal(size=(4, 4)), RNG.normal(size=4)
    x = np.zeros(4)
    for _ in range(5):
        x = mixing.propose(x, A @ x + b - x)
    np.testing.assert_allclose(x, np.linalg.solve(np.eye(4) - A, b), rtol=1e-7)
    again = mixing.propose(x, A @ x + b - x)
    for _ in range(2):
        assert np.isfinite(mixing.propose(again, A @ again + b - again)).all()
    mixing.reset()
    assert mixing.propose(np.ones(4), np.ones(4)).tolist() == [2.0] * 4
    np.testing.assert_allclose(mixing.propose(np.full(4, 2.0), np.full(4, 0.5)), [3.0] * 4, rtol=1e-12)


# ---- the trust region ------------------------------------------------------------------------------------------------

N = 6
ROOT, OTHER = RNG.normal(size=(N, N)), RNG.normal(size=(N, N))
M, B, F = ROOT @ ROOT.T + np.eye(N), OTHER @ OTHER.T + 0.5 * np.eye(N), RNG.normal(size=N)


def path(matrix: np.ndarray, radius: float, f: np.ndarray = F, most: int = 100) -> tuple[_Path, int]:
    """The path on f·x + ½ x·Bx, and the number of products with B."""
    calls: list[int] = []

    def product(v: np.ndarray) -> np.ndarray | None:
        calls.append(1)
        return None if len(calls) > most else np.asarray(matrix @ v)

    found = _steihaug(product, lambda r: np.asarray(np.linalg.solve(M, r)), f, radius)
    return found, len(calls)


def value(x: np.ndarray, matrix: np.ndarray = B) -> float:
    return float(F @ x + 0.5 * x @ matrix @ x)


def assert_path(found: _Path, matrix: np.ndarray) -> None:
    """Begins at the origin; knows its products and its lengths in M; lengthens and descends from point to point."""
    assert found.lengths[0] == 0.0 and not found.points[0].any()
    for x, product, length in zip(found.points, found.products, found.lengths, strict=True):
        np.testing.assert_allclose(product, matrix @ x, rtol=1e-9, atol=1e-9)
        assert length == pytest.approx(np.sqrt(x @ M @ x), rel=1e-7)
    values = [value(x, matrix) for x in found.points]
    assert values == sorted(values, reverse=True) and found.lengths == sorted(found.lengths)


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-6])
def test_a_wide_region_holds_a_minimiser_the_better_the_smaller_the_gradient(scale: float) -> None:
    found, calls = path(B, 1e6, scale * F)
    assert found.lengths[-1] < 1e6 and calls == len(found.points) - 1 <= N
    first = scale * F @ np.linalg.solve(M, scale * F)
    forcing = float(np.clip(np.sqrt(first), 1e-4, 0.1))
    left = [(x @ B + scale * F) @ np.linalg.solve(M, x @ B + scale * F) for x in found.points]
    assert left[-1] <= forcing**2 * first
    assert all(one > forcing**2 * first for one in left[:-1])  # and no product more than that takes


def test_the_path_is_the_one_of_conjugate_gradients() -> None:
    found, _ = path(B, 1e6)
    assert_path(found, B)
    basis = np.linalg.solve(M, F)[:, None]
    for x in found.points[1:]:  # each point has the least value in its Krylov space
        best = -basis @ np.linalg.solve(basis.T @ B @ basis, basis.T @ F)
        np.testing.assert_allclose(x, best, rtol=1e-6, atol=1e-9)
        basis = np.linalg.qr(np.column_stack([basis, np.linalg.solve(M, B @ basis[:, -1])]))[0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_path_ends_on_the_edge_of_its_region(share: float) -> None:
    whole, _ = path(B, 1e6)
    radius = share * whole.lengths[-1]
    found, _ = path(B, radius)
    assert_path(found, B)
    assert found.lengths[-1] == pytest.approx(radius, rel=1e-9)
    inside = [length for length in whole.lengths if length < radius]
    np.testing.assert_allclose(found.lengths[:-1], inside, rtol=1e-12)
    if len(inside) == 1:  # straight down the preconditioned gradient
        down = -np.linalg.solve(M, F)
        np.testing.assert_allclose(found.points[-1], radius * down / np.sqrt(down @ M @ down), rtol=1e-9)


def test_negative_curvature_leads_to_the_edge() -> None:
    indefinite = B - 3.0 * M
    found, _ = path(indefinite, 7.0)
    assert_path(found, indefinite)
    assert found.lengths[-1] == pytest.approx(7.0, rel=1e-9)
    endless, _ = path(indefinite, np.inf)
    assert all(np.isfinite(point).all() for point in endless.points)


def test_a_path_without_a_slope_or_without_products_is_what_there_is() -> None:
    still, calls = path(B, 10.0, np.zeros(N))
    assert len(still.points) == 1 and calls == 0
    short, calls = path(B, 1e6, most=2)
    assert len(short.points) == 3 and calls == 3


def test_a_shorter_region_takes_the_path_up_to_its_edge() -> None:
    found = _Path()
    for x, length in (((0.0, 0.0), 0.0), ((1.0, 0.0), 1.0), ((1.0, 2.0), 3.0)):
        found.add(np.array(x), 10.0 * np.array(x), length)
    for radius, wanted in ((0.25, (0.25, 0.0)), (1.0, (1.0, 0.0)), (2.0, (1.0, 1.0)), (3.0, (1.0, 2.0))):
        point, product, length = found.within(radius)
        assert point == pytest.approx(wanted) and product == pytest.approx(10.0 * np.array(wanted))
        assert length == pytest.approx(radius)
    point, _, length = found.within(50.0)
    assert point.tolist() == [1.0, 2.0] and length == 3.0


# ---- Newton's method -------------------------------------------------------------------------------------------------


def problem_of(client: Any, family: str, mean: float = 0.0, precision: float = 1.0, dim: int = 3) -> ClientProblem:
    server = bind(family, Gaussian(np.full(dim, mean), precision))
    bound = BoundClient(0, client, server, 1.0)
    return ClientProblem(bound, server.prior_natural, tuple(np.zeros(s) for s in server.shapes), 1.0)


def test_one_step_solves_a_quadratic_in_the_mean() -> None:
    H = np.diag([1.0, 2.0, 3.0])
    problem = problem_of(Quadratic(H, np.ones(3)), "isotropic_gaussian", mean=2.0)
    first = next(newton(problem, problem.evaluate(problem.natural_global), 50))
    assert first.posterior.mean == pytest.approx(np.linalg.solve(H + np.eye(3), np.ones(3) + 2.0), rel=1e-12)
    assert problem.evaluations == 2  # where the whole curvature is known products need none


def test_a_step_longer_than_the_region_is_cut_and_the_region_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    """ℓ = 0 and a prior far away in its own deviations: steps of 10, 40, 160 posterior standard deviations."""
    problem = problem_of(Quadratic(np.zeros((1, 1)), np.array([1000.0])), "isotropic_gaussian", dim=1)
    start = problem.evaluate(problem.natural_global)
    judge, judged = module._decrease, []

    def noted(problem: Any, at: Any, there: Any, x: np.ndarray, f: np.ndarray, long: bool) -> float:
        judged.append(bool(np.abs(x).max() > LONG) == long)
        return judge(problem, at, there, x, f, long)

    monkeypatch.setattr(module, "_decrease", noted)
    means = [float(at.posterior.mean[0]) for at in newton(problem, start, 50)]
    assert len(judged) > 5 and all(judged)
    assert means[:4] == pytest.approx([RADIUS, 5 * RADIUS, 21 * RADIUS, 85 * RADIUS], rel=1e-6)
    assert means[4:] == pytest.approx([1000.0] * (len(means) - 4), rel=1e-6) and problem.evaluations <= 16


def test_iterates_end_at_the_tolerance_or_with_the_evaluations() -> None:
    X = RNG.normal(size=(30, 3))
    client = LogisticRegression(X, (RNG.random(30) < 0.3).astype(int))
    counts = []
    for tolerance in (1e-2, 1e-5, 0.0):
        problem = problem_of(client, "full_gaussian", mean=2.0)
        start = problem.evaluate(problem.natural_global)
        found = [start, *newton(problem, start, 300, tolerance=tolerance)]
        values = [problem.objective(at) for at in found]
        assert values[:3] == sorted(values[:3], reverse=True)
        residual = problem.residual(found[-1], problem.target(found[-1]))
        assert residual <= max(3 * tolerance, 1e-8)
        counts.append((len(found), problem.evaluations))
    assert counts[0] < counts[1] < counts[2] and counts[2][1] < 120
    for limit in (1, 2, 5, 10):
        problem = problem_of(client, "full_gaussian", mean=2.0)
        list(newton(problem, problem.evaluate(problem.natural_global), limit))
        assert problem.evaluations <= limit


@pytest.mark.parametrize("family", ["isotropic_gaussian", "full_gaussian"])
def test_newtons_method_ends_where_its_step_is_as_short_as_the_tolerance(family: str) -> None:
    """In posterior standard deviations, by the preconditioner: long before the solution and near it."""
    X = RNG.normal(size=(30, 3))
    problem = problem_of(LogisticRegression(X, X[:, 0] > 0.3), family, mean=1.0)
    at = problem.evaluate(problem.natural_global)
    length = np.inf
    while length > 0.01:
        chart = chart_around(problem, at)
        f = chart.equations(np.zeros(chart.size), at)
        length = float(np.sqrt(f @ chart.precondition(f)))
        assert list(newton(problem, at, 400, tolerance=1.001 * length)) == []
        at = next(newton(problem, at, 400, tolerance=0.999 * length))


class Bounded:
    """ℓ = −4 θ at the mean, which no client can tell beyond 1; its minimum there is at 4."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def expectations(self, q: Gaussian) -> Any:
        self.asked.append(float(q.mean[0]))
        inside = np.abs(q.mean) <= 1.0
        return (float(-4 * q.mean.sum()) if inside.all() else np.nan), np.full(q.dim, -4.0), np.zeros((q.dim, q.dim))


@pytest.mark.parametrize("family", ["isotropic_gaussian", "full_gaussian"])
def test_points_that_a_client_cannot_tell_are_refused_and_the_region_shrinks(family: str) -> None:
    client = Bounded()
    problem = problem_of(client, family, dim=1)
    found = [float(at.posterior.mean[0]) for at in newton(problem, problem.evaluate(problem.natural_global), 100)]
    assert found == sorted(found) and 0.9 < found[-1] <= 1.0 and problem.evaluations <= 100
    if family == "isotropic_gaussian":  # a region is a quarter of the step that was refused, and four times a good one
        assert client.asked[:7] == pytest.approx([0.0, 4.0, 1.0, 4.0, 1.75, 1.1875, 1.046875], rel=1e-9)
        assert len(client.asked) <= 19


class Wells:
    """ℓ = (θ² − 1)², whose second derivative at 0 is negative, taken at the mean."""

    def expectations(self, q: Gaussian) -> Any:
        t = q.mean
        return float(((t**2 - 1) ** 2).sum()), 4 * t * (t**2 - 1), np.diag(12 * t**2 - 4)


@pytest.mark.parametrize("start", [0.01, -0.3])
def test_a_loss_that_curves_down_is_left_along_its_slope(start: float) -> None:
    problem = problem_of(Wells(), "isotropic_gaussian", mean=0.0, precision=0.5, dim=1)
    at = problem.evaluate(bind("isotropic_gaussian", Gaussian(np.array([start]), 0.5)).prior_natural)
    *_, last = newton(problem, at, 60)
    # 4 θ (θ² − 1) + θ/2 = 0
    assert last.posterior.mean == pytest.approx([np.sign(start) * np.sqrt(1 - 1 / 8)], rel=1e-9)
    assert problem.evaluations < 20
