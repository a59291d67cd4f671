"""The report of a federated run: summary.json, summary.md, plots, and a table on the terminal.

It is computed from the folders' histories and summaries, so a resumed run reports the same as an uninterrupted one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from badmm.experiments import store
from badmm.experiments.config import toml
from badmm.experiments.config.networks import NetworkConfig
from badmm.experiments.plots import networks as pictures
from badmm.experiments.store.folder import HISTORY
from badmm.experiments.summary import ACCURACY, Runs, summarise

SUMMARY = "summary.json"
TABLES, CURVES, RELIABILITY, EFFECT = "summary.md", "curves.png", "reliability.png", "effect.png"


def folder(out: Path, label: str, seed: int) -> Path:
    """Return the folder of a method's run with a seed."""
    return out / label / f"seed-{seed}"


def histories(config: NetworkConfig, out: Path) -> Runs:
    """Return the histories by method and seed."""
    return {
        label: {seed: store.History(folder(out, label, seed) / HISTORY).read() for seed in config.run.seeds}
        for label in config.methods
    }


def write(config: NetworkConfig, out: Path, summaries: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Write the summary and the plots into `out`, and print the main tables."""
    store.write_atomic(out / SUMMARY, json.dumps(list(summaries), indent=1).encode())
    runs = histories(config, out)
    reference = config.report.reference or next(iter(config.methods))
    if not any(history for own in runs.values() for history in own.values()):
        return  # no run has finished its first round
    failures = [entry for entry in summaries if "failure" in entry]
    summary = summarise(config.name, runs, config.report.rounds, reference, config.data.evaluate, failures)
    store.write_atomic(out / TABLES, summary.markdown().encode())
    seeds = ", ".join(map(str, config.run.seeds))
    title = f"{config.name}, seeds {seeds}"
    store.save_figure(out / CURVES, pictures.curves(runs, title))
    diagrams: dict[str, list[Any]] = {}
    for entry in summaries:
        if "reliability" in entry:
            diagrams.setdefault(entry["label"], []).append(entry["reliability"])
    after = f"{title}, round {config.run.rounds}"
    if diagrams:
        store.save_figure(out / RELIABILITY, pictures.reliability(diagrams, after))
    drawn = pictures.effect(_points(config, runs), ACCURACY.name, True, after)
    if drawn is not None:
        store.save_figure(out / EFFECT, drawn)
    summary.print(console)


def _points(config: NetworkConfig, runs: Runs) -> dict[str, list[pictures.Point]]:
    """Return the labels of every method as points with their settings and scores."""
    groups: dict[str, list[pictures.Point]] = {}
    for label, table in config.methods.items():
        last = [ACCURACY.at(history, config.run.rounds) for history in runs[label].values()]
        scores = [value for value in last if value is not None]
        groups.setdefault(table.method, []).append(pictures.Point(toml.flat(table.model_dump()), scores))
    return groups
