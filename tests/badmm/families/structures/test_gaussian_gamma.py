"""Gaussian-gamma: regression with unknown noise is one round, and kernels and members are what A says."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import badmm
from badmm.data import tables
from badmm.families import registry
from badmm.families.structures.gaussian_gamma import GaussianGammaKernels
from badmm.likelihoods import GaussianRegression

NS = GaussianGammaKernels()
CLIENTS = 10


def diabetes() -> tuple[Any, Any]:
    loaded = tables.load_dataset("diabetes")
    return tables.prepare(loaded.X, loaded.names)(loaded.X), loaded.y


def pooled(X: Any, y: Any, prior: Any) -> tuple[Any, ...]:
    """m, S, a, β and 95 % Student-t intervals by the textbook's formulas, through one QR and residuals."""
    root = np.linalg.cholesky(prior.precision).T
    q, r = np.linalg.qr(np.vstack([X, root]))
    target = np.concatenate([y, root @ prior.mean])
    mean = np.linalg.solve(r, q.T @ target)
    rest = target - np.vstack([X, root]) @ mean
    shape, rate = prior.shape + 0.5 * len(y), prior.rate + 0.5 * rest @ rest
    deviation = np.sqrt(rate / shape) * np.sqrt(np.sum(np.linalg.inv(r) ** 2, axis=1))
    low, high = stats.t(2 * shape, loc=mean, scale=deviation).interval(0.95)
    return mean, r.T @ r, shape, rate, np.stack([low, high], axis=-1)


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_one_round_is_the_pooled_regression(mean: float) -> None:
    X, y = diabetes()
    parts = np.array_split(np.random.default_rng(0).permutation(len(y)), CLIENTS)
    clients = [GaussianRegression(X[part], y[part]) for part in parts]
    prior = badmm.GaussianGamma(np.full(X.shape[1], mean), 0.01, shape=0.5, rate=100.0)
    result = badmm.solve(clients, family="gaussian_gamma", prior=prior, rounds=1)
    q: Any = result.posterior
    m, S, shape, rate, interval = pooled(X, y, prior)
    assert result.history[-1].dual_residual < 1e-9
    assert q.mean == pytest.approx(m, rel=1e-12, abs=1e-12 * np.abs(m).max())
    assert q.precision == pytest.approx(S, rel=1e-12, abs=1e-12 * len(y))
    assert (q.shape, q.rate) == pytest.approx((shape, rate), rel=1e-12)
    assert q.interval(0.95) == pytest.approx(interval, rel=1e-12, abs=1e-12 * np.abs(interval).max())
    assert q.noise_variance == pytest.approx(rate / (shape - 1.0), rel=1e-12)
    evidence = sum(client.expected_loss(q) for client in clients) + NS.kl(
        result.natural, registry.bind("gaussian_gamma", prior).prior_natural
    )
    assert result.history[-1].objective == pytest.approx(evidence, rel=1e-12)


def test_weights_are_rows_given_twice_and_offsets_are_subtracted() -> None:
    X, y = diabetes()
    X, y = X[:30, :4], y[:30]
    weights, offset = np.arange(30) % 3.0, np.linspace(0, 5, 30)
    rows = np.repeat(np.arange(30), weights.astype(int))
    prior = badmm.GaussianGamma(np.zeros(4), 1.0, 2.0, 3.0)
    found: Any = badmm.solve(
        [GaussianRegression(X, y, weights, offset)], family="gaussian_gamma", prior=prior
    ).posterior
    want: Any = badmm.solve(
        [GaussianRegression(X[rows], (y - offset)[rows])], family="gaussian_gamma", prior=prior
    ).posterior
    for name, value in want.parameters().items():
        assert found.parameters()[name] == pytest.approx(value, rel=1e-11)


def members(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 3))
    return registry.bind("gaussian_gamma", badmm.GaussianGamma(rng.normal(size=3), root @ root.T + np.eye(3), 2.5, 0.7))


def test_the_expectation_is_the_gradient_of_the_log_partition() -> None:
    natural, step = members(0).prior_natural, 1e-6
    for slot, value in enumerate(NS.expectation_from_natural(*natural)):
        for index in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = [np.array(part) for part in natural]
                moved[slot][index] += sign * step
                moved[slot].T[index] = moved[slot][index] if slot == 1 else moved[slot].T[index]
                ends.append(NS.log_partition(*moved))
            twice = 2.0 if slot == 1 and index[0] != index[1] else 1.0
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(twice * value[index], rel=1e-6, abs=1e-7)


def test_the_maps_invert_each_other() -> None:
    natural = members(1).prior_natural
    back = NS.natural_from_expectation(*NS.expectation_from_natural(*natural))
    again = NS.natural_from_standard(*NS.standard_from_natural(*natural))
    for one, two, three in zip(natural, back, again, strict=True):
        assert two == pytest.approx(one, rel=1e-12) and three == pytest.approx(one, rel=1e-13)


def test_the_divergence_of_near_members_keeps_its_digits() -> None:
    family = members(2)
    q = family.prior_natural
    rng = np.random.default_rng(3)
    change = family.symmetrised(tuple(rng.normal(size=(1, *slot.shape)) for slot in q))
    p = tuple(a + 1e-7 * b[0] for a, b in zip(q, change, strict=True))
    moved = tuple((b - a)[None] for a, b in zip(q, p, strict=True))
    half_square = 0.5 * float(np.sum(family.whiten(q, moved) ** 2))
    assert 1e-15 < half_square < 1e-11
    assert family.kl(q, p) == pytest.approx(half_square, rel=2e-6)


def test_the_entropy_is_minus_the_expected_log_density() -> None:
    q: Any = members(4).prior
    rng = np.random.default_rng(5)
    tau = rng.gamma(q.shape, 1 / q.rate, 200_000)
    theta = q.mean + q.operator.root(rng.standard_normal((len(tau), 3))) / np.sqrt(tau)[:, None]
    gap = theta - q.mean
    squares = np.einsum("ni,ij,nj->n", gap, q.precision, gap)
    log_q = 1.5 * np.log(tau / (2 * np.pi)) + 0.5 * np.linalg.slogdet(q.precision)[1] - 0.5 * tau * squares
    log_q += stats.gamma(q.shape, scale=1 / q.rate).logpdf(tau)
    natural = members(4).prior_natural
    assert NS.entropy(*natural) == pytest.approx(-log_q.mean(), abs=5 * log_q.std() / np.sqrt(len(tau)))
    draws = q.sample(200_000)
    assert draws.mean(axis=0) == pytest.approx(q.mean, abs=0.02)
    inside = (draws >= q.interval(0.8)[:, 0]) & (draws <= q.interval(0.8)[:, 1])
    assert inside.mean(axis=0) == pytest.approx(np.full(3, 0.8), abs=0.005)


def test_moments_of_the_noise_and_of_coefficients_exist_above_a_shape_of_one() -> None:
    S = np.array([[2.0, 0.5], [0.5, 1.0]])
    q = badmm.GaussianGamma([1.0, -1.0], S, np.array([3.0]), np.array(4.0))
    assert q.noise_variance == 2.0 and q.dim == 2 and (q.shape, q.rate) == (3.0, 4.0)
    np.testing.assert_allclose(q.variance, 2.0 * np.diag(np.linalg.inv(S)), rtol=1e-14)
    np.testing.assert_allclose(q.noise_precision.parameters()["shape"], [3.0])
    assert q.noise_precision.mean == pytest.approx([0.75])
    broad = badmm.GaussianGamma([1.0, -1.0], S, 1.5, 4.0)
    assert broad.noise_variance == 8.0
    np.testing.assert_allclose(broad.variance, 8.0 * np.diag(np.linalg.inv(S)), rtol=1e-14)
    flat = badmm.GaussianGamma([1.0, -1.0], S, 1.0, 4.0)
    assert flat.noise_variance == np.inf and (flat.variance == np.inf).all()
    assert {name: np.shape(value) for name, value in q.parameters().items()} == {
        "mean": (2,),
        "precision": (2, 2),
        "shape": (1,),
        "rate": (1,),
    }
    half = q.interval(0.9)[:, 1] - q.mean
    wanted = stats.t(6.0).ppf(0.95) * np.sqrt(4.0 / 3.0 * np.diag(np.linalg.inv(S)))
    np.testing.assert_allclose(half, wanted, rtol=1e-12)
    np.testing.assert_allclose(q.interval(), q.interval(0.95))
    np.testing.assert_array_equal(q.sample(3), q.sample(3, seed=0))
    for level in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match=r"^level: expected a number in \(0, 1\), got"):
            q.interval(level)


def test_the_domain_is_where_the_bordered_matrix_is_definite() -> None:
    family = members(3)
    xi, S, a, b = family.prior_natural
    least = 0.5 * xi @ np.linalg.solve(S, xi)
    assert family.in_domain((xi, S, a, np.array([least * (1 + 1e-9)])))
    for bad in (
        (xi, S, a, np.array([least * (1 - 1e-9)])),
        (xi, -S, a, b),
        (xi, S, 0.0 * a, b),
        (xi, S, a, b * np.nan),
    ):
        assert not family.in_domain(bad)
    with pytest.raises(ValueError, match=r"^rate - xi\^T S\^-1 xi / 2: expected a positive number, got "):
        family.posterior((xi, S, a, np.array([0.5 * least])))
    eta = (0.0 * xi, 0.0 * S, -2.0 * a, 0.0 * b)
    assert family.required_rho(family.prior_natural, eta, None) == pytest.approx(2.0)
    more = (0.0 * xi, 0.0 * S, 0.5 * a, 0.0 * b)
    assert family.required_rho(family.prior_natural, eta, more) == pytest.approx(1.5)


def test_the_chart_is_in_units_of_its_reference() -> None:
    family = members(5)
    q: Any = family.prior
    chart = family.chart(q)
    x = chart.vector(q)
    np.testing.assert_allclose(x[:3], 0.0, atol=1e-14)
    np.testing.assert_allclose(x[[3, 5, 8]], 1.0, rtol=1e-14)  # the diagonal of D⁻¹SD⁻¹
    np.testing.assert_allclose(x[-2:], np.log([q.shape, q.rate]), rtol=1e-14)
    found = chart.point(x + np.array([1.0, *[0.0] * 8, np.log(2.0), 0.0]))
    assert found is not None
    moved: Any = found[1]
    assert moved.shape == pytest.approx(2.0 * q.shape) and moved.rate == pytest.approx(q.rate)
    deviation = 1.0 / np.sqrt(q.shape / q.rate * q.precision[0, 0])
    np.testing.assert_allclose(moved.mean - q.mean, [deviation, 0.0, 0.0], rtol=1e-12, atol=1e-14)
    for place, value in ((-1, 800.0), (-1, -800.0), (-2, 800.0), (-2, -800.0), (3, -1.0), (0, np.nan)):
        bad = x.copy()
        bad[place] = value
        assert chart.point(bad) is None


def test_what_does_not_fit_is_named() -> None:
    for shape, rate, message in ((-1.0, 1.0, "shape: expected a positive number, got -1.0"),
                                 (1.0, np.array([0.0]), "rate: expected a positive number, got 0.0")):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{message}$"):
            badmm.GaussianGamma(0.0, 1.0, shape, rate)
    with pytest.raises(ValueError, match=r"prior: expected badmm.GaussianGamma for family 'gaussian_gamma', got Gauss"):
        badmm.solve([GaussianRegression([[1.0]], [1.0])], family="gaussian_gamma", prior=badmm.Gaussian(0.0, 1.0))
    prior = badmm.GaussianGamma(np.zeros(2), 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="clients: expected parameters of length 2"):
        badmm.solve([GaussianRegression([[1.0]], [1.0])], family="gaussian_gamma", prior=prior)
    with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\), got 95"):
        badmm.GaussianGamma(0.0, 1.0, 1.0, 1.0).interval(95)
