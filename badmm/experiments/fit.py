"""`badmm fit MODEL.toml`: a generalized linear model over one file per site, or one file with a column of sites.

    formula = "y ~ x + arm"
    family = "binomial"
    [data]
    sites = [{name = "north", file = "north.csv"}, {name = "south", file = "south.csv"}]

Paths are relative to the file that names them. The results are whole files or none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from badmm.checks import positive_integer
from badmm.experiments.config import toml
from badmm.experiments.config.toml import ConfigError
from badmm.experiments.store.figures import save_figure
from badmm.transports.atomic import write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from badmm.data.chunks import Chunked
    from badmm.glm import GLMResult

MODEL = {
    "formula": str,
    "family": str,
    "estimate": str,
    "missing": str,
    "prior": (str, float, dict),
    "prior_intercept": float,
    "offset": str,
    "weights": str,
    "exposure": str,
    "dispersion": float,
    "tol": float,
    "rounds": int,
}
DATA = {"sites": list, "file": str, "site_column": str, "text": list, "missing_values": list, "chunk_rows": int}
SITE = {"name": str, "file": str}
WORDS = {str: "a text", float: "a number", int: "a whole number", dict: "a table", list: "a list"}


def from_file(path: Path, overrides: Sequence[str] = (), out: Path | None = None) -> bool:
    """Fit what the file describes, print the report and write the results; False where the fit did not converge.

    Raises `ConfigError` and `ValueError` naming the key, or the file, line and column.
    """
    from badmm import glm
    from badmm.glm.design import Design
    from badmm.glm.families import response_family

    folder = Path("runs") / path.stem if out is None else out
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out: expected a folder, got the file {folder}")
    table = toml.read(path, overrides)
    data = table.pop("data", None)
    _check(table, MODEL, "")
    if "formula" not in table:
        raise ConfigError(f"formula: expected a formula in {path}, got none")
    if not isinstance(data, dict):
        raise ConfigError(f"data: expected a table [data] in {path}, got {data!r:.80}")
    _check(data, DATA, "data.")
    kind = response_family(table.get("family", "binomial"))
    design = Design(table["formula"], kind, table.get("offset"), table.get("weights"), table.get("exposure"))
    result = glm.fit(sites=_sites(data, path.parent, design.columns), **table)
    print(result.summary())
    write(result, folder)
    print(f"results in {folder}", file=sys.stderr)
    return result.converged


def write(result: GLMResult, folder: Path) -> None:
    """model.json, coefficients.csv, summary as text, HTML and LaTeX, and the forest plot, in a folder."""
    from matplotlib import pyplot as plt

    from badmm.experiments.store.folder import locked

    summary = result.summary()
    texts = {
        "model.json": json.dumps(result.to_dict(), indent=2, default=float),
        "coefficients.csv": result.to_frame().to_csv(lineterminator="\n").rstrip("\n"),
        "summary.txt": summary.text,
        "summary.html": summary.html,
        "summary.tex": summary.latex,
    }
    with locked(folder), plt.ioff():
        for name, text in texts.items():
            write_atomic(folder / name, f"{text}\n".encode())
        figure = result.plot()[0].figure
        save_figure(folder / "forest.png", figure)
        plt.close(figure)  # type: ignore[arg-type]


def _check(table: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{prefix}{key}: expected one of the keys {', '.join(known)}, got {key!r}")
        kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
        kinds = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = " or ".join(WORDS[kind] for kind in kinds if kind is not int or float not in kinds)
            raise ConfigError(f"{prefix}{key}: expected {wanted}, got {value!r:.80}")


def _sites(data: Mapping[str, Any], folder: Path, columns: list[str]) -> dict[str, pd.DataFrame | Chunked]:
    from badmm.data.chunks import Chunked
    from badmm.data.frames import MISSING, read_frame

    if ("sites" in data) == ("file" in data):
        raise ConfigError('data: expected either "sites" or "file" with "site_column", got both or none')
    text = _strings(data, "text", ())
    missing = _strings(data, "missing_values", MISSING)
    rows = None if "chunk_rows" not in data else positive_integer(data["chunk_rows"], "data.chunk_rows")
    if "file" in data:
        if rows is not None:
            raise ConfigError('data.chunk_rows: expected no such key beside "file", which is read at once')
        if "site_column" not in data:
            raise ConfigError("data.site_column: expected the column that names the sites, got none")
        column = data["site_column"]
        path = folder / data["file"]
        wanted = list(dict.fromkeys([*columns, column]))
        return _split(read_frame(path, [*text, column], missing, wanted), column, path)
    if "site_column" in data:
        raise ConfigError('data.site_column: expected no such key beside "sites", whose files are the sites')
    if not data["sites"]:
        raise ConfigError("data.sites: expected a name and a file of every site, got none")
    found: dict[str, Any] = {}
    owners: dict[Path, str] = {}
    for place, entry in enumerate(data["sites"]):
        where = f"data.sites[{place}]"
        if not isinstance(entry, dict) or set(entry) != set(SITE):
            raise ConfigError(f"{where}: expected a name and a file, got {entry!r:.80}")
        _check(entry, SITE, f"{where}.")
        if entry["name"] in found:
            raise ConfigError(f"{where}.name: expected every site once, got {entry['name']!r} more than once")
        file = folder / entry["file"]
        owner = owners.setdefault(file.resolve(), entry["name"])
        if owner != entry["name"]:
            raise ConfigError(f"{where}.file: expected a file of its own, got {file}, which is site {owner!r}'s")
        if rows is None:
            found[entry["name"]] = read_frame(file, text, missing, columns)
        else:
            found[entry["name"]] = Chunked(file, rows, text, missing)
    return found


def _split(frame: pd.DataFrame, column: str, path: Path) -> dict[str, pd.DataFrame]:
    from badmm.data.names import is_missing

    names = frame[column].astype("string").str.strip()
    for line, unnamed, name in zip(frame.index, names.isna(), names, strict=True):
        if unnamed or is_missing(name):
            got = "none" if unnamed or not name else repr(name)
            raise ValueError(f"{path}: column {column!r}: expected a site in every row, got {got} in line {line}")
    return {str(site): part for site, part in frame.groupby(names, sort=False)}


def _strings(data: Mapping[str, Any], key: str, default: Sequence[str]) -> list[str]:
    values = list(data.get(key, default))
    if not all(isinstance(value, str) for value in values):
        raise ConfigError(f"data.{key}: expected a list of texts, got {values!r:.80}")
    return values
