"""Supports, moments and quantiles of one-dimensional densities, and what a family's distributions accept."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma

import badmm
from badmm import Gamma, Gaussian
from badmm.families import registry
from badmm.families.inversion import Inversion, from_line
from badmm.families.precision import DiagonalPrecision, ScalarPrecision
from badmm_kernels.cpu.linalg import NearSingularWarning

INFINITY = float("inf")
SUPPORTS = [(-INFINITY, INFINITY), (0.0, INFINITY), (-1.5, INFINITY), (-INFINITY, 2.0), (-1.0, 3.0)]


@pytest.mark.parametrize(("low", "high"), SUPPORTS)
def test_the_line_is_mapped_onto_a_support_with_the_slope_that_is_told(low: float, high: float) -> None:
    u = np.linspace(-6.0, 6.0, 25)
    theta, slope = from_line(u, low, high)
    assert ((theta > low) & (theta < high)).all()
    step = 1e-6
    change = (from_line(u + step, low, high)[0] - from_line(u - step, low, high)[0]) / (2 * step)
    np.testing.assert_allclose(np.exp(slope), np.abs(change), rtol=1e-6)
    ends = [float(from_line(end, low, high)[0]) for end in (-40.0, 40.0)]
    if np.isfinite(low) or np.isfinite(high):
        near = sorted(ends)
        assert not np.isfinite(low) or near[0] == pytest.approx(low, abs=1e-12)
        assert not np.isfinite(high) or near[1] == pytest.approx(high, abs=1e-12)


LAWS: dict[str, tuple[Any, tuple[float, float]]] = {
    "normal": (stats.norm(3.0, 2.0), (-INFINITY, INFINITY)),
    "gamma": (stats.gamma(2.5, scale=0.5), (0.0, INFINITY)),
    "shifted": (stats.gamma(2.5, loc=-1.5, scale=0.5), (-1.5, INFINITY)),
    "beta": (stats.beta(2.0, 3.0, loc=-1.0, scale=4.0), (-1.0, 3.0)),
}


@pytest.mark.parametrize("name", LAWS)
def test_moments_and_quantiles_of_a_density(name: str) -> None:
    law, support = LAWS[name]

    def log_density(theta: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # at an end of the number range
            return np.asarray(law.logpdf(theta))

    found = Inversion(log_density, support)
    assert found.moment(0) == pytest.approx(1.0, abs=1e-12)
    assert found.moment(1) == pytest.approx(law.mean(), abs=1e-10)
    assert found.moment(2, law.mean()) == pytest.approx(law.var(), rel=1e-10)
    probability = np.array([1e-9, 1e-3, 0.25, 0.5, 0.9, 1 - 1e-6])
    theta = found.quantile(probability)
    np.testing.assert_allclose(law.cdf(theta), probability, rtol=1e-6, atol=1e-12)
    mode = float(from_line(found.mode, *support)[0])
    _, slope = from_line(np.asarray(found.mode), *support)
    assert found.top == pytest.approx(law.logpdf(mode) + float(slope), rel=1e-10)
    assert found.density(np.array([[found.mode]])) == pytest.approx(np.ones((1, 1)))


def test_scalars_and_vectors_of_parameters_are_of_one_length() -> None:
    q = Gamma(2.0, [1.0, 2.0, 4.0])
    assert q.dim == 3 and q.parameters()["shape"].tolist() == [2.0, 2.0, 2.0]
    assert Gamma(2.0, 1.0).dim == 1
    np.testing.assert_allclose(q.natural[0], 2.0)
    np.testing.assert_allclose(q.natural[1], [1.0, 2.0, 4.0])
    points = np.array([[0.5, 0.5, 0.5], [-1.0, 2.0, 0.0]])
    wanted = stats.gamma([2.0] * 3, scale=[1.0, 0.5, 0.25]).logpdf(points)
    np.testing.assert_allclose(q.log_density(points), wanted, rtol=1e-12)
    assert q.log_density(points).shape == (2, 3) and q.log_density(0.5).shape == (3,)


def test_draws_of_coordinates_are_independent_and_follow_the_seed() -> None:
    q = Gamma([2.0, 2.0], 1.0)
    draws = q.sample(500, seed=1)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.15
    assert not np.array_equal(draws, q.sample(500, seed=2))
    np.testing.assert_array_equal(q.sample(3), q.sample(3, seed=0))


def test_a_gaussian_is_made_of_scalars_vectors_and_matrices() -> None:
    assert Gaussian(1.0, 2.0).dim == 1
    assert Gaussian(1.0, np.ones(3)).mean.tolist() == [1.0] * 3
    assert Gaussian(np.zeros(2), 4.0).variance.tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match=r"^mean: expected 0 or 1 axes, got shape \(1, 2\)$"):
        Gaussian(np.zeros((1, 2)), 1.0)
    with pytest.raises(ValueError, match=r"^precision: expected 0 or 1 or 2 axes, got shape \(1, 1, 1\)$"):
        Gaussian(0.0, np.ones((1, 1, 1)))
    q = Gaussian([1.0, -1.0], np.array([[2.0, 0.5], [0.5, 1.0]]))
    assert q.whole_hessian and not Gaussian(0.0, [1.0]).whole_hessian
    np.testing.assert_allclose(q.covariance, np.linalg.inv(q.precision), rtol=1e-13)
    draws = q.sample(40_000, seed=5)
    assert draws.shape == (40_000, 2)
    np.testing.assert_allclose(draws.mean(axis=0), q.mean, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), q.covariance, atol=0.05)
    noise = np.random.default_rng(5).standard_normal((40_000, 2))
    np.testing.assert_array_equal(draws, q.transform(noise))
    np.testing.assert_array_equal(q.sample(2), q.sample(2, seed=0))
    X = np.array([[1.0, 2.0], [0.0, 1.0]])
    np.testing.assert_allclose(q.predictor_variance(X), np.diag(X @ q.covariance @ X.T), rtol=1e-13)
    assert repr(Gaussian(0.0, 2.0)) == "Gaussian(mean=array([0.]), precision=array(2.))"
    with pytest.raises(AttributeError, match=r"^mean: a Gaussian cannot be changed$"):
        q.mean = np.zeros(2)  # type: ignore[misc]


def test_what_the_registry_says_of_families() -> None:
    assert set(registry.names()) >= {"isotropic_gaussian", "diagonal_gaussian", "full_gaussian", "gamma", "exponential"}
    assert registry.arguments("gamma") == ("shape", "rate") and registry.fixed("gamma") == ()
    assert registry.arguments("isotropic_gaussian") == ("mean", "precision")
    assert registry.fixed("isotropic_gaussian") == ("precision",) and registry.fixed("full_gaussian") == ()
    assert registry.distribution("gamma") is badmm.Gamma and registry.distribution("full_gaussian") is Gaussian
    assert registry.takes_expectations("full_gaussian") and not registry.takes_expectations("gamma")
    assert registry.exported("Gamma") is badmm.Gamma and registry.exported("Nothing") is None
    assert registry.exported("FullGaussian") is None
    listed = ", ".join(registry.names())
    with pytest.raises(ValueError, match="family") as caught:
        registry.bind("cauchy", Gaussian(0.0, 1.0))
    assert str(caught.value) == f"family: expected one of {listed}, got 'cauchy'"


def test_families_that_leave_something_to_choose_are_named_with_what() -> None:
    for name, options in (("block_diagonal_gaussian", "blocks"), ("low_rank_gaussian", "rank")):
        kind: Any = registry.choice_class(name)
        with pytest.raises(ValueError, match="family") as caught:
            registry.bind(name, Gaussian(np.zeros(2), 1.0))
        wanted = f"family: expected badmm.{kind.__name__}({options}=...), got {name!r} alone"
        assert str(caught.value) == wanted
        assert registry.exported(kind.__name__) is registry.choice_class(name)
        assert registry.chosen(name, {options: 2}) == kind(2)
        assert registry.bind(kind(2), Gaussian(np.zeros(2), 1.0)).name == name
    assert registry.choice_class("gamma") is None and registry.chosen("gamma", {}) == "gamma"
    assert registry.choice_class("gaussian_gamma") is None
    with pytest.raises(ValueError, match="family") as caught:
        registry.bind(3, Gaussian(0.0, 1.0))  # type: ignore[arg-type]
    wanted = "family: expected a name or a choice such as badmm.BlockDiagonalGaussian, got int"
    assert str(caught.value) == wanted
    assert registry.exported("GaussianGamma") is badmm.GaussianGamma
    assert registry.takes_expectations("low_rank_gaussian") and not registry.takes_expectations("gaussian_gamma")


def test_a_raw_moment_is_a_ratio_of_partition_functions_where_it_exists() -> None:
    gamma = Gamma([0.4, 3.0], [2.0, 0.5])
    np.testing.assert_allclose(gamma._raw_moment(1), gamma.mean, rtol=1e-12)
    np.testing.assert_allclose(gamma._raw_moment(2), gamma.variance + gamma.mean**2, rtol=1e-12)
    heavy = badmm.InverseGamma([0.9, 3.5], 2.0)
    np.testing.assert_allclose(heavy._raw_moment(1), [np.inf, 2.0 / 2.5], rtol=1e-12)
    assert (badmm.Exponential([1.0, 2.0])._raw_moment(1) == np.inf).all()


def test_a_prior_with_the_same_parameters_in_every_coordinate() -> None:
    q: Any = registry.prior("gamma", {"rate": 2.0, "shape": 3.0}, 4)
    assert isinstance(q, badmm.Gamma) and q.dim == 4
    assert q.parameters()["rate"].tolist() == [2.0] * 4 and q.parameters()["shape"].tolist() == [3.0] * 4
    g: Any = registry.prior("isotropic_gaussian", {"mean": 0.5, "precision": 2.0}, 3)
    assert g.mean.tolist() == [0.5] * 3 and g.precision.shape == () and float(g.precision) == 2.0
    for values, got in (
        ({"shape": 1.0}, "shape"),
        ({}, "none"),
        ({"shape": 1.0, "rate": 1.0, "x": 1.0}, "shape, rate, x"),
    ):
        with pytest.raises(ValueError, match="prior") as caught:
            registry.prior("gamma", values, 2)
        assert str(caught.value) == f"prior: expected shape and rate (family = gamma), got {got}"


def test_a_fixed_scale_has_the_margin_of_its_prior_whatever_the_dual_and_the_growth() -> None:
    """Its λ is a whole line; and a diagonal is one where an array has it."""
    family: Any = registry.bind("isotropic_gaussian", Gaussian(np.zeros(2), 2.0))
    for growth in (None, (np.full(2, 3.0),), np.zeros(2)):
        assert family.required_rho(family.prior_natural, (np.array([-5.0, 4.0]),), growth) == 0.0
    diagonal = family.operator.like(np.array([1.0, 2.0]))
    assert type(diagonal) is DiagonalPrecision and type(family.operator.like(np.array(3.0))) is ScalarPrecision
    assert diagonal.spread_size == 2 and diagonal.coordinates(diagonal).tolist() == [1.0, 1.0]


def test_coordinates_on_a_whole_line_are_in_units_of_the_references_deviation() -> None:
    """λ √F of the reference: the logit of a Bernoulli in units of 1/√(p (1 − p))."""
    reference, other = badmm.Bernoulli([0.3, -2.0]), badmm.Bernoulli([1.0, 4.0])
    chart = registry.bind("bernoulli", reference).chart(reference)
    p = 1 / (1 + np.exp(-reference.natural[0]))
    np.testing.assert_allclose(chart.vector(other), other.natural[0] * np.sqrt(p * (1 - p)), rtol=1e-12)


def test_a_precision_that_a_structure_cannot_hold_is_named_with_what_it_holds() -> None:
    matrix = np.array([[2.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 1.0]])
    blocks = badmm.BlockDiagonalGaussian(blocks=(2, 1))
    for family, precision, wanted, got in (
        ("isotropic_gaussian", np.ones(3), "a scalar precision", "shape (3,)"),
        ("isotropic_gaussian", np.eye(3), "a scalar precision", "shape (3, 3)"),
        ("diagonal_gaussian", np.eye(3), "a scalar or vector precision", "shape (3, 3)"),
        (blocks, matrix, "0 outside the blocks of the precision", "0.5 at index (0, 2)"),
    ):
        name = family if isinstance(family, str) else "block_diagonal_gaussian"
        with pytest.raises(ValueError, match="prior") as caught:
            registry.bind(family, Gaussian(np.zeros(3), precision))
        assert str(caught.value) == f"prior: expected {wanted} for family {name!r}, got {got}"
        assert caught.value.__suppress_context__
    for family in ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian", blocks):
        bound: Any = registry.bind(family, Gaussian(np.arange(3.0), 2.0))
        np.testing.assert_array_equal(bound.prior.mean, np.arange(3.0))
        np.testing.assert_array_equal(bound.operator.plus(np.zeros((3, 3))), 2.0 * np.eye(3))
        assert bound.fixed == ({"precision": 2.0} if family == "isotropic_gaussian" else {})


def test_a_prior_of_another_family_is_named_with_what_is_wanted() -> None:
    for name, prior, wanted in (
        ("gamma", Gaussian(0.0, 1.0), "prior: expected badmm.Gamma for family 'gamma', got Gaussian"),
        ("full_gaussian", Gamma(1.0, 1.0), "prior: expected badmm.Gaussian for family 'full_gaussian', got Gamma"),
    ):
        with pytest.raises(ValueError, match="prior") as caught:
            registry.bind(name, prior)
        assert str(caught.value) == wanted
    with pytest.raises(NotImplementedError, match=r"^gamma: its clients give natural gradients$"):
        registry.bind("gamma", Gamma(1.0, 1.0)).natural_gradient(Gamma(1.0, 1.0), np.zeros(1), None)


@pytest.mark.parametrize("name", ["gamma", "isotropic_gaussian", "diagonal_gaussian", "full_gaussian"])
def test_the_domain_is_finite_and_open(name: str) -> None:
    prior: Any = Gamma([1.0, 2.0], 1.0) if name == "gamma" else Gaussian(np.ones(2), 2.0)
    family = registry.bind(name, prior)
    good = family.prior_natural
    assert family.in_domain(good) and family.inside(good) is not None
    for slot in range(len(good)):
        for bad in (np.nan, np.inf):
            changed = tuple(np.array(part) for part in good)
            changed[slot].flat[-1] = bad
            assert not family.in_domain(family.parameter(changed))
    if len(good) > 1:
        edge = (*(np.array(part) for part in good[:-1]), 0.0 * good[-1])
        assert not family.in_domain(family.parameter(edge)) and family.inside(family.parameter(edge)) is None


def test_mixing_suits_the_family() -> None:
    """Rounds under a free diagonal overshoot along correlations; a matrix is large and needs fewer rounds."""
    prior = Gaussian(np.zeros(2), 1.0)
    damping = {name: registry.bind(name, prior).mixed_damping for name in
               ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian")}  # fmt: skip
    assert damping == {"isotropic_gaussian": 1.0, "diagonal_gaussian": 0.7, "full_gaussian": 1.0}
    assert registry.bind("full_gaussian", prior).mixing_memory < registry.bind("diagonal_gaussian", prior).mixing_memory


def units(shapes: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, ...]:
    """Stacks of the unit changes of λ, of length 1 each; a matrix's are symmetric."""
    changes: list[tuple[np.ndarray, ...]] = []
    for slot, shape in enumerate(shapes):
        for index in np.ndindex(shape):
            unit = tuple(np.zeros(other) for other in shapes)
            unit[slot][index] = 1.0
            if len(shape) == 2:
                unit[slot][index[::-1]] = 1.0
                unit[slot][...] /= np.linalg.norm(unit[slot])
            if len(shape) < 2 or index[0] >= index[1]:
                changes.append(unit)
    return tuple(np.stack([change[slot] for change in changes]) for slot in range(len(shapes)))


MEMBERS: dict[str, Any] = {
    "gamma": Gamma([0.4, 3.0], [2.0, 0.3]),
    "exponential": badmm.Exponential([0.2, 5.0]),
    "isotropic_gaussian": Gaussian([3.0, -4.0], 0.5),
    "diagonal_gaussian": Gaussian([3.0, -4.0], [0.5, 2.0]),
    "full_gaussian": Gaussian([3.0, -4.0], np.array([[2.0, 0.6], [0.6, 0.5]])),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_bound_on_the_fisher_information_is_above_its_largest_eigenvalue_and_not_far(name: str) -> None:
    family = registry.bind(name, MEMBERS[name])
    whitened = family.whiten(family.prior_natural, units(family.shapes))
    largest = np.linalg.norm(whitened, 2) ** 2
    assert largest * (1 - 1e-9) <= family.fisher_bound(family.prior_natural) <= 3 * largest


@pytest.mark.parametrize("name", ["gamma", "exponential", "isotropic_gaussian", "diagonal_gaussian"])
def test_the_bound_on_the_fisher_information_is_a_coordinates_largest_trace(name: str) -> None:
    family = registry.bind(name, MEMBERS[name])
    squares = np.sum(family.whiten(family.prior_natural, units(family.shapes)) ** 2, axis=1)
    traces = squares.reshape(len(family.shapes), 2).sum(axis=0)
    assert family.fisher_bound(family.prior_natural) == pytest.approx(traces.max(), rel=1e-12)


@pytest.mark.parametrize(("shape", "rate", "scale"), [(3.0, 0.5, 1.0), (0.2, 5.0, 10.0), (40.0, 1e-2, 0.1)])
def test_the_bound_of_the_gaussian_gamma_is_above_its_largest_eigenvalue(
    shape: float, rate: float, scale: float
) -> None:
    S = scale * np.array([[2.0, 0.6], [0.6, 0.5]])
    family = registry.bind("gaussian_gamma", badmm.GaussianGamma([3.0, -4.0], S, shape, rate))
    whitened = family.whiten(family.prior_natural, units(family.shapes))
    largest = np.linalg.norm(whitened, 2) ** 2
    bound = family.fisher_bound(family.prior_natural)
    assert largest * (1 - 1e-9) <= bound <= 300 * largest
    v, of_gamma = 1 / np.linalg.eigvalsh(S)[0], polygamma(1, shape) + shape / rate**2
    wanted = shape / rate * v * 26.0 + 0.5 * v**2 + of_gamma * (2.0 + 25.0 + 0.25 * 25.0**2)
    assert bound == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("name", ["full_gaussian", "block_diagonal_gaussian"])
def test_a_nearly_singular_precision_is_warned_of_but_for_trial_points(name: str) -> None:
    choice = name if name == "full_gaussian" else badmm.BlockDiagonalGaussian(blocks=(2, 1))
    family: Any = registry.bind(choice, Gaussian(np.zeros(3), np.eye(3)))
    S = np.eye(3)
    S[0, 1] = S[1, 0] = 1.0 - 2.3e-16
    natural = family.parameter((np.ones(3), family.operator.own(S)))
    with pytest.warns(NearSingularWarning, match=r"^precision: nearly singular, reciprocal condition"):
        family.posterior(natural)
    with family.trial_points(), warnings.catch_warnings():
        warnings.simplefilter("error")
        family.posterior(natural)


def test_kernels_that_a_composed_family_does_not_have_are_named() -> None:
    ns = registry.bind("gaussian_gamma", badmm.GaussianGamma([0.0], 1.0, 1.0, 1.0)).ns
    with pytest.raises(AttributeError, match=r"^GaussianGammaKernels has no kernel 'nothing'$"):
        _ = ns.nothing
    with pytest.raises(AttributeError):
        _ = ns.nothing_f64


def test_points_of_any_shape_have_a_density_and_those_that_vanish_have_none() -> None:
    q = Gamma([1.0, 2.0, 3.0], 2.0)
    for points, shape in ((0.5, (3,)), ([0.5, 1.0, 2.0], (3,)), (np.full((4, 1), 0.5), (4, 3)), ([[0.5] * 3], (1, 3))):
        found = q.log_density(points)
        wanted = stats.gamma([1.0, 2.0, 3.0], scale=0.5).logpdf(points)
        assert found.shape == shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    inverse = badmm.InverseGaussian(0.5, 2.0)
    assert inverse.log_density(1e-290).tolist() == [-INFINITY] and np.isfinite(inverse.log_density(1e-2)).all()


def test_steps_of_a_chart_beyond_the_number_range_are_none_without_a_warning() -> None:
    family = registry.bind("gamma", Gamma([1.0], [1.0]))
    chart = family.chart(family.prior)
    for x in ([800.0, 0.0], [0.0, -800.0], [-800.0, 800.0]):
        assert chart.point(np.array(x)) is None


@pytest.mark.parametrize("name", ["gamma", "exponential"])
def test_the_margin_of_a_positive_slot_is_what_its_own_dual_asks_for(name: str) -> None:
    family = registry.bind(name, MEMBERS[name])
    natural = family.prior_natural
    for slot in range(len(natural)):
        for growth in (None, tuple(np.full(shape, 0.25) for shape in family.shapes)):
            dual = tuple(np.zeros(shape) for shape in family.shapes)
            dual[slot][1] = -3.0
            more = 0.0 if growth is None else 0.25
            wanted = max(float(np.max(-(eta + more) / own)) for eta, own in zip(dual, natural, strict=True))
            assert wanted == (3.0 - more) / natural[slot][1]
            assert family.required_rho(natural, dual, growth) == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_natural_parameter_from_outside_is_a_tuple_of_arrays_and_checked(name: str) -> None:
    family = registry.bind(name, MEMBERS[name])
    natural = tuple(np.array(slot) for slot in family.prior_natural)
    found = family.posterior(natural).parameters()
    for key, value in family.prior.parameters().items():
        np.testing.assert_allclose(found[key], value, rtol=1e-12)
    assert family.posterior(natural).dim == 2
    if name == "full_gaussian":
        for bad in (np.array([[2.0, 0.6], [0.1, 0.5]]), -np.eye(2), np.eye(3)):
            with pytest.raises(ValueError, match=r"^precision: expected "):
                family.posterior((natural[0], bad))
