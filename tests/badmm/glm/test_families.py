"""Response families against statsmodels' fits of the pooled rows, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("formulaic", reason="needs the extra glm")
statsmodels = pytest.importorskip("statsmodels.api", reason="needs statsmodels")
formula_api = pytest.importorskip("statsmodels.formula.api", reason="needs statsmodels")

from badmm.glm import GLMResult, fit  # noqa: E402

N = 400
TERMS = "x + arm"


def simulated() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    x, arm = rng.normal(size=N), rng.choice(["a", "b", "c"], N)
    a = 0.6 + 0.5 * x - 0.4 * (arm == "b")
    logits = np.stack([np.zeros(N), a, -0.3 * x], axis=1)
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "count": rng.negative_binomial(2.0, 2.0 / (2.0 + np.exp(a))),
            "cost": rng.gamma(3.0, np.exp(a) / 3.0),
            "g": 1e4 + a + rng.normal(size=N),
            "color": np.array(["red", "blue", "green"])[(rng.random((N, 1)) > share.cumsum(axis=1)).sum(axis=1)],
            "x": x,
            "arm": arm,
            "time": rng.exponential(3.0, N) + 0.1,
        }
    )


WHOLE = simulated()
SITES = {"north": WHOLE[:170], "south": WHOLE[170:180], "east": WHOLE[180:]}


def agrees(ours: GLMResult, theirs: Any, *, null: bool = True) -> None:
    """Every cell of the summary, for a fit of `statsmodels.GLM`."""
    order = list(ours.terms)
    assert ours.converged
    assert ours.params.to_numpy() == pytest.approx(theirs.params[order].to_numpy(), abs=1e-6)
    for name in ("bse", "pvalues"):
        assert getattr(ours, name).to_numpy() == pytest.approx(getattr(theirs, name)[order].to_numpy(), rel=1e-4)
    assert ours.conf_int().to_numpy() == pytest.approx(theirs.conf_int().loc[order].to_numpy(), rel=1e-4, abs=1e-5)
    assert ours.cov_params().to_numpy() == pytest.approx(theirs.cov_params().loc[order, order].to_numpy(), rel=1e-3)
    assert ours.deviance == pytest.approx(theirs.deviance, rel=1e-8)
    if null:
        assert ours.null_deviance == pytest.approx(theirs.null_deviance, rel=1e-6)
    assert ours.fitted.log_likelihood == pytest.approx(theirs.llf, rel=1e-7)
    assert ours.fitted.residual_freedom == theirs.df_resid


@pytest.mark.parametrize("exposure", [None, "time"])
def test_negative_binomial_of_a_given_dispersion(exposure: str | None) -> None:
    ours = fit(f"count ~ {TERMS}", SITES, "negative_binomial", dispersion=0.7, exposure=exposure)
    offset = None if exposure is None else np.log(WHOLE["time"])
    family = statsmodels.families.NegativeBinomial(alpha=0.7)
    theirs = formula_api.glm(f"count ~ {TERMS}", WHOLE, family=family, offset=offset).fit(tol=1e-13, maxiter=200)
    # with an offset statsmodels' search for the intercept alone ends early
    agrees(ours, theirs, null=exposure is None)
    assert ours.fitted.dispersion == 0.7
    assert ours.aic == pytest.approx(theirs.aic, rel=1e-8)
    assert "alpha: the variance is mean + alpha mean²" in str(ours)
    assert ours.to_frame()["rate_ratio"].to_numpy() == pytest.approx(np.exp(ours.params))


def test_negative_binomial_finds_its_dispersion_by_likelihood() -> None:
    ours = fit(f"count ~ {TERMS}", SITES, "negative_binomial")
    model = formula_api.negativebinomial(f"count ~ {TERMS}", WHOLE)
    start = [*ours.params[model.exog_names[: len(ours.terms)]], ours.fitted.dispersion]
    theirs = model.fit(disp=0, method="newton", maxiter=200, start_params=1.01 * np.array(start))
    assert ours.params.to_numpy() == pytest.approx(theirs.params[list(ours.terms)].to_numpy(), abs=1e-6)
    assert ours.fitted.dispersion == pytest.approx(theirs.params["alpha"], abs=1e-6)
    assert ours.fitted.log_likelihood == pytest.approx(theirs.llf, rel=1e-9)
    assert ours.aic == pytest.approx(theirs.aic, rel=1e-9)
    fixed = statsmodels.families.NegativeBinomial(alpha=ours.fitted.dispersion)
    agrees(ours, formula_api.glm(f"count ~ {TERMS}", WHOLE, family=fixed).fit(tol=1e-13, maxiter=200))


@pytest.mark.parametrize(("size", "low", "high"), [(None, 1e-9, 1e-7), (0.05, 15.0, 30.0)])
def test_a_dispersion_at_the_end_of_its_range(size: float | None, low: float, high: float) -> None:
    rng = np.random.default_rng(8)
    mean = np.full(200, 3.0)
    # less dispersed than Poisson's, and far more
    y = np.tile([2.0, 3.0, 4.0, 3.0], 50) if size is None else rng.negative_binomial(size, size / (size + mean))
    data = pd.DataFrame({"y": y, "x": rng.normal(size=200)})
    found = fit("y ~ x", {"a": data[:90], "b": data[90:]}, "negative_binomial")
    assert found.converged
    assert low < found.fitted.dispersion < high
    if size is None:
        poisson = fit("y ~ x", {"a": data}, "poisson")
        assert found.params.to_numpy() == pytest.approx(poisson.params.to_numpy(), abs=1e-6)
        assert found.fitted.log_likelihood == pytest.approx(poisson.fitted.log_likelihood, rel=1e-7)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e12])
def test_gamma_with_pearsons_dispersion(unit: float) -> None:
    ours = fit(
        f"cost ~ {TERMS}", {site: part.assign(cost=unit * part["cost"]) for site, part in SITES.items()}, "gamma"
    )
    family = statsmodels.families.Gamma(link=statsmodels.families.links.Log())
    theirs = formula_api.glm(f"cost ~ {TERMS}", WHOLE, family=family).fit(tol=1e-13, maxiter=200)
    assert ours.fitted.dispersion == pytest.approx(theirs.scale, rel=1e-6)
    if unit == 1.0:
        agrees(ours, theirs)
        assert ours.aic == pytest.approx(theirs.aic, rel=1e-8)
    else:
        assert ours.params[1:].to_numpy() == pytest.approx(theirs.params[list(ours.terms[1:])].to_numpy(), abs=1e-6)
        assert ours.params["Intercept"] == pytest.approx(theirs.params["Intercept"] + np.log(unit), abs=1e-6)


def test_multinomial_equals_mnlogit() -> None:
    ours = fit(f"color ~ {TERMS}", SITES, "multinomial")
    codes = WHOLE["color"].map({"blue": 0, "green": 1, "red": 2})
    theirs = formula_api.mnlogit(f"code ~ {TERMS}", WHOLE.assign(code=codes)).fit(disp=0, method="newton", maxiter=50)
    terms = [term.split(": ", 1)[1] for term in ours.terms[:4]]
    assert [term.split(":")[0] for term in ours.terms] == ["green"] * 4 + ["red"] * 4
    assert ours.converged
    assert ours.params.to_numpy() == pytest.approx(theirs.params.loc[terms].to_numpy().T.ravel(), abs=1e-6)
    assert ours.bse.to_numpy() == pytest.approx(theirs.bse.loc[terms].to_numpy().T.ravel(), rel=1e-4)
    assert ours.pvalues.to_numpy() == pytest.approx(theirs.pvalues.loc[terms].to_numpy().T.ravel(), rel=1e-3)
    assert ours.fitted.log_likelihood == pytest.approx(theirs.llf, rel=1e-9)
    assert ours.null_deviance == pytest.approx(-2 * theirs.llnull, rel=1e-9)
    assert ours.aic == pytest.approx(theirs.aic, rel=1e-9)
    predicted = ours.predict(WHOLE[:7])
    means = predicted.loc[:, [(level, "mean") for level in ("blue", "green", "red")]].to_numpy()
    assert means == pytest.approx(np.asarray(theirs.predict(WHOLE[:7])), abs=1e-6)
    assert "color against 'blue'" in str(ours)


def test_multinomial_bounds_are_the_binomials_for_one_level_against_all() -> None:
    """With the reference certain in no row and one other level, the logit of its probability is the predictor."""
    from badmm.glm.families.binomial import BinomialResponse
    from badmm.glm.families.multinomial import MultinomialResponse

    a, covariance = np.array([[0.3], [-2.0]]), np.array([[[0.2]], [[1.5]]])
    ours = MultinomialResponse(("no", "yes")).bounds(a, covariance, 1.96)
    for found, expected in zip(ours, BinomialResponse().bounds(a, covariance, 1.96), strict=True):
        assert found[:, 1] == pytest.approx(expected)


def test_the_gaussian_posterior_is_the_textbooks_in_one_round() -> None:
    """Under a flat prior and 1/τ: least squares with Student-t intervals (Gelman et al., section 14.2)."""
    ours = fit(f"g ~ {TERMS}", SITES, "gaussian", estimate="posterior", rounds=1)
    confirmed = fit(f"g ~ {TERMS}", SITES, "gaussian", estimate="posterior")
    assert confirmed.converged
    assert confirmed.rounds == 2
    assert ours.params.to_numpy() == pytest.approx(confirmed.params.to_numpy(), rel=1e-12)
    theirs = formula_api.ols(f"g ~ {TERMS}", WHOLE).fit()
    order = list(ours.terms)
    assert ours.params.to_numpy() == pytest.approx(theirs.params[order].to_numpy(), rel=1e-8)
    freedom = theirs.df_resid
    assert ours.fitted.theta.freedom == pytest.approx(freedom, rel=1e-9)
    assert ours.bse.to_numpy() == pytest.approx(theirs.bse[order] * np.sqrt(freedom / (freedom - 2)), rel=1e-7)
    assert ours.fitted.dispersion == pytest.approx(theirs.mse_resid * freedom / (freedom - 2), rel=1e-7)
    assert ours.conf_int(0.9).to_numpy() == pytest.approx(theirs.conf_int(0.1).loc[order].to_numpy(), rel=1e-8)
    assert 2 * np.minimum(ours.probability_positive, 1 - ours.probability_positive).to_numpy() == pytest.approx(
        theirs.pvalues[order].to_numpy(), rel=1e-5, abs=1e-12
    )


def test_the_gaussian_posterior_under_a_prior_is_the_conjugate_formula() -> None:
    ours = fit("g ~ x + time", SITES, "gaussian", estimate="posterior", prior={"x": 25.0, "time": 4.0})
    X = np.column_stack([np.ones(N), WHOLE["x"], WHOLE["time"]])
    y = WHOLE["g"].to_numpy()
    prior = np.diag([0.0, 25.0, 4.0])
    precision = X.T @ X + prior
    mean = np.linalg.solve(precision, X.T @ y)
    residual = y - X @ mean
    rate = 0.5 * (residual @ residual + mean @ prior @ mean)
    shape = 0.5 * (N - 3)
    order = ["Intercept", "x", "time"]
    assert ours.params[order].to_numpy() == pytest.approx(mean, rel=1e-8)
    assert ours.fitted.dispersion == pytest.approx(rate / (shape - 1), rel=1e-7)
    sd = np.sqrt(rate / (shape - 1) * np.diag(np.linalg.inv(precision)))
    assert ours.bse[order].to_numpy() == pytest.approx(sd, rel=1e-7)
    one = fit("g ~ x + time", {"all": WHOLE}, "gaussian", estimate="posterior", prior={"x": 25.0, "time": 4.0})
    assert one.bse.to_numpy() == pytest.approx(ours.bse.to_numpy(), rel=1e-9)


@pytest.mark.parametrize(
    ("family", "response", "options"),
    [("negative_binomial", "count", {}), ("gamma", "cost", {}), ("multinomial", "color", {}), ("gaussian", "g", {})],
)
def test_posteriors_converge_and_lie_near_the_mode(family: str, response: str, options: dict[str, Any]) -> None:
    formula = f"{response} ~ {TERMS}"
    mode = fit(formula, SITES, family, **options)
    found = fit(formula, SITES, family, estimate="posterior", prior=1e-4, **options)
    assert found.converged
    assert ((found.params - mode.params) / mode.bse).abs().max() < 0.3
    assert (found.bse / mode.bse - 1).abs().max() < 0.2
    assert np.isfinite(found.by_site().loc["north"].to_numpy(dtype=float)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formula": "count ~ x", "family": "poisson", "dispersion": 2.0}, "dispersion: expected none for family 'poi"),
        ({"formula": "count ~ x", "family": "negative_binomial", "dispersion": 0.0}, "dispersion: expected"),
        ({"formula": "cost ~ x", "family": "gamma", "dispersion": "a"}, "dispersion: expected"),
        ({"formula": "I(g - 1e4) ~ x", "family": "gamma"}, "expected positive numbers, got"),
        ({"formula": "cost ~ x", "family": "negative_binomial"}, "expected non-negative whole numbers"),
        ({"formula": "color ~ x", "family": "gamma"}, "expected numbers for family 'gamma', got levels"),
        ({"formula": "color ~ x", "family": "binomial"}, "expected 0 or 1, or two levels, for family 'binomial'"),
        ({"formula": "color ~ x", "family": "multinomial", "exposure": "time"}, "exposure: expected none for family"),
        ({"formula": "color ~ x", "family": "multinomial", "offset": "time"}, "offset: expected none for family"),
        ({"formula": "I(x > 0) ~ time", "family": "multinomial"}, "expected a column of levels on the left"),
        ({"formula": "x ~ time", "family": "multinomial"}, "expected 3 to 100 levels for family 'multinomial'"),
    ],
)
def test_what_a_family_does_not_take_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(sites=SITES, **options)


def test_separation_of_a_level_is_told() -> None:
    data = WHOLE.assign(color=WHOLE["color"].where(WHOLE["arm"] != "c", "red"))
    found = fit(f"color ~ {TERMS}", {"a": data[:200], "b": data[200:]}, "multinomial")
    assert any(note.startswith("separation:") and "arm[T.c]" in note for note in found.notes)
