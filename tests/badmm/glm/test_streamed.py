"""Files that are read in chunks: the fit is that from memory, and what is wrong in a late chunk is named as in a small
file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("formulaic", reason="needs the extra glm")

from badmm.__main__ import main
from badmm.data.chunks import Chunked
from badmm.data.frames import read_frame
from badmm.glm import GLMResult, fit

RNG = np.random.default_rng(7)
N, ROWS = 300, 30
A = RNG.normal(size=N)
DATA = pd.DataFrame(
    {
        "x": A.round(5),
        "arm": RNG.choice(list("abc"), N),
        "code": RNG.integers(0, 3, N),
        "time": RNG.exponential(2.0, N).round(4) + 0.01,
        "w": RNG.integers(0, 3, N),
        "y": (RNG.random(N) < 1 / (1 + np.exp(-A))).astype(int),
        "count": RNG.poisson(np.exp(0.5 * A)),
        "g": (A + RNG.normal(size=N)).round(5),
        "cost": RNG.gamma(2.0, np.exp(A) / 2).round(5) + 0.001,
        "kind": RNG.choice(["u", "v", "z"], N),
    }
)
DATA.loc[[5, 140], "x"] = np.nan
DATA.loc[200:, "arm"] = sorted(DATA.loc[200:, "arm"])  # chunks that lack levels
PARTS = {"n": DATA[:140], "s": DATA[140:200], "e": DATA[200:].assign(arm=lambda d: d["arm"].where(d.index != 230))}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "binomial": ("y ~ x * arm + C(code)", "binomial", {"weights": "w"}),
    "poisson": ("count ~ x + np.log(time)", "poisson", {"exposure": "time"}),
    "gaussian": ("g ~ x + arm", "gaussian", {}),
    "gamma": ("cost ~ x + arm", "gamma", {"offset": "0.1 * code"}),
    "negative binomial": ("count ~ x", "negative_binomial", {}),
    "multinomial": ("kind ~ x", "multinomial", {"prior": "weak"}),
    "posterior": ("y ~ x + arm", "binomial", {"estimate": "posterior", "prior": 1.0}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV per site."""
    found = tmp_path_factory.mktemp("sites")
    for site, part in PARTS.items():
        part.to_csv(found / f"{site}.csv", index=False)
    return found


def equal(found: GLMResult, wanted: GLMResult) -> None:
    assert (found.terms, found.counts, found.notes) == (wanted.terms, wanted.counts, wanted.notes)
    assert found.rounds == wanted.rounds
    for name in ("deviance", "null_deviance", "aic"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-12)
    np.testing.assert_allclose(found.params, wanted.params, rtol=1e-12)
    np.testing.assert_allclose(found.bse, wanted.bse, rtol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_from_chunks_is_that_from_memory(name: str, folder: Path) -> None:
    formula, family, options = MODELS[name]
    files = {site: folder / f"{site}.csv" for site in PARTS}
    found = fit(formula, {site: Chunked(path, ROWS) for site, path in files.items()}, family, **options)
    equal(found, fit(formula, {site: read_frame(path) for site, path in files.items()}, family, **options))


def test_chunked_sites_beside_frames_and_the_sites_own_fits(folder: Path) -> None:
    mixed = {site: part if site == "n" else Chunked(folder / f"{site}.csv", ROWS) for site, part in PARTS.items()}
    found, wanted = fit("y ~ x + arm", mixed), fit("y ~ x + arm", PARTS)
    equal(found, wanted)
    np.testing.assert_allclose(found.by_site(), wanted.by_site(), rtol=1e-9)


DECLARED = pd.CategoricalDtype(["c", "a", "b"])


def test_parquet_in_chunks_is_the_csv(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    ids = pd.array([None if k % 9 == 4 else 2**53 + k % 3 for k in range(N)], dtype="Int64")
    parts = {site: part.assign(id=ids[part.index]) for site, part in PARTS.items()}
    for site, part in parts.items():
        part.assign(arm=part["arm"].astype(DECLARED)).set_index("x").to_parquet(
            tmp_path / f"{site}.parquet", row_group_size=50
        )
    formula = "y ~ x + arm + C(id)"
    for sites in (
        {site: Chunked(tmp_path / f"{site}.parquet", ROWS) for site in parts},
        {site: read_frame(tmp_path / f"{site}.parquet") for site in parts},
    ):
        found = fit(formula, sites)
        assert found.terms[2:] == ("arm[T.a]", "arm[T.b]", f"C(id)[T.{2**53 + 1}]", f"C(id)[T.{2**53 + 2}]")
        wanted = fit(formula, {site: part.assign(arm=part["arm"].astype(DECLARED)) for site, part in parts.items()})
        np.testing.assert_allclose(found.params, wanted.params, rtol=1e-12)
        assert found.counts == wanted.counts
    (tmp_path / "n.parquet").write_bytes((tmp_path / "n.parquet").read_bytes()[:-9])
    for name, words in (("n", "expected a Parquet file"), ("s", "expected the column 'q'")):
        with pytest.raises(ValueError, match=rf"{name}\.parquet: {words}"):
            fit("y ~ q", {"n": Chunked(tmp_path / f"{name}.parquet", ROWS)})


def test_a_file_in_chunks_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    listed = ", ".join(f'{{name = "{site}", file = "{folder / f"{site}.csv"}"}}' for site in PARTS)
    for rows in ("", "chunk_rows = 50\n"):
        (tmp_path / "m.toml").write_text(f'formula = "y ~ x + arm"\n[data]\n{rows}sites = [{listed}]\n')
        assert main(["fit", str(tmp_path / "m.toml"), "--out", str(tmp_path / f"o{len(rows)}")]) == 0
    plain, chunked = (json.loads((tmp_path / f"o{length}" / "model.json").read_text()) for length in (0, 16))
    assert chunked["covariance"] == pytest.approx(np.array(plain["covariance"]), rel=1e-10)
    assert chunked["sites"] == plain["sites"]


LINES = PARTS["n"].to_csv(index=False).splitlines()


def late(column: str, value: str) -> str:
    """North's file with another value in line 101, in its fourth chunk."""
    cells = LINES[100].split(",")
    cells[LINES[0].split(",").index(column)] = value
    return "\n".join([*LINES[:100], ",".join(cells), *LINES[101:]])


WRONG: dict[str, tuple[str, str, str]] = {
    "a value too few": ("y ~ x", "\n".join([*LINES[:100], "1,2", *LINES[101:]]), "line 101: expected 10 values, got 2"),
    "an open quote": ("y ~ x", "\n".join([*LINES[:100], '"1,2', *LINES[101:]]), "line 101: expected values separated"),
    "a slip": ("y ~ x", late("x", "1O"), "line 101, column 'x': expected a number"),
    "a zero byte": ("y ~ x", late("x", "\0"), "expected text, got a zero byte"),
    "infinity": ("y ~ x", late("x", "inf"), r"\['x'\]: expected finite values, got inf at line 101"),
    "another response": ("y ~ x", late("y", "2"), r"\['y'\]: expected 0 or 1, got 2 at line 101"),
    "another spelling": ("y ~ arm", late("arm", "A"), r"\['arm'\]: expected the spelling"),
    "a level called nan": ("y ~ arm", late("arm", "nan"), "got the text 'nan' at line 101"),
    "another kind": (
        "y ~ x",
        "\n".join([*LINES[:91], *(f"low{line[line.index(',') :]}" for line in LINES[91:])]),
        r"\['x'\]: expected numbers as above, got levels at line 92; list levels as text",
    ),
    "a column missing": ("y ~ q", "\n".join(LINES), "n.csv: expected the column 'q'"),
    "a header alone": ("y ~ x", LINES[0], "n.csv: expected at least one row, got none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_late_chunk_is_named(name: str, folder: Path, tmp_path: Path) -> None:
    formula, content, words = WRONG[name]
    (tmp_path / "n.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        fit(formula, {"n": Chunked(tmp_path / "n.csv", ROWS), "s": Chunked(folder / "s.csv", ROWS)})
    assert "\n" not in str(caught.value)


def test_what_chunks_cannot_be_is_told(folder: Path) -> None:
    site = {"n": Chunked(folder / "n.csv", ROWS)}
    with pytest.raises(ValueError, match=r"or a dispersion where sites\['n'\] is read in chunks"):
        fit("g ~ x", site, "gaussian", estimate="posterior")
    with pytest.raises(ValueError, match="rows: expected a positive integer, got 0"):
        fit("g ~ x", {"n": Chunked(folder / "n.csv", 0)}, "gaussian")
