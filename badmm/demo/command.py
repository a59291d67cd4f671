"""The command of the demo: run all splits, print tables and a verdict, write results and plots."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from badmm.demo import pictures, report
from badmm.demo.contest import PENALTIES
from badmm.demo.ellipses import pair_of
from badmm.demo.noise import unknown_noise
from badmm.demo.outcome import SplitOutcome, run_all
from badmm.demo.problems import CLIENTS, COMPONENTS, TEST_FRACTION, TITLES
from badmm.experiments import store

SEEDS = (0, 1, 2)
ROUNDS, QUICK_ROUNDS = 200, 50
ELLIPSES = ("diabetes", "breast_cancer")
"""Problems whose exact posterior can be plotted."""
OVERVIEW = "breast_cancer"


def main(
    out: Path,
    *,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    picture: Path | None = None,
    console: Console | None = None,
) -> dict[str, list[SplitOutcome]]:
    """Run the demo; write results.json and plots into `out`. Raises ValueError for an unknown problem or bad seeds."""
    console = console or Console()
    names = list(only or TITLES)
    for name in names:
        if name not in TITLES:
            raise ValueError(f"only: expected some of {', '.join(TITLES)}, got {name!r}")
    chosen = tuple(seeds if seeds is not None else SEEDS[:1] if quick else SEEDS)
    if not chosen or min(chosen) < 0:
        raise ValueError(f"seeds: expected one or more integers of at least 0, got {list(chosen)}")
    rounds = QUICK_ROUNDS if quick else ROUNDS
    started = time.monotonic()
    results = _run_all(names, chosen, rounds, console)
    _print(results, rounds, chosen, console)
    written = _write(results, out, picture)
    console.print(f"\n{time.monotonic() - started:.0f} s. Written: {', '.join(str(path) for path in written)}")
    return results


def _run_all(
    names: Sequence[str], seeds: Sequence[int], rounds: int, console: Console
) -> dict[str, list[SplitOutcome]]:
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        outcomes = run_all(names, seeds, rounds, lambda done, count: progress.update(task, completed=done, total=count))
    return {name: [outcome for outcome in outcomes if outcome.problem.name == name] for name in names}


def _print(results: dict[str, list[SplitOutcome]], rounds: int, seeds: Sequence[int], console: Console) -> None:
    penalties = ", ".join(f"{rho:g}" for rho in PENALTIES)
    console.print(
        f"\nReal data over {CLIENTS} clients with unequal label shares and sizes; {TEST_FRACTION:.0%} of the rows held "
        f"out; digits as {COMPONENTS} principal components. Split seeds {', '.join(map(str, seeds))}: mean ± standard "
        "deviation. Distance: largest relative error of a natural parameter, relative to the same family's solution on "
        f"the pooled data. Bytes: float64, up and down, all clients. At most {rounds} rounds. Classic ADMM's penalty "
        f"(ρ times the prior's precision) is the best of ρ = {penalties} on the first split.\n"
    )
    for outcomes in results.values():
        console.print(report.convergence_table(outcomes, rounds))
        console.print(report.score_table(outcomes))
        if outcomes[0].problem.noise_variance is not None:
            console.print(str(unknown_noise(outcomes[0].problem)))
        console.print()
    console.print(report.NOTES, style="dim")
    console.print("\nVerdict", style="bold")
    console.print(report.verdict(list(results.values()), rounds))


def _write(results: dict[str, list[SplitOutcome]], out: Path, picture: Path | None) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    records = [record for outcomes in results.values() for record in report.as_dict(outcomes)]
    store.write_atomic(out / "results.json", json.dumps(records).encode())
    written = [out / "results.json"]
    first = {name: outcomes[0] for name, outcomes in results.items()}
    traces = {name: outcome.traces for name, outcome in first.items()}
    drawings = {"convergence.png": pictures.convergence(traces, TITLES)}
    pairs = {
        name: pair_of(first[name].problem, first[name].posteriors, first[name].seed)
        for name in ELLIPSES
        if name in first and len(first[name].posteriors) == 3
    }
    if pairs:
        drawings["posterior.png"] = pictures.ellipses(list(pairs.values()))
    for name, figure in drawings.items():
        store.save_figure(out / name, figure)
        written.append(out / name)
    if picture is not None and OVERVIEW in pairs:
        store.save_figure(picture, pictures.overview(traces[OVERVIEW], TITLES[OVERVIEW], pairs[OVERVIEW]), dpi=90)
        written.append(picture)
    return written
