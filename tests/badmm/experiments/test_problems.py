"""Rows, sites and classes of a configuration's data: none leaves silently, and sizes are not taken from labels."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import badmm
from badmm import data
from badmm.__main__ import main
from badmm.experiments import config
from badmm.experiments.problems.solver import build

SITES = """
name = "s"
family = "full_gaussian"
[data]
source = "t.csv"
[split]
kind = "column"
column = "site"
[likelihood]
kind = "logistic_regression"
"""


def problem(folder: Path, rows: list[str], text: str = SITES, changes: tuple[str, ...] = ()):
    (folder / "t.csv").write_text("\n".join(["site,a,y", *rows]) + "\n")
    (folder / "c.toml").write_text(text)
    loaded = config.load(folder / "c.toml", changes)
    assert isinstance(loaded, config.SolverConfig)
    return build(loaded)


@pytest.mark.parametrize("value", ["-1", "0.5"])
@pytest.mark.parametrize("row", [0, 3, 6])
def test_a_response_that_a_likelihood_refuses_is_named_by_its_line(tmp_path: Path, row: int, value: str) -> None:
    rows = [f"{'ab'[i % 2]},{0.1 * i},{value if i == row else i}" for i in range(7)]
    text = SITES.replace("logistic", "poisson")
    with pytest.raises(ValueError, match=rf"t.csv: line {row + 2}: y: expected non-negative .* got {value}"):
        problem(tmp_path, rows, text)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [[1] * 10, [1, 2, 3, 20], [50, 1], [7]])
def test_no_site_is_lost_in_the_hold_out(tmp_path: Path, fraction: float, sizes: list[int]) -> None:
    rows = [f"s{site},{0.1 * row},{row % 2}" for site, size in enumerate(sizes) for row in range(size)]
    built = problem(tmp_path, rows, changes=(f"data.test_fraction={fraction}",))
    assert len(built.clients) == len(sizes)
    used, held = built.rows.used, built.rows.held_out
    for site, size in enumerate(sizes):
        assert used[f"s{site}"] + held.get(f"s{site}", 0) == size
        assert used[f"s{site}"] == size - min(size - 1, round(size * fraction))
    assert len(built.test_y) == sum(held.values())
    assert f"{len(rows)} rows: {sum(used.values())} used by {len(sizes)} clients" in str(built.rows)


def test_the_summary_has_rows_and_what_standardisation_did(tmp_path: Path) -> None:
    rows = [f"s{row % 3},{row},{row % 2}" for row in range(30)]
    problem(tmp_path, rows)
    out = tmp_path / "o"
    assert main(["run", str(tmp_path / "c.toml"), "--out", str(out), "--quiet", "--set", "data.test_fraction=0.2"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rows"] == {
        "read": 30,
        "used": {"s0": 8, "s1": 8, "s2": 8},
        "held_out": {"s0": 2, "s1": 2, "s2": 2},
    }
    center, scale = summary["preparation"]["a"]
    assert 10 < center < 20 and 5 < scale < 12
    assert load_file(out / "posterior.safetensors")["mean"].shape == (2,)


SOFTMAX = SITES.replace("logistic", "softmax").replace('"full', '"diagonal')


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([60000, 60001, 60002], "labels 0, 1, ..., 999 at most .*got 60000 in line 2"),
        ([1, 2, 3], "without gaps, got none of class 0"),
        ([0, 1, 3], "without gaps, got none of class 2"),
        ([0, 1, -1], "got -1 in line 4"),
        ([0, 1, 1.5], r"got 1\.5 in line 4"),
    ],
)
def test_class_labels_are_numbered_from_zero(tmp_path: Path, labels: list[float], words: str) -> None:
    rows = [f"s{row % 2},{row},{labels[row % 3]}" for row in range(12)]
    with pytest.raises(ValueError, match=f"data.target: expected .*{words}"):
        problem(tmp_path, rows, SOFTMAX)


def test_logistic_labels_are_zero_and_one(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"data.target: expected labels 0 or 1 \(logistic_regression\), got 2 in line 3"
    ):
        problem(tmp_path, ["a,1,1", "a,2,2"])


@pytest.mark.parametrize("value", [0.1, 14.62, 1 / 3, 100.0, 123456.789, 1e8 + 0.1, 1e-9, -7.3, 0.0, 1e-300, 1e300])
@pytest.mark.parametrize("n", [1, 3, 7, 1000])
def test_a_constant_column_is_zero(value: float, n: int) -> None:
    X = np.full((n, 1), value)
    fitted = data.prepare(X, ("c",), intercept=False)
    assert not fitted(X).any()
    assert np.abs(fitted(X * 1.01)).max() <= 0.0101 * abs(value)


def test_a_column_that_varies_by_rounding_is_constant() -> None:
    X = np.array([[0.1 + 0.2], [0.3], [0.3]])
    assert np.abs(data.prepare(X, ("c",), intercept=False)(X)).max() < 1e-15


@pytest.mark.parametrize("scale", [1e-200, 1e-8, 1.0, 1e8, 1e200])
def test_a_column_of_any_unit_has_variance_one(scale: float) -> None:
    X = scale * np.random.default_rng(0).normal(3.0, 2.0, (50, 1))
    prepared = data.prepare(X, ("c",), intercept=False)(X)
    assert prepared.std() == pytest.approx(1.0, rel=1e-12)
    assert abs(prepared.mean()) < 1e-14


def test_components_of_constant_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="components: expected columns that vary, got 2 constant ones"):
        data.prepare(np.full((5, 2), 0.1), ("a", "b"), components=1)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_of_any_encoding_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    (tmp_path / "t.csv").write_text("site,y\n" + "".join(f"s{i % 2},10\n" for i in range(20)))
    text = SITES.replace("full_gaussian", "gamma").replace("logistic_regression", "poisson_rate")
    text = text.replace("[data]", '[data]\ntarget = "y"') + "[prior]\nshape = 1.0\nrate = 1.0\n"
    (tmp_path / "c.toml").write_text(text)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "ö")]) == 0
    stream.flush()
    assert b"rate 9.571" in stream.buffer.getvalue()


def test_a_result_prints_in_a_few_lines() -> None:
    clients = [badmm.likelihoods.Quadratic(np.eye(40), np.ones(40))] * 3
    result = badmm.solve(clients, family="full_gaussian", prior=badmm.Gaussian(np.zeros(40), 1.0))
    assert len(str(result).splitlines()) <= 4 and len(str(result)) < 300
    assert str(result).startswith("converged after ")


ROWS = [f"s{k % 2},{k % 3},{k % 4 // 2}" for k in range(12)]


@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
@pytest.mark.parametrize(
    ("kind", "expected"), [("logistic_regression", [50, 2]), ("softmax_regression", [50, 50, 2, 2])]
)
def test_the_intercept_may_have_a_prior_of_its_own(tmp_path: Path, family: str, kind: str, expected: list[int]) -> None:
    changes = (f"family={family}", f"likelihood.kind={kind}", "prior.precision=2.0", "prior.intercept_precision=50.0")
    prior = problem(tmp_path, ROWS, changes=changes).prior
    assert isinstance(prior, badmm.Gaussian)
    assert np.array_equal(prior.precision, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("family=isotropic_gaussian", "prior.intercept_precision=1.0"),
            "intercept_precision: expected one of mean, p",
        ),
        (("data.intercept=false", "prior.intercept_precision=1.0"), "intercept_precision: expected no such key"),
        (("prior.intercept_precision=0.0",), "intercept_precision: expected a number greater than 0, got 0.0"),
    ],
)
def test_a_prior_of_the_intercept_that_cannot_be_is_refused(
    tmp_path: Path, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(config.ConfigError, match=message):
        problem(tmp_path, ROWS, changes=changes)
