"""The distribution classes that a family's file makes: arguments, moments, densities, quantiles, draws."""

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

import badmm
from badmm.families import registry
from badmm.families.classes import distribution_class
from badmm.families.factorised import Factorised
from badmm.families.inversion import Inversion

MEMBERS: dict[str, tuple[Factorised, Any]] = {
    "gamma": (badmm.Gamma([0.3, 1.0, 40.0], [2.0, 0.5, 9.0]), stats.gamma([0.3, 1.0, 40.0], scale=[0.5, 2.0, 1 / 9])),
    "exponential": (badmm.Exponential([0.2, 5.0]), stats.expon(scale=[5.0, 0.2])),
    "inverse_gamma": (badmm.InverseGamma([3.5, 40.0], [2.0, 9.0]), stats.invgamma([3.5, 40.0], scale=[2.0, 9.0])),
    "inverse_gaussian": (
        badmm.InverseGaussian([0.5, 3.0], [2.0, 0.7]),
        stats.invgauss([0.25, 3.0 / 0.7], scale=[2.0, 0.7]),
    ),
    "log_normal": (badmm.LogNormal([-1.0, 2.0], [4.0, 0.5]), stats.lognorm([0.5, 2**0.5], scale=np.exp([-1.0, 2.0]))),
    "laplace": (badmm.Laplace([0.3, 4.0], location=-2.0), stats.laplace(-2.0, [0.3, 4.0])),
    "weibull": (badmm.Weibull([0.5, 3.0], shape=0.7), stats.weibull_min(0.7, scale=[0.5, 3.0])),
    "beta": (badmm.Beta([0.4, 7.0], [3.0, 2.0]), stats.beta([0.4, 7.0], [3.0, 2.0])),
    "bernoulli": (badmm.Bernoulli([-2.0, 0.3]), stats.bernoulli(expit([-2.0, 0.3]))),
    "binomial": (badmm.Binomial([-2.0, 0.3], trials=9), stats.binom(9, expit([-2.0, 0.3]))),
    "geometric": (badmm.Geometric([0.4, 20.0]), stats.nbinom(1, [1 / 1.4, 1 / 21.0])),
    "negative_binomial": (badmm.NegativeBinomial([0.4, 20.0], size=2.5), stats.nbinom(2.5, [2.5 / 2.9, 2.5 / 22.5])),
    "normal_gamma": (
        badmm.NormalGamma([1.5, 40.0], [2.0, 9.0], [-30.0, 0.5], [0.4, 3.0]),
        stats.t([3.0, 80.0], loc=[-30.0, 0.5], scale=np.sqrt([2.0 / 1.5 / 0.4, 9.0 / 40.0 / 3.0])),
    ),
    "poisson": (badmm.Poisson([0.4, 300.0]), stats.poisson([0.4, 300.0])),
}
every_member = pytest.mark.parametrize(("q", "wanted"), MEMBERS.values(), ids=list(MEMBERS))


def log_probability(q: Factorised, wanted: Any, theta: Any) -> Any:
    return wanted.logpmf(theta) if q.ns.DISCRETE else wanted.logpdf(theta)


@pytest.mark.parametrize("shape", [1e-4, 1e-2, 1.0, 1e4, 1e8])
def test_tails_and_peaks_of_any_width(shape: float) -> None:
    q, wanted = badmm.Gamma(shape, 3.0), stats.gamma(shape, scale=1 / 3)
    probability = np.array([0.02, 0.5, 0.98])
    found, exact = q.quantile(probability)[:, 0], wanted.ppf(probability)
    assert np.log(found + 1e-300) == pytest.approx(np.log(exact + 1e-300), rel=1e-7)
    assert q._marginals[0].moment(1) == pytest.approx(shape / 3, rel=1e-9)


def test_a_quantile_below_the_number_range_is_its_end() -> None:
    """Most of a gamma of shape 10⁻⁴ is below 10⁻³⁰⁰."""
    found = badmm.Gamma(1e-4, 3.0).quantile([0.0, 1e-12, 0.3, 0.99])[:, 0]
    assert (found[:3] >= 0.0).all() and (found[:3] < 1e-300).all() and found[3] > 1e-300


def test_a_density_below_the_number_range_is_none() -> None:
    q = badmm.InverseGaussian(0.5, 2.0)
    assert q.log_density([[1e300], [1.0]])[:, 0] == pytest.approx(
        [-np.inf, stats.invgauss(0.25, scale=2.0).logpdf(1.0)]
    )
    weibull, wanted = badmm.Weibull(0.5, shape=3.0), stats.weibull_min(3.0, scale=0.5)
    assert weibull.log_density([1e200]) == -np.inf
    assert weibull.quantile(0.5) == pytest.approx(wanted.ppf(0.5), rel=1e-12)
    assert weibull._marginals[0].moment(1) == pytest.approx(wanted.mean(), rel=1e-12)


def test_bounded_and_negative_supports() -> None:
    beta = Inversion(lambda x: stats.beta(0.4, 3.0).logpdf(x), (0.0, 1.0))
    assert beta.quantile(np.array([0.1, 0.9])) == pytest.approx(stats.beta(0.4, 3.0).ppf([0.1, 0.9]), rel=1e-9)
    negative = Inversion(lambda x: stats.expon().logpdf(-x), (-np.inf, 0.0))
    assert negative.quantile(np.array([0.1, 0.9])) == pytest.approx(-stats.expon().ppf([0.9, 0.1]), rel=1e-9)
    line = Inversion(lambda x: stats.t(3, 2.0).logpdf(x), (-np.inf, np.inf))
    assert line.quantile(np.array([0.1, 0.9])) == pytest.approx(stats.t(3, 2.0).ppf([0.1, 0.9]), rel=1e-9)


def test_every_factorising_family_is_tested_here() -> None:
    assert set(MEMBERS) == {name for name in registry.names() if issubclass(registry.distribution(name), Factorised)}


@every_member
def test_moments_and_density(q: Factorised, wanted: Any) -> None:
    exact = 1e-12 if "theta" in dict(q.ns.STATISTICS) else 1e-10  # else by quadrature
    assert q.mean == pytest.approx(wanted.mean(), rel=exact)
    assert q.variance == pytest.approx(wanted.var(), rel=exact)
    theta = wanted.ppf(np.array([[0.01], [0.4], [0.99]]))
    assert q.log_density(theta) == pytest.approx(log_probability(q, wanted, theta), rel=1e-10, abs=1e-10)
    if np.isfinite(q.support[0]):
        assert (q.log_density(np.full(q.dim, q.support[0] - 1.0)) == -np.inf).all()
    if q.ns.DISCRETE:
        assert (q.log_density(np.full(q.dim, 0.5)) == -np.inf).all()


@every_member
def test_quantiles_and_draws(q: Factorised, wanted: Any) -> None:
    probability = np.array([0.001, 0.3, 0.999])
    assert q.quantile(probability) == pytest.approx(wanted.ppf(probability[:, None]), rel=1e-9)
    assert q.quantile(0.5).shape == (q.dim,)
    draws = q.sample(4000, seed=3)
    assert draws.shape == (4000, q.dim)
    assert np.array_equal(draws, q.sample(4000, seed=3))
    for j in range(q.dim):
        marginal = type(q)(**{name: v[j] if v.ndim else v for name, v in q.parameters().items()})
        if not q.ns.DISCRETE:
            assert stats.kstest(draws[:, j], lambda x, j=j: wanted.cdf(x[:, None])[:, j]).pvalue > 1e-3
        assert draws[:, j].mean() == pytest.approx(q.mean[j], abs=5 * float(q.variance[j] / 4000) ** 0.5)
        assert marginal.mean == pytest.approx(q.mean[j : j + 1])


@every_member
def test_moments_by_quadrature_agree_where_no_statistic_gives_them(
    q: Factorised, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Factorised, "_affine", None)
    assert q.mean == pytest.approx(wanted.mean(), rel=1e-8)
    assert q.variance == pytest.approx(wanted.var(), rel=1e-8)


def test_moments_that_do_not_exist_or_hardly() -> None:
    q = badmm.InverseGamma([0.9, 1.01, 1.9, 2.005], 3.0)
    assert q.mean == pytest.approx([np.inf, 300.0, 3 / 0.9, 3 / 1.005], rel=1e-9)
    assert q.variance == pytest.approx([np.inf, np.inf, np.inf, 9 / (1.005**2 * 0.005)], rel=1e-9)


def test_two_variables_are_drawn_together() -> None:
    q = badmm.NormalGamma([0.4, 7.0], 2.0, [-30.0, 0.5], 0.4)
    x, tau = q.sample_jointly(4000, seed=2)
    assert np.array_equal(x, q.sample(4000, seed=2)) and x.shape == tau.shape == (4000, 2)
    for j, shape in enumerate([0.4, 7.0]):
        assert stats.kstest(tau[:, j], stats.gamma(shape, scale=0.5).cdf).pvalue > 1e-3
        whitened = (x[:, j] - q.mean[j]) * np.sqrt(tau[:, j] * 0.4)
        assert stats.kstest(whitened, stats.norm.cdf).pvalue > 1e-3
    heavy = stats.t(0.8, loc=-30.0, scale=np.sqrt(2.0 / 0.4 / 0.4))
    assert q.variance[0] == np.inf and q.mean[0] == pytest.approx(-30.0)
    assert q.log_density(heavy.ppf(0.9))[0] == pytest.approx(heavy.logpdf(heavy.ppf(0.9)), rel=1e-10)
    assert q.expected("tau")[1] == pytest.approx(3.5) and q.quantile([1e-6])[0, 1] < -4.0


def test_statistics_by_name() -> None:
    q = badmm.Gamma([2.0, 3.0], 1.5)
    assert q.expected("theta") == pytest.approx(q.mean)
    draws = q.sample(200_000, seed=1)
    assert q.expected("log(theta)") == pytest.approx(np.log(draws).mean(axis=0), abs=5e-3)
    for one, listed in ((badmm.Exponential(2.0), "theta for exponential"), (q, "log(theta), theta for gamma")):
        with pytest.raises(ValueError, match="statistic") as caught:
            one.expected("theta*theta")
        assert str(caught.value) == f"statistic: expected one of {listed}, got 'theta*theta'"


def test_arguments_are_those_of_the_family() -> None:
    assert repr(badmm.Exponential(2.0)) == "Exponential(rate=array([2.]))"
    assert str(inspect.signature(badmm.Gamma)) == "(shape, rate)"
    assert badmm.Gamma is distribution_class("gamma")
    assert badmm.Gamma(rate=1.0, shape=2.0).mean == 2.0
    for build, message in (
        (lambda: badmm.Exponential(-1.0), "rate: expected positive, got -1.0"),
        (lambda: badmm.Exponential([1.0, 0.0]), "rate: expected positive, got 0.0 at index 1"),
        (lambda: badmm.Exponential("x"), "rate: expected real numbers, got text, first 'x'"),
        (lambda: badmm.Exponential(np.inf), "rate: expected finite, got inf"),
        (lambda: badmm.Gamma(np.ones((1, 2)), 1.0), r"shape: expected 0 or 1 axes, got shape \(1, 2\)"),
        (lambda: badmm.Weibull(1.0, shape=-2.0), "shape: expected a positive finite number, got -2.0"),
        (lambda: badmm.Laplace(1.0, location=np.inf), "location: expected a .*, got inf"),
        (lambda: badmm.Binomial(0.0, trials=2.5), "trials: expected .*, got 2.5"),
        (lambda: badmm.Gamma([1.0, 2.0], [1.0, 2.0, 3.0]), r"rate: expected shape \(2,\) to match the shape param.*"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            build()
    with pytest.raises(TypeError, match="missing a required argument: 'rate'"):
        badmm.Gamma(1.0)
    with pytest.raises(TypeError, match=r"^shape: expected a number, got list$"):
        badmm.Weibull(1.0, shape=[1.0])


def test_members_cannot_be_changed_and_can_be_copied() -> None:
    members: list[Any] = [badmm.Exponential(2.0), badmm.Gaussian(0.0, 1.0)]
    for q in members:
        with pytest.raises(AttributeError, match="mean"):
            q.mean = 3.0
        assert repr(copy.copy(q)) == repr(pickle.loads(pickle.dumps(q))) == repr(q)


def test_badmm_has_a_class_per_family_and_no_other() -> None:
    assert {"Gamma", "Exponential", "Gaussian"} <= set(dir(badmm))
    assert "FullGaussian" not in dir(badmm)
    with pytest.raises(AttributeError, match="module 'badmm' has no attribute 'Cauchy'"):
        _ = badmm.Cauchy
