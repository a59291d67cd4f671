"""`badmm tune`: choose every method's settings from a grid, on validation images, with equal budgets.

The budget of a method is grid points × rounds × seeds; unequal budgets are refused unless the configuration allows
them. Test images are never scored: a part of the training images is withheld from the clients for validation. Every
point is a run in `OUT/points`, which can be resumed. `OUT` has `tuning.json` and `tuning.md` with all points,
`effect.png`, and `tuned.toml`, the configuration with the chosen settings.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from badmm.checks import UnfinishedRunError
from badmm.experiments import report, run as running, store
from badmm.experiments.config import ConfigError, networks, toml
from badmm.experiments.config.networks import Local, MethodTable, NetworkConfig, Report, Tune, method_table
from badmm.experiments.jobs.sweep import NetworkRuns
from badmm.experiments.plots import networks as pictures
from badmm.experiments.store.folder import locked
from badmm.experiments.summary import ACCURACY, NLL, PREDICTION_NLL, Score, TextTable, spread

SCORES: dict[str, tuple[Score, bool]] = {
    "accuracy": (ACCURACY, True),
    "nll": (NLL, False),
    "prediction_nll": (PREDICTION_NLL, False),
}
"""Scores by the values of `tune.score`, and whether larger is better."""


@dataclass(frozen=True)
class Trial:
    """One point of a method's grid: the varied settings by dotted name, the whole table, and the scores.

    scores: one per seed, None for a seed whose run failed (reason in `failures`) or whose score is not finite.
    """

    settings: Mapping[str, Any]
    table: MethodTable
    scores: Sequence[float | None] = ()
    failures: Mapping[str, str] | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN if a seed has no score."""
        return float("nan") if None in self.scores else float(np.mean([s for s in self.scores if s is not None]))


Trials = Mapping[str, Sequence[Trial]]
"""The grids by the methods' labels."""


def from_file(
    path: Path,
    overrides: Iterable[str] = (),
    out: Path | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
    then_run: bool = False,
) -> NetworkConfig:
    """Tune the methods of a configuration in `out` (default `runs/NAME-tuning`); return the tuned configuration.

    then_run: also run `tuned.toml` in `out/tuned`, with the seeds of its section `run`. Raises ConfigError, before
    anything is written, for a file without `tune`, for settings that a method does not have, and for unequal budgets.
    Raises UnfinishedRunError, after the grid is written, if no point of a method has a finite score.
    """
    config = networks.load(path, overrides)
    if config.tune is None:
        raise ConfigError(f"{path}: tune: expected a section with a grid for every method, got none")
    trials = grids(config, config.tune)
    _check_budgets(config.tune, trials)
    plan = _plan(config, config.tune, trials)
    out = out or Path("runs") / f"{config.name}-tuning"
    console = running.console_for(quiet)
    console.print(f"{config.name}: {_budget(config.tune, trials, plan)}")
    runs = NetworkRuns(plan)
    with locked(out):
        summaries = runs.run(out / "points", resume=resume, console=console)
        trials = _scored(config.tune, trials, plan, out, summaries)
        chosen = _write_grid(config, config.tune, plan, trials, out)
        tuned = _write_tuned(config, f"Chosen by `badmm tune`: {_note(config.tune, plan, trials)}", trials, chosen, out)
        console.print(_overview(trials, chosen, SCORES[config.tune.score][0]).rich())
        console.print(f"written to {out}")
        if then_run:
            running.run_networks(tuned, out / "tuned", resume=resume, console=console)
    return tuned


def grids(config: NetworkConfig, tune: Tune) -> dict[str, list[Trial]]:
    """Return all combinations of the values of every method's grid; a method without a grid has one point."""
    found: dict[str, list[Trial]] = {}
    for label, table in config.methods.items():
        axes = toml.flat(tune.grid.get(label, {}))
        found[label] = []
        for values in itertools.product(*axes.values()):
            settings = dict(zip(axes, values, strict=True))
            try:
                changed = method_table(label, _with(table, settings), Local())
            except ValueError as error:
                raise ConfigError(f"tune.grid.{error}") from None
            found[label].append(Trial(settings, changed))
    return found


def best(trials: Sequence[Trial], larger_is_better: bool) -> int | None:
    """Return the index of the best mean, the first of equal ones; None if no point has a finite mean."""
    known = [index for index, trial in enumerate(trials) if np.isfinite(trial.mean)]
    sign = -1.0 if larger_is_better else 1.0
    return min(known, key=lambda index: sign * trials[index].mean, default=None)


def boundary_settings(trials: Sequence[Trial], chosen: int) -> list[str]:
    """Return the varied numbers whose chosen value is the smallest or largest of the grid, so that a better one may lie
    outside it."""
    found = []
    for key, value in trials[chosen].settings.items():
        tried = {trial.settings[key] for trial in trials if pictures.is_number(trial.settings[key])}
        if pictures.is_number(value) and len(tried) > 1 and value in (min(tried), max(tried)):
            found.append(key)
    return found


def _with(table: MethodTable, settings: Mapping[str, Any]) -> dict[str, Any]:
    changed = table.model_dump(exclude_none=True)
    for key, value in settings.items():
        *sections, last = key.split(".")
        place = changed
        for name in sections:
            place = place.setdefault(name, {})
        place[last] = value
    return changed


def _check_budgets(tune: Tune, trials: Trials) -> None:
    sizes = {label: len(points) for label, points in trials.items()}
    if len(set(sizes.values())) > 1 and not tune.unequal:
        got = ", ".join(f"{label} {size}" for label, size in sizes.items())
        raise ConfigError(f"tune.grid: expected equal numbers of points (or tune.unequal = true), got {got}")


def _name(label: str, index: int) -> str:
    return f"{label}-{index:03d}"


def _plan(config: NetworkConfig, tune: Tune, trials: Trials) -> NetworkConfig:
    """Return the configuration of a run whose methods are the points, scored on validation images."""
    kept = {"evaluate": "validation", "validation_fraction": tune.validation_fraction}
    count = tune.rounds or config.run.rounds
    if config.run.horizon is not None and config.run.horizon < count:
        raise ConfigError(f"run.horizon: expected at least the {count} rounds of tune, got {config.run.horizon}")
    run: dict[str, Any] = {"rounds": count, "seeds": tune.seeds or config.run.seeds}
    if tune.score != "prediction_nll":
        run["posterior_samples"] = 0
    points = {_name(label, i): trial.table for label, own in trials.items() for i, trial in enumerate(own)}
    changes = {"data": config.data.model_copy(update=kept), "run": config.run.model_copy(update=run)}
    return config.model_copy(update={**changes, "methods": points, "tune": None, "report": Report()})


def _scored(
    tune: Tune, trials: Trials, plan: NetworkConfig, out: Path, summaries: Sequence[Mapping[str, Any]]
) -> dict[str, list[Trial]]:
    """Return the trials with their scores after the last round."""
    score, _ = SCORES[tune.score]
    failures = {(entry["label"], entry["seed"]): entry["failure"] for entry in summaries if "failure" in entry}
    runs = report.histories(plan, out / "points")
    scored: dict[str, list[Trial]] = {}
    for label, points in trials.items():
        scored[label] = []
        for index, trial in enumerate(points):
            name = _name(label, index)
            values = [score.at(runs[name][seed], plan.run.rounds) for seed in plan.run.seeds]
            finite = [value if value is not None and np.isfinite(value) else None for value in values]
            lost = {str(seed): failures[name, seed] for seed in plan.run.seeds if (name, seed) in failures}
            scored[label].append(Trial(trial.settings, trial.table, finite, lost))
    return scored


def _write_grid(config: NetworkConfig, tune: Tune, plan: NetworkConfig, trials: Trials, out: Path) -> dict[str, int]:
    """Write all points and the plot; return the chosen index per method, or raise UnfinishedRunError without one."""
    score, larger = SCORES[tune.score]
    chosen = {label: best(points, larger) for label, points in trials.items()}
    store.write_atomic(out / "tuning.json", json.dumps(_as_dict(tune, plan, trials, chosen), indent=1).encode())
    tables = [_grid(label, points, chosen[label], score) for label, points in trials.items()]
    header = f"# {config.name}: tuning\n\nChosen: {_note(tune, plan, trials)}\n\n"
    store.write_atomic(out / "tuning.md", (header + "\n".join(table.markdown() for table in tables)).encode())
    points = {label: [pictures.Point(t.settings, _numbers(t)) for t in own] for label, own in trials.items()}
    drawn = pictures.effect(points, f"validation {score.name}", larger, f"{config.name}, round {plan.run.rounds}")
    if drawn is not None:
        store.save_figure(out / "effect.png", drawn)
    for label, index in chosen.items():
        if index is None:
            many = f"none of {len(trials[label])} (see {out / 'tuning.md'})"
            raise UnfinishedRunError(f"tune.grid.{label}: expected a point that ends with a finite score, got {many}")
    return {label: index for label, index in chosen.items() if index is not None}


def _write_tuned(
    config: NetworkConfig, comment: str, trials: Trials, chosen: Mapping[str, int], out: Path
) -> NetworkConfig:
    """Write and return the configuration with the chosen settings."""
    tables = {label: trials[label][index].table for label, index in chosen.items()}
    tuned = config.model_copy(update={"methods": tables, "tune": None})
    # a file to share: the folder of the data is an argument of the command line
    portable = tuned.model_copy(update={"data": tuned.data.model_copy(update={"root": None})})
    store.write_atomic(out / "tuned.toml", (f"# {comment}\n" + portable.dump()).encode())
    return tuned


def _numbers(trial: Trial) -> list[float]:
    return [] if np.isnan(trial.mean) else [score for score in trial.scores if score is not None]


def _budget(tune: Tune, trials: Trials, plan: NetworkConfig) -> str:
    sizes = sorted({len(points) for points in trials.values()})
    many = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} (unequal budgets)"
    seeds = ", ".join(map(str, plan.run.seeds))
    return f"{many} points per method × {plan.run.rounds} rounds × {len(plan.run.seeds)} seeds ({seeds})"


def _note(tune: Tune, plan: NetworkConfig, trials: Trials) -> str:
    score, larger = SCORES[tune.score]
    name, _, _ = score.name.partition(",")  # without the unit
    return (
        f"{'highest' if larger else 'lowest'} {name}, mean over seeds, on a {tune.validation_fraction:g} part of the "
        f"training images withheld from the clients; {_budget(tune, trials, plan)}."
    )


def _grid(label: str, trials: Sequence[Trial], chosen: int | None, score: Score) -> TextTable:
    """Return the table of a method's points."""
    keys = list(trials[0].settings)
    edge = boundary_settings(trials, chosen) if chosen is not None else []
    mark = "chosen" + (f", at the grid's edge in {', '.join(edge)}" if edge else "")
    rows = []
    for index, trial in enumerate(trials):
        lost = "; ".join(f"seed {seed}: {why}" for seed, why in (trial.failures or {}).items())
        cells = [str(trial.settings[key]) for key in keys] or ["as in the file"]
        rows.append([*cells, spread(trial.scores, score.decimals), mark if index == chosen else lost])
    return TextTable(label, [*(keys or ["settings"]), f"validation {score.name}", ""], rows)


def _overview(trials: Trials, chosen: Mapping[str, int], score: Score) -> TextTable:
    """Return the table of the chosen settings."""
    rows = []
    for label, index in chosen.items():
        trial = trials[label][index]
        settings = ", ".join(f"{key} = {value}" for key, value in trial.settings.items()) or "as in the file"
        edge = ", ".join(boundary_settings(trials[label], index)) or "-"
        rows.append([label, settings, spread(trial.scores, score.decimals), edge])
    return TextTable("Chosen", ["method", "settings", f"validation {score.name}", "at the grid's edge"], rows)


def _as_dict(tune: Tune, plan: NetworkConfig, trials: Trials, chosen: Mapping[str, int | None]) -> dict[str, Any]:
    """Return all points with their scores, for a JSON file."""
    score, larger = SCORES[tune.score]
    budget = {label: len(points) * plan.run.rounds * len(plan.run.seeds) for label, points in trials.items()}
    return {
        "score": f"validation {score.name}",
        "larger_is_better": larger,
        "validation_fraction": tune.validation_fraction,
        "rounds": plan.run.rounds,
        "seeds": plan.run.seeds,
        "budget_in_rounds": budget,
        "methods": {
            label: {
                "chosen": chosen[label],
                "points": [
                    {
                        "settings": dict(trial.settings),
                        "scores": list(trial.scores),
                        "mean": None if np.isnan(trial.mean) else trial.mean,
                        "failures": dict(trial.failures or {}),
                    }
                    for trial in points
                ],
            }
            for label, points in trials.items()
        },
    }
