"""Low-rank-plus-diagonal Gaussians: nearest members, messages of their size, and the central stationary point."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

import badmm
from badmm import LowRankGaussian
from badmm.families import registry
from badmm.families.structures import low_rank_gaussian as module
from badmm.families.structures.low_rank_gaussian import LowRank, nearest
from badmm.likelihoods import Quadratic
from validation.oracles.low_rank import solve_low_rank
from validation.problems import problem

SUITE = {"poisson/situps/sorted-5": 1, "poisson/diabetes/label-10": 2}


def curvature(d: int, seed: int) -> Any:
    root = np.random.default_rng(seed).normal(size=(d, d))
    return root @ root.T + 0.5 * np.eye(d)


def member(d: int = 6, rank: int = 2, seed: int = 0) -> LowRank:
    rng = np.random.default_rng(seed)
    return LowRank(rng.uniform(0.5, 2.0, d), rng.normal(size=(d, rank)))


def test_a_member_is_its_own_nearest() -> None:
    true = member()
    found = nearest(true.matrix, 2)
    assert found.matrix == pytest.approx(true.matrix, rel=1e-10, abs=1e-10)


def test_the_nearest_member_is_a_minimum_of_the_divergence() -> None:
    target = curvature(5, 1)
    found = nearest(target, 1)

    def divergence(x: Any) -> float:
        S = np.diag(x[:5]) + np.outer(x[5:], x[5:])
        return float(np.linalg.slogdet(S)[1] + np.sum(target * np.linalg.inv(S)))

    x = np.concatenate([found.diagonal, found.factor.ravel()])
    assert approx_fprime(x, divergence, 1e-6) == pytest.approx(np.zeros(10), abs=2e-4)
    rng = np.random.default_rng(0)
    assert all(divergence(x + 1e-2 * rng.normal(size=10)) > divergence(x) for _ in range(20))
    assert np.diag(found.matrix) == pytest.approx(np.diag(target), rel=1e-9)  # factor analysis keeps the diagonal


@pytest.mark.parametrize("way", ["tangent", "completed"])
def test_a_sum_is_seen_as_it_was(way: str) -> None:
    at, B = member(), curvature(6, 2)
    seen = at.seen(B)
    back = at.matrix_of(*at.tangent(seen)) if way == "tangent" else at.completed(seen)
    assert at.seen(back) == pytest.approx(seen, rel=1e-9, abs=1e-10)
    assert at.seen(B + back) == pytest.approx(2 * seen, rel=1e-9, abs=1e-10)


def test_the_tangent_is_the_nearest_in_the_fisher_metric() -> None:
    at, B = member(), curvature(6, 3)
    gap = B - at.matrix_of(*at.tangent(at.seen(B)))
    rng = np.random.default_rng(0)
    for _ in range(5):
        other = at.matrix_of(rng.normal(size=6), rng.normal(size=(6, 2)))
        assert np.trace(at.covariance @ gap @ at.covariance @ other) == pytest.approx(0.0, abs=1e-8)


def test_a_step_moves_diagonal_and_factor_along_the_tangent() -> None:
    """D + tδ and U + tV, V in units of U's columns; the columns of the new U are orthogonal; a column of 0 stays."""
    at, rng = member(), np.random.default_rng(1)
    delta, v = rng.normal(size=6), rng.normal(size=(6, 2))
    lengths = np.linalg.norm(at.factor, axis=0)
    np.testing.assert_allclose(at.basis, at.factor / lengths, rtol=1e-14)
    for step in (1.0, 0.25):
        moved = at.moved(delta, v, step)
        factor = at.factor + step * v / lengths
        np.testing.assert_allclose(moved.diagonal, at.diagonal + step * delta, rtol=1e-14)
        np.testing.assert_allclose(moved.matrix, np.diag(moved.diagonal) + factor @ factor.T, rtol=1e-12, atol=1e-12)
        gram = moved.factor.T @ moved.factor
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    slope = (at.moved(delta, v, 1e-6).matrix - at.matrix) / 1e-6
    np.testing.assert_allclose(slope, at.matrix_of(delta, v), atol=1e-4)
    np.testing.assert_allclose(at.matrix_of(delta, v), np.diag(delta) + v @ at.basis.T + at.basis @ v.T, rtol=1e-13)
    flat = LowRank(at.diagonal, np.column_stack([at.factor[:, 0], np.zeros(6)]))
    assert flat.moved(delta, v, 1.0).matrix == pytest.approx(
        np.diag(at.diagonal + delta) + np.outer(*[at.factor[:, 0] + v[:, 0] / lengths[0]] * 2), rel=1e-12
    )
    np.testing.assert_allclose(np.linalg.norm(flat.basis, axis=0), 1.0, rtol=1e-14)
    np.testing.assert_array_equal(flat.basis, LowRank(at.diagonal, flat.factor).basis)
    assert LowRank(-at.diagonal, at.factor * 0.0).covariance is None


def test_what_tangents_see_is_linear_and_is_the_projections_formula() -> None:
    at, B = member(), curvature(6, 4)
    sigma = np.linalg.inv(at.matrix)
    white = sigma @ B @ sigma
    assert at.covariance == pytest.approx(sigma, rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(at.seen(B), np.concatenate([np.diag(white), (white @ at.basis).ravel()]), rtol=1e-9)
    completed = at.completed(at.seen(B))
    assert np.linalg.eigvalsh(completed)[0] > 0 and np.array_equal(completed, completed.T)
    indefinite = at.seen(-B)
    np.testing.assert_allclose(at.completed(indefinite), at.matrix_of(*at.tangent(indefinite)), rtol=1e-12)


def test_the_search_for_the_nearest_takes_few_steps_from_a_member_near(monkeypatch: pytest.MonkeyPatch) -> None:
    target, calls = curvature(6, 5), []
    whole = nearest(target, 2)
    work = module._objective

    def counted(at: LowRank, goal: Any) -> float:
        calls.append(1)
        return work(at, goal)

    monkeypatch.setattr(module, "_objective", counted)
    again = nearest(target, 2, whole)
    assert len(calls) <= 6
    np.testing.assert_allclose(again.matrix, whole.matrix, rtol=1e-9, atol=1e-10)
    calls.clear()
    nearest(target, 2)
    assert len(calls) < 100
    lost = LowRank(whole.diagonal, np.column_stack([whole.factor[:, 0], np.zeros(6)]))
    np.testing.assert_allclose(nearest(target, 2, lost).matrix, whole.matrix, rtol=1e-8, atol=1e-8)
    seen = whole.seen(target - whole.matrix)
    assert np.abs(seen).max() < 1e-9  # stationary: no tangent sees what is left


def test_the_closest_member_keeps_the_mean_and_a_diagonal_has_no_factor() -> None:
    prior = badmm.Gaussian(np.zeros(6), np.arange(1.0, 7.0))
    family: Any = registry.bind(LowRankGaussian(2), prior)
    first = family.parameter(family.prior_natural).member
    np.testing.assert_array_equal(first.diagonal, np.arange(1.0, 7.0))
    assert not first.factor.any() and first.factor.shape == (6, 2)
    target, mean = curvature(6, 6), np.linspace(-1, 1, 6)
    found = family.closest((target @ mean, target), family.prior_natural)
    np.testing.assert_allclose(family.posterior(found).mean, mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[1], nearest(target, 2).matrix, rtol=1e-8, atol=1e-9)
    again = family.unpack(family.pack(found))
    for one, other in zip(again, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-14)
    sent = family.pack_sum((target @ mean, target), found)
    np.testing.assert_allclose(sent[:6], target @ mean - target @ family.posterior(found).mean, atol=1e-12)
    back = family.unpack_sum(sent, found, found)
    np.testing.assert_allclose(family.pack_sum(back, found), sent, rtol=1e-8, atol=1e-9)
    with pytest.raises(ValueError, match=r"^natural: expected a vector of 24 numbers, got shape \(23,\)$"):
        family.unpack_sum(sent[:-1], found, found)
    assert not family.keeps_curvature and family.mixed_damping == 0.7 and family.rank == 2


def test_a_natural_parameter_that_comes_without_its_factor_finds_it() -> None:
    true = member()
    family: Any = registry.bind(LowRankGaussian(2), badmm.Gaussian(np.zeros(6), 1.0))
    found = family.parameter((np.ones(6), true.matrix)).member
    np.testing.assert_allclose(found.matrix, true.matrix, rtol=1e-9, atol=1e-9)
    assert found.factor.shape == (6, 2)
    packed = family.pack((np.ones(6), true.matrix))
    assert packed.shape == (24,)
    np.testing.assert_allclose(family.unpack(packed)[1], true.matrix, rtol=1e-9, atol=1e-9)


def test_a_message_has_the_size_of_the_manifold() -> None:
    d, rank = 9, 2
    clients = [Quadratic(curvature(d, k), np.ones(d)) for k in range(3)]
    result = badmm.solve(clients, family=LowRankGaussian(rank), prior=badmm.Gaussian(np.zeros(d), 1.0), rounds=1)
    family = registry.bind(LowRankGaussian(rank), badmm.Gaussian(np.zeros(d), 1.0))
    assert family.message_doubles == d * (rank + 2)
    full = badmm.solve(clients, family="full_gaussian", prior=badmm.Gaussian(np.zeros(d), 1.0), rounds=1)
    saved = full.history[-1].bytes_up - result.history[-1].bytes_up
    assert saved == 8 * 3 * (d * (d + 1) // 2 - d * (rank + 1))


def test_quadratics_of_the_structure_are_exact() -> None:
    d = 7
    loading = np.random.default_rng(1).normal(size=(d, 2))
    parts = [Quadratic(np.diag(np.full(d, 1.0 + k)) + loading @ loading.T / 4, np.arange(d) + 1.0) for k in range(4)]
    prior = badmm.Gaussian(np.zeros(d), 0.5)
    result = badmm.solve(parts, family=LowRankGaussian(2), prior=prior, tol=1e-9)
    precision = 0.5 * np.eye(d) + sum(part.hessian for part in parts)
    found: Any = result.posterior
    assert result.converged
    assert found.precision == pytest.approx(precision, rel=1e-7, abs=1e-7)
    assert found.mean == pytest.approx(np.linalg.solve(precision, sum(part.linear for part in parts)), rel=1e-7)


@pytest.mark.parametrize("name", SUITE)
def test_the_fixed_point_is_the_central_solution(name: str) -> None:
    case, rank = problem(name), SUITE[name]
    prior = badmm.Gaussian(np.zeros(case.dim), case.prior_precision)
    result = badmm.solve(case.clients(), family=LowRankGaussian(rank), prior=prior, tol=1e-10)
    want = solve_low_rank(case, rank)
    assert result.converged and want.residual < 1e-9
    found: Any = result.posterior
    assert np.linalg.norm(found.precision - want.precision) < 1e-8 * np.linalg.norm(want.precision)
    assert np.linalg.norm(found.mean - want.mean) < 1e-8 * np.linalg.norm(want.mean)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"rank: expected at most 3 \(the prior's length\), got 4"):
        registry.bind(LowRankGaussian(4), badmm.Gaussian(np.zeros(3), 1.0))
    assert type(LowRankGaussian(np.int64(2)).rank) is int
    with pytest.raises(ValueError, match="rank: expected a positive integer, got 0"):
        LowRankGaussian(0)
    with pytest.raises(ValueError, match="prior: expected a scalar or vector precision for family 'low_rank_gaussian'"):
        registry.bind(LowRankGaussian(1), badmm.Gaussian(np.zeros(3), curvature(3, 0)))
