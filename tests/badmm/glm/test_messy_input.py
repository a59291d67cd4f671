"""Files, models and formulas as they come: `badmm fit` answers with one line that names the place, and status 2."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("formulaic", reason="needs the extra glm")
pytest.importorskip("matplotlib", reason="needs the extra run")

from badmm.__main__ import main
from badmm.glm import fit

RNG = np.random.default_rng(5)
N = 60
X = RNG.normal(size=N).round(4)
WHOLE = pd.DataFrame(
    {
        "y": (RNG.random(N) < 1 / (1 + np.exp(-X))).astype(int),
        "x": X,
        "arm": RNG.choice(["a", "b"], N),
        "age": RNG.integers(20, 80, N),
        "time": RNG.exponential(5.0, N).round(3) + 0.01,
    }
)
NORTH, SOUTH = WHOLE[:30].to_csv(index=False), WHOLE[30:].to_csv(index=False)
POOLED = WHOLE.assign(site=np.repeat(["n", "s"], 30)).to_csv(index=False)
SITES = '[data]\nsites = [{name = "n", file = "n.csv"}, {name = "s", file = "s.csv"}]\n'
MODEL = 'formula = "y ~ x"\n' + SITES
LEVELS = MODEL.replace("y ~ x", "y ~ arm")
ONE_FILE = 'formula = "y ~ x"\n[data]\nfile = "p.csv"\nsite_column = "site"\n'
HEAD, *LINES = NORTH.splitlines()


def cell(value: str, column: int = 1) -> str:
    """North's file with another value in line 5."""
    cells = LINES[3].split(",")
    cells[column] = value
    return "\n".join([HEAD, *LINES[:3], ",".join(cells), *LINES[4:]]) + "\n"


def line(text: str) -> str:
    """North's file with another line 5."""
    return "\n".join([HEAD, *LINES[:3], text, *LINES[4:]]) + "\n"


# the model, North's file, what the one line says
MALFORMED: dict[str, tuple[str | bytes, str | bytes | None, str]] = {
    "a value too many": (MODEL, line(LINES[3] + ",7"), "n.csv: line 5: expected 5 values, got 6"),
    "a value too few": (MODEL, line("1,0.5"), "n.csv: line 5: expected 5 values, got 2"),
    "a line of spaces": (MODEL, line("   "), "n.csv: line 5: expected 5 values, got 1"),
    "semicolons": (MODEL, NORTH.replace(",", ";"), "n.csv: line 1: expected values separated by commas"),
    "tabs": (MODEL, NORTH.replace(",", "\t"), "n.csv: line 1: expected values separated by commas"),
    "an open quote": (MODEL, line('1,"0.5,a,30,2'), "n.csv: line 5: expected values separated by commas"),
    "a value after a quote": (MODEL, line('1,"0.5"x,a,30,2'), "n.csv: line 5: expected values separated by commas"),
    "UTF-16": (MODEL, NORTH.encode("utf-16"), "n.csv: expected UTF-8 text, got byte 0xff"),
    "Latin-1": (MODEL, NORTH.replace(",a,", ",é,").encode("latin-1"), "n.csv: expected UTF-8 text, got byte 0xe9"),
    "a zero byte": (MODEL, cell("\0"), "n.csv: expected text, got a zero byte"),
    "an empty file": (MODEL, "", "n.csv: expected a header of column names, got an empty file"),
    "blank lines alone": (MODEL, "\n\n", "n.csv: expected a header of column names, got an empty file"),
    "a header alone": (MODEL, HEAD + "\n", "n.csv: expected at least one row, got none"),
    "a name twice": (MODEL, NORTH.replace("time", "x", 1), "n.csv: line 1: expected every column once, got 'x'"),
    "a name missing": (MODEL, NORTH.replace("time", "", 1), "n.csv: line 1: expected a name for column 5"),
    "spaces around a name": (MODEL, NORTH.replace(",x", ", x", 1), "n.csv: line 1: expected names without spaces"),
    "a column missing": (MODEL, NORTH.replace("x", "z", 1), "n.csv: expected the column 'x', got 'y', 'z'"),
    "another missing value": (MODEL, cell("n/a"), "n.csv: line 5, column 'x': expected a number"),
    "a dot for missing": (MODEL, cell("."), "n.csv: line 5, column 'x': expected a number"),
    "a slip of the pen": (MODEL, cell("12o"), "n.csv: line 5, column 'x': expected a number, .* got '12o'"),
    "a digit group": (MODEL, cell("1_000"), "n.csv: line 5, column 'x': expected a number"),
    "a decimal comma": (MODEL, cell('"1,5"'), "n.csv: line 5, column 'x': expected a number, .* got '1,5'"),
    "a date": (MODEL, cell("2024-01-31"), "n.csv: line 5, column 'x': expected a number"),
    "a truth value": (MODEL, cell("TRUE"), "n.csv: line 5, column 'x': expected a number"),
    "infinity": (MODEL, cell("inf"), r"sites\['n'\]\['x'\]: expected finite values, got inf at line 5"),
    "beyond the number range": (MODEL, cell("1e400"), r"sites\['n'\]\['x'\]: expected finite values, .* line 5"),
    "dates in every row": (
        MODEL.replace("y ~ x", "y ~ arm"),
        "y,arm\n1,2024-01-31\n0,2024-02-01\n",
        "n.csv: line 2, column 'arm': expected a number",
    ),
    "decimal commas in every row": (MODEL, 'y,x\n1,"0,5"\n0,"1,25"\n', "n.csv: line 2, column 'x': expected a number"),
    "identifiers": (MODEL, "y,x\n1,99999999999999999999\n0,3\n", "n.csv: column 'x': whole numbers beyond 2"),
    "a response of 2": (MODEL, cell("2", 0), r"sites\['n'\]\['y'\]: expected 0 or 1, got 2 at line 5"),
    "a negative count": ('family = "poisson"\n' + MODEL, cell("-1", 0), r"\['y'\]: expected non-negative .* at line 5"),
    "half a count": ('family = "poisson"\n' + MODEL, cell("0.5", 0), r"\['y'\]: expected non-negative .* at line 5"),
    "truth values at one site": (
        MODEL,
        NORTH.replace("\n1,", "\nTrue,").replace("\n0,", "\nFalse,"),
        r"sites\['s'\]\['y'\]: expected truth values as at site 'n', got numbers",
    ),
    "another spelling": (
        MODEL.replace("y ~ x", "y ~ arm"),
        NORTH.replace(",a,", ",A,"),
        r"sites\['s'\]\['arm'\]: expected the spelling 'A' as at site 'n', got 'a'",
    ),
    "a space after a level": (
        MODEL.replace("y ~ x", "y ~ arm"),
        NORTH.replace(",a,", ",a ,"),
        r"sites\['s'\]\['arm'\]: expected the spelling 'a ' as at site 'n', got 'a'",
    ),
    "a negative weight": (
        'weights = "x"\n' + MODEL.replace("y ~ x", "y ~ age"),
        NORTH,
        r"expected weights of at least",
    ),
    "no exposure": ('family = "poisson"\nexposure = "time"\n' + MODEL, cell("0", 4), "expected a positive .* line 5"),
    "an offset that is text": ('offset = "arm"\n' + MODEL, NORTH, "arm: expected numbers for offset"),
    "an offset that is a formula": ('offset = "y ~ x"\n' + MODEL, NORTH, "offset: "),
    "an offset without columns": ('offset = "1"\n' + MODEL, NORTH, "offset: expected an expression of columns"),
    "weights of no column": ('weights = "w"\n' + MODEL, NORTH, "n.csv: expected the column 'w'"),
    "no such file": (MODEL, None, "n.csv: expected an existing file, got none"),
    "a folder": (MODEL.replace("n.csv", "."), NORTH, "expected a name that ends in .csv or .parquet"),
    "one file twice": (MODEL.replace("s.csv", "n.csv"), NORTH, r"data.sites\[1\].file: expected a file of its own"),
    "one name twice": (MODEL.replace('"s"', '"n"'), NORTH, r"data.sites\[1\].name: expected every site once"),
    "no site": ('formula = "y ~ x"\n[data]\nsites = []\n', NORTH, "data.sites: expected a name and a file of every"),
    "Parquet by another name": (MODEL, b"PAR1\x15\x80\x04", "n.csv: expected UTF-8 text, got byte 0x80"),
    "an unknown key": (MODEL.replace("formula", "fromula"), NORTH, "fromula: expected one of the keys formula"),
    "an unknown family": ('family = "probit"\n' + MODEL, NORTH, "family: expected one of .*, got 'probit'"),
    "a number for a text": (MODEL.replace('"y ~ x"', "3"), NORTH, "formula: expected a text, got 3"),
    "a truth value for a number": ("prior = true\n" + MODEL, NORTH, "prior: expected a text or a number or a table"),
    "no round": ("rounds = 0\n" + MODEL, NORTH, "rounds: expected a positive integer, got 0"),
    "no TOML": ("formula = ", NORTH, "m.toml: expected valid TOML"),
    "no data": ('formula = "y ~ x"\n', NORTH, r"data: expected a table \[data\]"),
    "another site column": (ONE_FILE.replace('"site"', '"center"'), NORTH, "p.csv: expected the column 'center'"),
    "an unknown term": (MODEL.replace("y ~ x", "y ~ bmi"), NORTH, "n.csv: expected the column 'bmi'"),
    "the response among the terms": (MODEL.replace("y ~ x", "y ~ x + y"), NORTH, "formula: .* got 'y' among the terms"),
    "no terms": (MODEL.replace("y ~ x", "y ~ 0"), NORTH, "formula: expected at least one term or an intercept"),
    "two parts": (MODEL.replace("y ~ x", "y ~ x | age"), NORTH, "formula: expected 'response ~ terms'"),
    "no response": (MODEL.replace("y ~ x", "0 ~ x"), NORTH, "formula: expected 'response ~ terms'"),
    "a level called nan": (
        LEVELS,
        cell("nan", 2),
        r"\['n'\]\['arm'\]: expected .* the text 'nan' at line 5",
    ),
    "a level called NULL": (LEVELS, cell("NULL", 2), r"\['n'\]\['arm'\]: expected .* got the text 'NULL' at line 5"),
    "a blank level": (LEVELS, cell("  ", 2), r"\['n'\]\['arm'\]: expected .* got the text '  ' at line 5"),
    "a spreadsheet's error": (LEVELS, cell("#DIV/0!", 2), r"\['n'\]\['arm'\]: expected .* '#DIV/0!' at line 5"),
    "a no-break space after a level": (LEVELS, cell("a\u00a0", 2), r"expected the spelling 'a' .* got 'a\\xa0'"),
    "a unit": (MODEL, cell("12 kg"), "n.csv: line 5, column 'x': expected a number, .* got '12 kg'"),
    "a percentage": (MODEL, cell("12%"), "n.csv: line 5, column 'x': expected a number, .* got '12%'"),
    "a typographer's minus": (MODEL, cell("\u22121.5"), "n.csv: line 5, column 'x': expected a number"),
    "digits of another script": (MODEL, cell("\u0663"), "n.csv: line 5, column 'x': expected a number"),
    "Fortran's exponent": (MODEL, cell("1D5"), "n.csv: line 5, column 'x': expected a number"),
    "a line of totals": (MODEL, NORTH + "Total,,,,\n", "n.csv: line 32, column 'y': expected a number, .* got 'Total'"),
    "two files in one": (MODEL, NORTH + NORTH, "n.csv: line 32, column 'y': expected a number, .* got 'y'"),
    "two files with their marks": (MODEL, NORTH + "\ufeff" + NORTH, "n.csv: line 32, column 'y': expected a number"),
    "a title above the header": (MODEL, "Export\n" + NORTH, "n.csv: expected the column 'y', got 'Export'"),
    "an end-of-file mark": (MODEL, NORTH + "\x1a", "n.csv: line 32: expected 5 values, got 1"),
    "row numbers without a name": (MODEL, WHOLE[:30].to_csv(), "n.csv: line 1: expected a name for column 1"),
    "a web page": (MODEL, "<html>not found</html>", "n.csv: expected the column 'y', got '<html>"),
    "a spreadsheet by another name": (MODEL, b"PK\x03\x04\x14\0\x06\0", "n.csv: expected text, got a zero byte"),
    "compressed": (MODEL, b"\x1f\x8b\x08\0", "n.csv: expected UTF-8 text, got byte 0x8b"),
    "a cell that does not end": (MODEL, cell("z" * 200_000, 2), "n.csv: line 5: expected values .* field limit"),
    "a name with a line break": (MODEL.replace('"n"', '"n\\nx"'), NORTH, "sites: expected names as keys, got 'n"),
    "Latin-1 in the model": (MODEL.encode() + b"# \xe9\n", NORTH, "m.toml: line 4: expected UTF-8 text, got byte"),
    "an exposure of odds": (
        'exposure = "time"\n' + MODEL,
        NORTH,
        "exposure: expected none .* 'binomial' with the logit",
    ),
    "an exposure of means": (
        'family = "gaussian"\nexposure = "time"\n' + MODEL.replace("y ~ x", "age ~ x"),
        NORTH,
        "exposure: expected none for family 'gaussian' with the identity link",
    ),
    "a prior of no intercept": (
        "prior_intercept = 1.0\n" + MODEL.replace("y ~ x", "y ~ 0 + x"),
        NORTH,
        "prior_intercept: expected none for a formula without an intercept",
    ),
    "two priors of the intercept": (
        "prior = {Intercept = 2.0}\nprior_intercept = 1.0\n" + MODEL,
        NORTH,
        r"prior_intercept: expected none beside prior\['Intercept'\]",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_input_is_one_line_and_status_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, north, words = MALFORMED[name]
    (tmp_path / "m.toml").write_bytes(model if isinstance(model, bytes) else model.encode())
    for file, content in {"n.csv": north, "s.csv": SOUTH, "p.csv": POOLED}.items():
        if content is not None:
            (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["fit", str(tmp_path / "m.toml"), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 400 + len(str(tmp_path))
    assert re.search(words, printed.err), printed.err
    assert not (tmp_path / "out").exists()


HARMLESS: dict[str, str] = {
    "a byte-order mark": "\ufeff" + NORTH,
    "blank lines": NORTH.replace("\n", "\n\n"),
    "Windows' line ends": NORTH.replace("\n", "\r\n"),
    "the old Macintosh's": NORTH.replace("\n", "\r"),
    "quotes": "\n".join('"' + row.replace(",", '","') + '"' for row in NORTH.splitlines()),
    "columns in another order": WHOLE[:30][["time", "x", "age", "y", "arm"]].to_csv(index=False),
    "a comment that nobody asked for": WHOLE[:30].assign(note=["3", *["n/a"] * 29]).to_csv(index=False),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_differences_change_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MODEL, encoding="utf-8")
    (tmp_path / "n.csv").write_bytes(HARMLESS[name].encode())
    (tmp_path / "s.csv").write_text(SOUTH, encoding="utf-8")
    assert main(["fit", str(tmp_path / "m.toml"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
    expected = fit("y ~ x", {"all": WHOLE})
    assert [row["estimate"] for row in found["coefficients"]] == pytest.approx(expected.params.tolist(), abs=1e-8)
    assert found["facts"]["rows used"] == "60"


def halves(data: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"n": data[:30], "s": data[30:]}


# a site sees its own rows alone: what depends on the others' would be another term at every site
@pytest.mark.parametrize(
    "term",
    ["I(x - x.mean())", "I(x / np.max(x))", "x.rank()", "np.cumsum(x)", "center(x)", "scale(x)", "poly(x, 2)",
     "bs(x, df=4)", "cr(x, df=4)", "I(center(x) ** 2)", "standardize(x)"],
)  # fmt: skip
def test_a_term_that_needs_all_rows_is_refused_by_name(term: str) -> None:
    with pytest.raises(ValueError, match="formula: expected transformations of one row at a time, got '"):
        fit(f"y ~ {term}", halves(WHOLE))


@pytest.mark.parametrize("term", ["arm.str.upper()", "C(age.round(-1))", "C(arm, levels=['a'])", "C(x > 0)"])
def test_levels_are_those_of_columns(term: str) -> None:
    with pytest.raises(ValueError, match="formula: "):
        fit(f"y ~ {term}", halves(WHOLE))


@pytest.mark.parametrize("name", ["center", "log", "scale", "np", "C", "age (y)"])
def test_a_column_may_have_the_name_of_a_transformation(name: str) -> None:
    data = WHOLE.rename(columns={"age": name})
    found = fit(f"y ~ x + `{name}`", halves(data))
    assert found.params.to_numpy() == pytest.approx(fit("y ~ x + age", halves(WHOLE)).params.to_numpy(), abs=1e-9)
    assert found.terms[2] == name


def test_a_center_s_levels_are_its_own() -> None:
    data = WHOLE.assign(center=np.arange(N) % 3)
    found = fit("y ~ x + C(center)", halves(data))
    assert set(found.terms) == {"Intercept", "x", "C(center)[T.1]", "C(center)[T.2]"}


def test_an_offset_is_an_expression() -> None:
    count = WHOLE.assign(count=RNG.poisson(WHOLE["time"]))
    plain = fit("count ~ x", halves(count.assign(off=-np.log(count["time"]))), "poisson", offset="off")
    for offset in ("-log(time)", "log(1 / time)", "0 - np.log(time)"):
        found = fit("count ~ x", halves(count), "poisson", offset=offset)
        assert found.params.to_numpy() == pytest.approx(plain.params.to_numpy(), abs=1e-8)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a tempered mode": (
        lambda: fit("y ~ x", halves(WHOLE), temperature=0.5),
        "temperature: expected none for estimate",
    ),
    "classes that are measurements": (
        lambda: fit("x ~ age", halves(WHOLE), "multinomial"),
        r"sites\['n'\]\['x'\]: expected levels as text or whole numbers, got -",
    ),
    "a text made of missing values": (
        lambda: fit("y ~ arm", halves(WHOLE.assign(arm=np.where(X > -1, WHOLE["arm"], "nan")))),
        r"\['arm'\]: expected the name of a level or a missing value, got the text 'nan' at row",
    ),
    "a column called as a level": (
        lambda: fit("y ~ arm + `arm[T.b]`", halves(WHOLE.rename(columns={"age": "arm[T.b]"}))),
        r"formula: expected every term once, got two called 'arm\[T.b\]'",
    ),
    "a site that is missing": (
        lambda: fit("y ~ x", {"n": WHOLE[:30], "nan": WHOLE[30:]}),
        "sites: expected names as k",
    ),
    "all weights 0": (lambda: fit("y ~ x", halves(WHOLE.assign(w=0)), weights="w"), "weights: expected a positive sum"),
    "weights as an array": (
        lambda: fit("y ~ x", halves(WHOLE), weights=np.ones(N)),  # type: ignore[arg-type]
        "weights: expected the name of a column, got ndarray",
    ),
    "exposure as an array": (
        lambda: fit("y ~ x", halves(WHOLE), exposure=np.ones(N)),  # type: ignore[arg-type]
        "exposure: expected the name of a column, got ndarray",
    ),
    "an option of nobody": (lambda: fit("y ~ x", halves(WHOLE), penalty=1), "penalty: expected one of the options"),
    "an option set here": (lambda: fit("y ~ x", halves(WHOLE), expectation="delta"), "expectation: expected one of"),
    "an unknown method": (lambda: fit("y ~ x", halves(WHOLE), method="irls"), "method: expected one of"),
    "half a round": (lambda: fit("y ~ x", halves(WHOLE), rounds=1.5), "rounds: expected a positive integer"),  # type: ignore[arg-type]
    "a column called Intercept": (
        lambda: fit("y ~ Intercept", halves(WHOLE.rename(columns={"age": "Intercept"}))),
        "formula: expected another name for a column than 'Intercept'",
    ),
    "numbers and levels at once": (
        lambda: fit("y ~ age + C(age)", halves(WHOLE)),
        "formula: expected a column as numbers or as levels, got 'age' as both",
    ),
    "identifiers as levels": (
        lambda: fit("y ~ id", halves(pd.concat([WHOLE] * 20).assign(id=[f"p{i}" for i in range(20 * N)]))),
        "id: expected at most 1000 levels over all sites, got 1200",
    ),
    "two spellings of a site": (
        lambda: fit("y ~ x", {"North": WHOLE[:30], "north ": WHOLE[30:]}),
        "sites: expected the spelling 'North', got 'north '",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(name: str) -> None:
    act, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_prediction_needs_no_weights_and_names_what_is_wrong() -> None:
    found = fit("y ~ x + arm", halves(WHOLE.assign(w=1.0)), weights="w")
    new = WHOLE[["x", "arm"]].head(3)
    assert found.predict(new)["mean"].between(0, 1).all()
    with pytest.raises(ValueError, match="data: expected the column 'arm', got 'x'"):
        found.predict(new[["x"]])
    with pytest.raises(ValueError, match=r"data\['x'\]: expected numbers as in the fit, got levels"):
        found.predict(new.assign(x="high"))
    with pytest.raises(ValueError, match=r"data\['x'\]: expected finite values, got inf at row 0"):
        found.predict(new.assign(x=np.inf))


def test_numbers_held_as_objects_are_numbers() -> None:
    plain = fit("y ~ x", halves(WHOLE)).params.to_numpy()
    assert fit("y ~ x", halves(WHOLE.astype({"x": object, "y": object}))).params.to_numpy() == pytest.approx(plain)


def test_levels_that_may_stand_for_a_missing_value_are_told() -> None:
    found = fit("y ~ arm", halves(WHOLE.assign(arm=np.where(np.arange(N) % 4 == 0, "None", WHOLE["arm"]))))
    assert "arm: 'None' is counted as a level, not as a missing value" in found.notes


def test_a_level_that_is_declared_may_have_any_name() -> None:
    arm = pd.Categorical(np.where(np.arange(N) % 4 == 0, "NULL", WHOLE["arm"]), categories=["a", "b", "NULL"])
    assert fit("y ~ arm", halves(WHOLE.assign(arm=arm))).terms == ("Intercept", "arm[T.b]", "arm[T.NULL]")


def test_an_empty_cell_in_quotes_is_a_missing_value_and_no_blank_line(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MODEL.replace("y ~ x", "y ~ 1"), encoding="utf-8")
    for name in ("n.csv", "s.csv"):
        (tmp_path / name).write_text('y\n1\n\n0\n""\n  \n1\n', encoding="utf-8")
    assert main(["fit", str(tmp_path / "m.toml"), "--out", str(tmp_path / "out")]) == 0
    sites = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))["sites"]
    assert sites["n"] == {"used": 3, "left_out": 1, "events": 2.0}


IDENTIFIERS = [None if k == 5 else 2**53 + k % 3 for k in range(N)]


@pytest.mark.parametrize("kind", ["Int64", "UInt64", "Int128"])
def test_identifiers_beside_missing_values_stay_apart(kind: str) -> None:
    polars = pytest.importorskip("polars")
    data = polars.DataFrame({name: WHOLE[name].tolist() for name in ("y", "x")})
    data = data.with_columns(polars.Series("id", IDENTIFIERS, dtype=getattr(polars, kind)))
    found = fit("y ~ x + C(id)", {"n": data[:30], "s": data[30:]})
    assert found.terms[2:] == (f"C(id)[T.{2**53 + 1}]", f"C(id)[T.{2**53 + 2}]")
    assert found.counts["n"].left_out == 1


@pytest.mark.parametrize("term", ["arm", "kind", "id", "x"])
def test_columns_that_arrow_holds_are_those_of_pandas(term: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    held = {name: pd.Series(WHOLE[name].tolist(), dtype=pd.ArrowDtype(arrow.array(WHOLE[name]).type)) for name in "yx"}
    held["arm"] = pd.Series(WHOLE["arm"].tolist(), dtype=pd.ArrowDtype(arrow.string()))
    held["kind"] = pd.Series(
        arrow.array(WHOLE["arm"].tolist()).dictionary_encode().to_pandas(types_mapper=pd.ArrowDtype)
    )
    held["id"] = pd.Series(IDENTIFIERS, dtype=pd.ArrowDtype(arrow.int64()))
    plain = WHOLE.assign(kind=WHOLE["arm"], id=pd.array(IDENTIFIERS, dtype="Int64"))
    named = "C(id)" if term == "id" else term
    found, wanted = (fit(f"y ~ {named}", halves(data)) for data in (pd.DataFrame(held), plain))
    assert found.terms == wanted.terms
    assert found.params.to_numpy() == pytest.approx(wanted.params.to_numpy(), abs=1e-9)
