"""What sites agree on before the first round, and the one-line errors for what they cannot agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("formulaic", reason="needs the extra glm")

from badmm.glm import fit, piecewise

RNG = np.random.default_rng(3)


def frame(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, arm, age = rng.normal(size=n), rng.choice(["a", "b", "c"], n), rng.uniform(20, 80, n)
    a = 0.3 + 0.8 * x - 0.5 * (arm == "b") + 0.01 * (age - 50)
    return pd.DataFrame(
        {
            "y": (rng.random(n) < 1 / (1 + np.exp(-a))).astype(int),
            "count": rng.poisson(np.exp(a)),
            "x": x,
            "arm": arm,
            "age": age,
            "time": rng.exponential(5.0, n) + 0.01,
            "w": rng.integers(0, 4, n),
            "smokes": rng.random(n) < 0.4,
        }
    )


WHOLE = frame(300)
SITES = {"north": WHOLE[:120], "south": WHOLE[120:210], "east": WHOLE[210:]}


def same(a: Any, b: Any) -> None:
    assert list(a.terms) == list(b.terms)
    assert a.params.to_numpy() == pytest.approx(b.params.to_numpy(), abs=1e-7)
    assert a.bse.to_numpy() == pytest.approx(b.bse.to_numpy(), rel=1e-6)


def pooled(formula: str, family: str = "binomial", **options: Any) -> Any:
    return fit(formula, {"all": WHOLE}, family, **options)


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_any_split_gives_the_pooled_fit(family: str) -> None:
    response = {"binomial": "y", "poisson": "count", "gaussian": "age"}[family]
    same(fit(f"{response} ~ x * arm + smokes", SITES, family), pooled(f"{response} ~ x * arm + smokes", family))


def test_a_level_that_a_site_lacks_a_constant_column_and_another_order_are_fine() -> None:
    parts = {arm: WHOLE[WHOLE["arm"] == arm] for arm in "abc"}
    shuffled = {arm: part[RNG.permutation(part.columns)] for arm, part in parts.items()}
    same(fit("y ~ x + arm", shuffled), pooled("y ~ x + arm"))
    flat = {"young": WHOLE[WHOLE["age"] < 50].assign(old=0), "old": WHOLE[WHOLE["age"] >= 50].assign(old=1)}
    same(fit("y ~ x + old", flat), fit("y ~ x + old", {"all": WHOLE.assign(old=(WHOLE["age"] >= 50).astype(int))}))


def test_numbers_in_c_are_levels_that_sites_share() -> None:
    data = WHOLE.assign(center=np.arange(300) // 75)
    parts = {str(k): part for k, part in data.groupby("center")}
    same(fit("y ~ x + C(center)", parts), fit("y ~ x + C(center)", {"all": data}))


def test_declared_levels_keep_their_order() -> None:
    data = WHOLE.assign(arm=pd.Categorical(WHOLE["arm"], categories=["c", "a", "b"]))
    found = fit("y ~ arm", {"one": data[:100], "two": data[100:]})
    assert list(found.terms) == ["Intercept", "arm[T.a]", "arm[T.b]"]


def test_polars_and_pandas_sites_agree() -> None:
    polars = pytest.importorskip("polars")
    north = polars.DataFrame({name: values.tolist() for name, values in SITES["north"].items()})
    mixed = {"north": north, "south": SITES["south"], "east": SITES["east"]}
    same(fit("y ~ x + arm + smokes", mixed), fit("y ~ x + arm + smokes", SITES))
    holes = north.with_columns(
        polars.when(polars.col("w") > 2).then(None).otherwise(polars.col("x")).alias("x"),
        polars.col("arm").cast(polars.Enum(["b", "a", "c"])),
        polars.when(polars.col("w") == 1).then(None).otherwise(polars.col("smokes")).alias("smokes"),
    )
    found = fit("y ~ x + arm + smokes", {**mixed, "north": holes})
    assert found.counts["north"].left_out == int(SITES["north"]["w"].isin([1, 3]).sum())
    assert found.terms[2:4] == ("arm[T.a]", "arm[T.c]")


def test_missing_values_are_counted_and_change_nothing_else() -> None:
    holes = {site: part.copy() for site, part in SITES.items()}
    holes["north"].iloc[3:8, holes["north"].columns.get_loc("x")] = np.nan
    holes["east"].iloc[0, holes["east"].columns.get_loc("arm")] = None
    holes["south"]["time"] = np.nan  # a column that the formula does not use
    found = fit("y ~ x + arm", holes)
    assert {site: (c.used, c.left_out) for site, c in found.counts.items()} == {
        "north": (115, 5),
        "south": (90, 0),
        "east": (89, 1),
    }
    same(found, fit("y ~ x + arm", {site: part.dropna(subset=["x", "arm"]) for site, part in holes.items()}))
    with pytest.raises(ValueError, match=r"sites\['north'\]\['x'\]: expected no missing values, got one at row 3"):
        fit("y ~ x + arm", holes, missing="error")


def test_a_site_without_a_usable_row_is_told() -> None:
    empty = SITES["east"].assign(x=np.nan)
    found = fit("y ~ x", {**SITES, "west": empty})
    assert found.counts["west"].used == 0
    assert found.counts["west"].left_out == len(empty)
    assert "site 'west': no row to use" in found.notes
    same(found, pooled("y ~ x"))


def test_weights_are_rows_given_as_often() -> None:
    repeated = WHOLE.loc[WHOLE.index.repeat(WHOLE["w"])]
    for family, response in (("binomial", "y"), ("poisson", "count"), ("gaussian", "age")):
        a = fit(f"{response} ~ x + arm", SITES, family, weights="w")
        b = fit(f"{response} ~ x + arm", {"all": repeated}, family)
        same(a, b)
        assert a.deviance == pytest.approx(b.deviance)
        assert a.aic == pytest.approx(b.aic)


def test_exposure_is_the_offset_of_its_logarithm() -> None:
    a = fit("count ~ x", SITES, "poisson", exposure="time")
    same(a, fit("count ~ x", SITES, "poisson", offset="log(time)"))
    assert a.null_deviance == pytest.approx(fit("count ~ 1", SITES, "poisson", exposure="time").deviance)


def test_a_text_response_of_two_levels_is_told() -> None:
    text = {site: part.assign(y=np.where(part["y"] == 1, "yes", "no")) for site, part in SITES.items()}
    found = fit("y ~ x", text)
    same(found, fit("y ~ x", SITES))
    assert "P(y = 'yes')" in found.summary().text


def test_intervals_are_split_at_the_cuts() -> None:
    rows = piecewise(pd.DataFrame({"t": [5.0, 25.0], "d": [1, 0], "z": [7, 8]}), "t", "d", [10.0, 20.0])
    assert rows["exposure"].tolist() == [5.0, 10.0, 10.0, 5.0]
    assert rows["event"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert rows["z"].tolist() == [7, 8, 8, 8]
    assert rows["interval"].tolist() == ["(0, 10]", "(0, 10]", "(10, 20]", "(20, inf]"]
    late = piecewise(pd.DataFrame({"s": [12.0], "t": [25.0], "d": [1]}), "t", "d", [10.0, 20.0], start="s")
    assert late["exposure"].tolist() == [8.0, 5.0]
    assert late["event"].tolist() == [0.0, 1.0]


def changed(site: str, **columns: Any) -> dict[str, pd.DataFrame]:
    return {**SITES, site: SITES[site].assign(**columns)}


def first(column: str, value: Any) -> dict[str, pd.DataFrame]:
    part = SITES["south"].copy().astype({column: object})
    part.iloc[2, part.columns.get_loc(column)] = value
    return {**SITES, "south": part}


WRONG: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: fit("y ~ x", [WHOLE]),  # type: ignore[arg-type]
        "sites: expected a mapping from names to data frames, got list",
    ),
    (lambda: fit("y ~ x", {}), "sites: expected a mapping"),
    (lambda: fit("y ~ x", WHOLE["x"]), "sites: expected a mapping"),
    (
        lambda: fit("y ~ x", {1: WHOLE}),  # type: ignore[dict-item]
        "sites: expected names as keys, got 1",
    ),
    (lambda: fit("y ~ x", {" ": WHOLE}), "sites: expected names as keys, got ' '"),
    (lambda: fit("y ~ x", {"a": WHOLE.to_numpy()}), r"sites\['a'\]: expected a data frame, got ndarray"),
    (lambda: fit("y ~ x", {"a": {"y": [1], "x": [2]}}), r"sites\['a'\]: expected a data frame, got dict"),
    (lambda: fit("y ~ x", {**SITES, "b": WHOLE.drop(columns="x")}), r"sites\['b'\]: expected the column 'x'"),
    (lambda: fit("y ~ bmi", SITES), r"sites\['north'\]: expected the column 'bmi', got 'y', 'count'"),
    (
        lambda: fit("y ~ x", {"a": pd.concat([WHOLE, WHOLE[["x"]]], axis=1)}),
        r"sites\['a'\]: expected every column once, got 'x' more than once",
    ),
    (lambda: fit("y ~ x", changed("south", x="high")), r"sites\['south'\]\['x'\]: expected numbers as at site 'north'"),
    (lambda: fit("y ~ arm", changed("east", arm=2.0)), r"sites\['east'\]\['arm'\]: expected levels as at site 'north'"),
    (lambda: fit("y ~ smokes", changed("east", smokes=1)), r"sites\['east'\]\['smokes'\]: expected truth values as"),
    (lambda: fit("y ~ x", first("x", "n/a")), r"sites\['south'\]\['x'\]: expected numbers or text, got float, str"),
    (
        lambda: fit("y ~ x", changed("south", x=pd.Timestamp("2024-01-01"))),
        r"sites\['south'\]\['x'\]: expected numbers, truth values or text, got datetime64",
    ),
    (lambda: fit("y ~ x", changed("south", x=1j)), r"sites\['south'\]\['x'\]: expected numbers, .* got complex128"),
    (lambda: fit("y ~ x", changed("south", x=np.inf)), r"sites\['south'\]\['x'\]: expected finite values, got inf"),
    (lambda: fit("y ~ log(x)", changed("south", x=0.0)), r"sites\['.*'\]\['log\(x\)'\]: expected finite values"),
    (lambda: fit("y ~ x", changed("south", y=2)), r"sites\['south'\]\['y'\]: expected 0 or 1, got 2 at row 0"),
    (lambda: fit("count ~ x", changed("south", count=-1), "poisson"), r"sites\['south'\]\['count'\]: expected non-neg"),
    (
        lambda: fit("count ~ x", changed("south", count=0.5), "poisson"),
        r"sites\['south'\]\['count'\]: expected non-neg",
    ),
    (
        lambda: fit("arm ~ x", SITES),
        r"sites\['north'\]\['arm'\]: expected 0 or 1, or two levels, for family 'binomial', got",
    ),
    (lambda: fit("arm ~ x", SITES, "gaussian"), r"sites\['north'\]\['arm'\]: expected numbers for family 'gaussian'"),
    (lambda: fit("x", SITES), "formula: expected 'response ~ terms', got 'x'"),
    (lambda: fit("", SITES), "formula: expected a formula as text, got ''"),
    (lambda: fit(None, SITES), "formula: expected a formula as text, got None"),  # type: ignore[arg-type]
    (lambda: fit("y ~ x +* age", SITES), "formula: Operator"),
    (lambda: fit("y ~ log(x", SITES), "formula: Formula ended before"),
    (lambda: fit("y ~ nothing(x)", SITES), "expected the column 'nothing'"),
    (lambda: fit("y ~ center(x)", SITES), "formula: expected transformations of one row at a time, got 'center"),
    (lambda: fit("y ~ scale(x) + age", SITES), "formula: expected transformations of one row at a time, got 'scale"),
    (lambda: fit("y + count ~ x", SITES), r"sites\['north'\].*: expected one column of numbers, got 2"),
    (lambda: fit("y ~ x + I(2 * x)", SITES), "formula: expected terms that do not depend on each other, got 'x', 'I"),
    (lambda: fit("y ~ x + age + I(x - age)", SITES), "formula: expected terms that do not depend on each other"),
    (
        lambda: fit("y ~ x + z", {site: part.assign(z=0.0) for site, part in SITES.items()}),
        "formula: expected terms that are not 0 in every row, got 'z'",
    ),
    (
        lambda: fit("y ~ x", SITES, "probit"),
        "family: expected one of gaussian, binomial, poisson, negative_binomial, gamma, multinomial, got 'probit'",
    ),
    (lambda: fit("y ~ x", SITES, estimate="mle"), "estimate: expected"),  # type: ignore[arg-type]
    (lambda: fit("y ~ x", SITES, missing="impute"), "missing: expected one of drop, error"),
    (lambda: fit("y ~ x", SITES, prior="strong"), 'prior: expected None, "weak", a precision or a mapping'),
    (lambda: fit("y ~ x", SITES, prior=-1.0), "prior: expected a number of at least 0, got -1.0"),
    (lambda: fit("y ~ x", SITES, prior={"z": 1.0}), "prior: expected the terms Intercept, x, got 'z'"),
    (lambda: fit("y ~ x", SITES, prior_intercept=np.nan), "prior_intercept: expected a number of at least 0"),
    (lambda: fit("count ~ x", SITES, "poisson", exposure="arm"), "arm: expected numbers for offset"),
    (
        lambda: fit("count ~ x", changed("south", time=0.0), "poisson", exposure="time"),
        r"sites\['south'\]\['time'\]: expected a positive exposure, got 0 at row 0",
    ),
    (lambda: fit("y ~ x", changed("south", w=-1), weights="w"), r"sites\['south'\]\['w'\]: expected weights of at"),
    (lambda: fit("y ~ x", SITES, weights="mass"), r"sites\['north'\]: expected the column 'mass'"),
    (lambda: fit("y ~ x", SITES, offset="log("), "offset: Formula ended before"),
    (lambda: fit("y ~ x", {"a": WHOLE.assign(x=np.nan)}), "sites: expected at least one row without missing values"),
    (lambda: fit("age ~ x + arm", {"a": WHOLE[:4]}, "gaussian"), "sites: expected more rows than the 4 terms, got 4"),
    (lambda: piecewise(WHOLE, "time", "y", [3.0, 2.0]), "cuts: expected increasing positive times"),
    (lambda: piecewise(WHOLE, "when", "y", [3.0]), "data: expected the column 'when'"),
    (lambda: piecewise(WHOLE.assign(exposure=1), "time", "y", [3.0]), "data: expected no column 'exposure'"),
    (lambda: piecewise(WHOLE, "time", "count", [3.0]), "count: expected 0 or 1"),
]


@pytest.mark.parametrize("case", WRONG, ids=[words[:60] for _, words in WRONG])
def test_wrong_input_is_one_line_that_names_it(case: tuple[Callable[[], Any], str]) -> None:
    act, words = case
    with pytest.raises(ValueError, match=words) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
