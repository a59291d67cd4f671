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

from badmm.experiments.config import toml
from badmm.experiments.config.toml import ConfigError
from badmm.experiments.store.figures import save_figure
from badmm.transports.atomic import write_atomic

if TYPE_CHECKING:
    import pandas as pd

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
    "tol": float,
    "rounds": int,
}
DATA = {"sites": list, "file": str, "site_column": str, "text": list, "missing_values": list}
SITE = {"name": str, "file": str}


def from_file(path: Path, overrides: Sequence[str] = (), out: Path | None = None) -> bool:
    """Fit what the file describes, print the report and write the results; False where the fit did not converge.

    Raises `ConfigError` and `ValueError` naming the key, or the file, line and column.
    """
    from badmm import glm

    table = toml.read(path, overrides)
    data = table.pop("data", None)
    _check(table, MODEL, "")
    if "formula" not in table:
        raise ConfigError(f"formula: expected a formula in {path}, got none")
    if not isinstance(data, dict):
        raise ConfigError(f"data: expected a table [data] in {path}, got {data!r:.80}")
    _check(data, DATA, "data.")
    result = glm.fit(sites=_sites(data, path.parent), **table)
    print(result.summary())
    folder = Path("runs") / path.stem if out is None else out
    write(result, folder)
    print(f"results in {folder}", file=sys.stderr)
    return result.converged


def write(result: GLMResult, folder: Path) -> None:
    """model.json, coefficients.csv, summary as text, HTML and LaTeX, and the forest plot, in a folder."""
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    summary = result.summary()
    texts = {
        "model.json": json.dumps(result.to_dict(), indent=2, default=float),
        "coefficients.csv": result.to_frame().to_csv(lineterminator="\n").rstrip("\n"),
        "summary.txt": summary.text,
        "summary.html": summary.html,
        "summary.tex": summary.latex,
    }
    for name, text in texts.items():
        write_atomic(folder / name, f"{text}\n".encode())
    with plt.ioff():
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
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ConfigError(f"{prefix}{key}: expected {wanted}, got {value!r:.80}")


def _sites(data: Mapping[str, Any], folder: Path) -> dict[str, pd.DataFrame]:
    from badmm.data.frames import MISSING, read_frame

    if ("sites" in data) == ("file" in data):
        raise ConfigError('data: expected either "sites" or "file" with "site_column", got both or none')
    text = _strings(data, "text", ())
    missing = _strings(data, "missing_values", MISSING)
    if "file" in data:
        if "site_column" not in data:
            raise ConfigError("data.site_column: expected the column that names the sites, got none")
        column = data["site_column"]
        path = folder / data["file"]
        return _split(read_frame(path, [*text, column], missing), column, path)
    if "site_column" in data:
        raise ConfigError('data.site_column: expected no such key beside "sites", whose files are the sites')
    found: dict[str, Any] = {}
    for place, entry in enumerate(data["sites"]):
        where = f"data.sites[{place}]"
        if not isinstance(entry, dict) or set(entry) != set(SITE):
            raise ConfigError(f"{where}: expected a name and a file, got {entry!r:.80}")
        _check(entry, SITE, f"{where}.")
        if entry["name"] in found:
            raise ConfigError(f"{where}.name: expected every site once, got {entry['name']!r} more than once")
        found[entry["name"]] = read_frame(folder / entry["file"], text, missing)
    return found


def _split(frame: pd.DataFrame, column: str, path: Path) -> dict[str, pd.DataFrame]:
    names = frame[column].astype("string").str.strip()
    unnamed = (names.isna() | (names == "")).to_numpy()
    if unnamed.any():
        raise ValueError(f"{path}: column {column!r}: expected a site in every row, got none in row {unnamed.argmax()}")
    return {str(site): part for site, part in frame.groupby(names, sort=False)}


def _strings(data: Mapping[str, Any], key: str, default: Sequence[str]) -> list[str]:
    values = list(data.get(key, default))
    if not all(isinstance(value, str) for value in values):
        raise ConfigError(f"data.{key}: expected a list of texts, got {values!r:.80}")
    return values
