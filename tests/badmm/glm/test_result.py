"""Reports of a fit: tables in every format, intervals, predictions, plots, separation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

pytest.importorskip("formulaic", reason="needs the extra glm")

from badmm.glm import GLMResult, fit
from tests.badmm.glm.test_input import SITES, WHOLE


@pytest.fixture(scope="module")
def found() -> GLMResult:
    return fit("y ~ x + arm", SITES)


def test_the_table_is_the_textbooks(found: GLMResult) -> None:
    table = found.to_frame()
    z = table["estimate"] / table["std_error"]
    assert table["z"].to_numpy() == pytest.approx(z)
    assert table["p"].to_numpy() == pytest.approx(2 * norm.sf(np.abs(z)))
    assert table["upper"].to_numpy() == pytest.approx(table["estimate"] + norm.ppf(0.975) * table["std_error"])
    assert table["odds_ratio"].to_numpy() == pytest.approx(np.exp(table["estimate"]))
    narrow = found.conf_int(0.5)
    assert (narrow["lower"] > table["lower"]).all()
    for level in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match="level"):
            found.conf_int(level)


def test_every_format_has_every_term(found: GLMResult, tmp_path: Path) -> None:
    summary = found.summary()
    for text in (summary.text, summary.html, summary.latex, summary.markdown):
        assert text.count("arm[T.") == 2
        assert "Intercept" in text
    assert len({len(line) for line in summary.markdown.splitlines()}) >= 1
    assert summary.latex.count(r"\\") == 1 + len(found.terms)
    for fact in ("rows used", "rows left out", "deviance", "null deviance", "AIC", "converged"):
        assert fact in summary.text
    path = tmp_path / "model.json"
    saved = json.loads(found.to_json(path))
    assert json.loads(path.read_text()) == saved
    assert [row["term"] for row in saved["coefficients"]] == list(found.terms)
    assert saved["sites"]["north"]["used"] == 120
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_escaped() -> None:
    odd = WHOLE.assign(arm=WHOLE["arm"].map({"a": "<b>", "b": "50%_&", "c": "x|y"}))
    summary = fit("y ~ arm", {"a": odd[:150], "b": odd[150:]}).summary()
    assert "<b>" not in summary.html
    assert r"50\%" not in summary.markdown
    assert r"x\|y" in summary.markdown
    assert r"x|y" in summary.latex


def test_predictions_are_the_means_with_the_predictors_interval(found: GLMResult) -> None:
    new = pd.DataFrame({"x": [0.0, 1.0, np.nan], "arm": ["a", "c", "b"]})
    predicted = found.predict(new)
    design = np.array([[1.0, 0, 0, 0], [1, 1, 0, 1]])
    order = ["Intercept", "x", "arm[T.b]", "arm[T.c]"]
    covariance = found.cov_params().loc[order, order].to_numpy()
    center = design @ found.params[order].to_numpy()
    error = np.sqrt(np.diag(design @ covariance @ design.T))
    for column, a in (("mean", center), ("lower", center - 1.959964 * error), ("upper", center + 1.959964 * error)):
        assert predicted[column].to_numpy()[:2] == pytest.approx(1 / (1 + np.exp(-a)), rel=1e-6)
    assert predicted.iloc[2].isna().all()
    with pytest.raises(ValueError, match="arm: expected one of the levels 'a', 'b', 'c', got 'd'"):
        found.predict(new.assign(arm="d"))
    with pytest.raises(ValueError, match=r"data: expected the column 'arm'"):
        found.predict(new[["x"]])


def test_separation_is_told_with_its_terms() -> None:
    data = WHOLE.assign(y=((WHOLE["x"] > 0) | (WHOLE["arm"] == "b")).astype(int))
    separated = fit("y ~ arm + age", {"a": data[:150], "b": data[150:]})
    assert [note for note in separated.notes if note.startswith("separation: 'arm[T.b]'")]
    complete = fit("y ~ x", {"a": data.assign(y=(data["x"] > 0).astype(int))})
    assert [note for note in complete.notes if note.startswith("separation")]
    assert not [note for note in fit("y ~ x + arm", SITES).notes if note.startswith("separation")]


def test_a_count_that_is_zero_throughout_a_level_is_told() -> None:
    data = WHOLE.assign(count=WHOLE["count"].where(WHOLE["arm"] != "c", 0))
    found = fit("count ~ x + arm", {"a": data[:150], "b": data[150:]}, "poisson")
    assert [note for note in found.notes if note.startswith("separation: 'arm[T.c]'")]
    assert [note for note in found.notes if "site 'a': no event where arm[T.c] is 1" in note]


def test_a_site_without_events_is_told_and_pooled() -> None:
    data = {**SITES, "quiet": WHOLE[:20].assign(y=0)}
    found = fit("y ~ x + arm", data)
    assert "site 'quiet': no event in 20 rows" in found.notes
    assert found.by_site().loc["quiet"].isna().all(axis=None)
    assert found.by_site().loc["north"].notna().all(axis=None)


def test_priors_shrink_what_they_name() -> None:
    flat, weak = fit("y ~ x + arm", SITES), fit("y ~ x + arm", SITES, prior="weak")
    strong = fit("y ~ x + arm", SITES, prior={"x": 1e6})
    assert abs(weak.params["x"]) < abs(flat.params["x"])
    assert abs(strong.params["x"]) < 1e-3
    scaled = {site: part.assign(x=1000 * part["x"]) for site, part in SITES.items()}
    assert fit("y ~ x + arm", scaled, prior="weak").params["x"] * 1000 == pytest.approx(weak.params["x"], rel=1e-8)


def test_the_posterior_has_probabilities_of_sign() -> None:
    posterior = fit("y ~ x + arm", SITES, estimate="posterior", prior="weak")
    table = posterior.to_frame()
    assert list(table.columns[:3]) == ["estimate", "sd", "p_positive"]
    assert table["p_positive"].to_numpy() == pytest.approx(norm.cdf(table["estimate"] / table["sd"]))


def test_a_run_that_did_not_converge_says_so() -> None:
    short = fit("y ~ x + arm", SITES, estimate="posterior", rounds=1, tol=1e-14)
    assert not short.converged
    assert "NOT CONVERGED" in str(short)
    assert "not converged" in short.summary().remarks[0]


def test_the_forest_has_a_row_for_every_site(found: GLMResult) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot as plt

    axes = found.plot()
    assert len(axes) == 3
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == ["north (120)", "south (90)", "east (90)", "pooled (300)"]
    for ax in axes:
        left, right = ax.get_xlim()
        assert sum(left <= tick <= right for tick in ax.get_xticks()) >= 2
        lines = [x for x in (np.asarray(line.get_xdata(), dtype=float) for line in ax.lines) if len(x) == 2][:4]
        arrows = [line for line in ax.lines if line.get_marker() in ("<", ">")]
        assert len(arrows) == sum((ends[0] < left) + (ends[1] > right) for ends in lines)
    plt.close("all")
    with pytest.raises(ValueError, match="terms: expected some of"):
        found.plot(["age"])
