"""`badmm fit`: one file per site or one with a column of sites, and a line for whatever is wrong with either."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("formulaic", reason="needs the extra glm")

from badmm.__main__ import main
from badmm.experiments.store import locked
from badmm.glm import fit

RNG = np.random.default_rng(6)
DATA = pd.DataFrame({"x": RNG.normal(size=120), "arm": RNG.choice(["a", "b"], 120), "site": np.arange(120) // 40})
DATA["y"] = (RNG.random(120) < 1 / (1 + np.exp(-0.3 - DATA["x"]))).astype(int)
MODEL = 'formula = "y ~ x + arm"\nfamily = "binomial"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for site, part in DATA.groupby("site"):
        part.to_csv(tmp_path / f"{site}.csv", index=False)
    DATA.to_csv(tmp_path / "all.csv", index=False)
    names = ", ".join(f'{{name = "site {site}", file = "{site}.csv"}}' for site in range(3))
    (tmp_path / "model.toml").write_text(f"{MODEL}[data]\nsites = [{names}]\n")
    (tmp_path / "pooled.toml").write_text(f'{MODEL}[data]\nfile = "all.csv"\nsite_column = "site"\n')
    return tmp_path


def coefficients(folder: Path, model: str = "model") -> pd.DataFrame:
    out = folder / "out"
    assert main(["fit", str(folder / f"{model}.toml"), "--out", str(out)]) == 0
    return pd.read_csv(out / "coefficients.csv", index_col=0)


def test_results_are_those_of_the_library(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = fit("y ~ x + arm", {"all": DATA}).to_frame()
    for model in ("model", "pooled"):
        found = coefficients(folder, model)
        assert found["estimate"].to_numpy() == pytest.approx(expected["estimate"].to_numpy(), abs=1e-9)
        assert found["std_error"].to_numpy() == pytest.approx(expected["std_error"].to_numpy(), rel=1e-8)
    assert "odds ratio" in capsys.readouterr().out
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {
        ".lock",
        "model.json",
        "coefficients.csv",
        "summary.txt",
        "summary.html",
        "summary.tex",
        "forest.png",
    }
    saved = json.loads((folder / "out" / "model.json").read_text())
    assert saved["sites"]["2"] == {"used": 40, "left_out": 0, "events": float(DATA["y"][80:].sum())}


def test_marks_and_blank_lines_of_a_spreadsheet_change_nothing(folder: Path) -> None:
    before = coefficients(folder)
    for site in range(3):
        path = folder / f"{site}.csv"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n", 3) + b"\r\n\r\n")
    pd.testing.assert_frame_equal(coefficients(folder), before)


def test_text_columns_are_levels_exactly_as_written(folder: Path) -> None:
    for site in range(3):
        data = DATA[DATA["site"] == site]
        data.assign(arm=np.where(data["arm"] == "a", "01", "1")).to_csv(folder / f"{site}.csv", index=False)
    text = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(text + 'text = ["arm"]\n')
    assert list(coefficients(folder).index) == ["Intercept", "x", "arm[T.1]"]


def test_missing_values_are_what_the_file_says(folder: Path) -> None:
    (folder / "0.csv").write_text((folder / "0.csv").read_text().replace(",a,", ",-9,", 4))
    text = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(text + 'missing_values = ["", "-9"]\n')
    coefficients(folder)
    saved = json.loads((folder / "out" / "model.json").read_text())
    assert (saved["sites"]["site 0"]["used"], saved["sites"]["site 0"]["left_out"]) == (36, 4)


def test_a_fit_that_does_not_converge_has_a_status_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", str(folder / "model.toml"), "--out", str(folder / "out")]
    arguments += ["--set", "estimate=posterior", "--set", "rounds=1", "--set", "tol=1e-14"]
    assert main(arguments) == 3
    captured = capsys.readouterr()
    assert "NOT CONVERGED" in captured.out
    assert "did not converge" in captured.err


def test_a_folder_that_another_run_uses_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(folder / "out"):
        assert main(["fit", str(folder / "model.toml"), "--out", str(folder / "out")]) == 2
    assert "--out: expected a folder that no other run uses" in capsys.readouterr().err
    assert {path.name for path in (folder / "out").iterdir()} == {".lock"}


def test_results_are_the_users_alone_and_equal_runs_leave_equal_bytes(folder: Path) -> None:
    arguments = ["fit", str(folder / "model.toml"), "--out"]
    before = os.umask(0o077)
    try:
        assert [main([*arguments, str(folder / turn)]) for turn in "ab"] == [0, 0]
    finally:
        os.umask(before)
    found = [{path.name: path.read_bytes() for path in (folder / turn).iterdir()} for turn in "ab"]
    assert found[0] == found[1]
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in (folder / "a").iterdir())


def edited(name: str, old: str, new: str) -> tuple[str, str, str]:
    return name, old, new


WRONG = [
    (("model.toml", 'formula = "y ~ x + arm"', ""), "formula: expected a formula"),
    (("model.toml", '"y ~ x + arm"', "3"), "formula: expected a text, got 3"),
    (("model.toml", "family", "famly"), "famly: expected one of the keys formula, family"),
    (
        ("model.toml", '"binomial"', '"logit"'),
        "family: expected one of gaussian, binomial, poisson, negative_binomial, gamma, multinomial, got 'logit'",
    ),
    (("model.toml", "[data]", "[data]\ncolour = 1"), "data.colour: expected one of the keys sites, file"),
    (("model.toml", "[data]", "[dta]"), "dta: expected one of the keys"),
    (("model.toml", "sites = ", "text = "), 'data: expected either "sites" or "file"'),
    (("model.toml", "[data]", '[data]\nsite_column = "site"'), 'data.site_column: expected no such key beside "sites"'),
    (("model.toml", "site 1", "site 0"), "data.sites[1].name: expected every site once"),
    (("model.toml", 'file = "1.csv"', 'path = "1.csv"'), "data.sites[1]: expected a name and a file"),
    (("model.toml", "1.csv", "9.csv"), "9.csv: expected an existing file"),
    (("model.toml", "1.csv", "1.xlsx"), "1.xlsx: expected a name that ends in .csv or .parquet"),
    (("model.toml", "[data]", "[data"), "model.toml: expected valid TOML"),
    (("1.csv", "x,arm", "x,x"), "1.csv: line 1: expected every column once, got 'x' more than once"),
    (("1.csv", "x,arm", "x,"), "1.csv: line 1: expected a name for column 2"),
    (("1.csv", "x,arm", "z,arm"), "1.csv: expected the column 'x', got 'z', 'arm'"),
    (("1.csv", ",a,1,", ",a,1,7,"), "1.csv: line 2: expected 4 values"),
    (("1.csv", ",a,1,", ",a,"), "1.csv: line 2: expected 4 values"),
    (("1.csv", "\n-", "\nminus"), "1.csv: line 2, column 'x': expected a number"),
    (("1.csv", ",1\n", ",2\n"), "sites['site 1']['y']: expected 0 or 1, got 2 at line 2"),
]


@pytest.mark.parametrize(("edit", "words"), WRONG, ids=[words[:50] for _, words in WRONG])
def test_wrong_files_are_a_line_and_status_2(
    folder: Path, edit: tuple[str, str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, old, new = edit
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert main(["fit", str(folder / "model.toml"), "--out", str(folder / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected a header of column names, got an empty file"),
        (b"x,arm,site,y\n", "expected at least one row, got none"),
        (b"x,arm,site,y\n1,\xff,0,1\n", "expected UTF-8 text, got byte 0xff"),
        (b"x,arm,site,y\n1,\0,0,1\n", "expected text, got a zero byte"),
        (b"x,arm,site,y\n12345678901234567890.0,a,0,1\n", "column 'x': whole numbers beyond 2**53"),
    ],
)
def test_broken_files_are_named(folder: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "1.csv").write_bytes(content)
    assert main(["fit", str(folder / "model.toml"), "--out", str(folder / "out")]) == 2
    assert f"1.csv: {words}" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "got"), [("", "none"), (" ", "none"), ("nan", "'nan'"), ("None", "'None'")])
def test_rows_without_a_site_are_refused(folder: Path, capsys: pytest.CaptureFixture[str], name: str, got: str) -> None:
    lines = (folder / "all.csv").read_text().splitlines()
    lines[5] = lines[5].replace(",0,", f",{name},")
    (folder / "all.csv").write_text("\n".join(lines))
    assert main(["fit", str(folder / "pooled.toml"), "--out", str(folder / "out")]) == 2
    assert f"column 'site': expected a site in every row, got {got} in line 6" in capsys.readouterr().err
