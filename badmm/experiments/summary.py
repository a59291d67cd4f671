"""Summary of a federated run over seeds: scores by round, paired differences to a reference method, costs.

All figures come from the histories. ± is the standard deviation over seeds (n − 1). Differences are paired by seed, so
that the effects of split, start and order of batches cancel, and have a 95% t-interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from badmm.networks.noise import largest_noise

Record = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Sequence[Record]]]
"""The history of every method's label and seed."""
MISSING = "-"


@dataclass(frozen=True)
class TextTable:
    """A table of text, for a terminal or a Markdown file."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return a heading and a pipe table with the first column left-aligned and the others right-aligned."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = [" | ".join(cells) for cells in (self.header, rule, *self.rows)]
        return f"## {self.title}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"

    def rich(self) -> Table:
        """Return a table for a console of any width; cells that do not fit are folded, not cut."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for place, name in enumerate(self.header):
            table.add_column(name, justify="right" if place else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(cell.replace(" [", "\n[") for cell in row))  # an interval under its mean
        return table


@dataclass(frozen=True)
class Score:
    """A score of a record: name, function that reads it (None for a method without the score), number of decimals."""

    name: str
    read: Callable[[Record], float | None]
    decimals: int

    def at(self, history: Sequence[Record], index: int) -> float | None:
        """Return the score after round `index`; NaN if the history has no such round or no number."""
        return next((self.read(record) for record in history if record["round"] == index), float("nan"))

    def over_seeds(self, histories: Mapping[int, Sequence[Record]], index: int) -> str:
        """Return mean ± standard deviation after round `index`."""
        return spread([self.at(history, index) for history in histories.values()], self.decimals)


def at_mean(key: str) -> Callable[[Record], float | None]:
    """The score at the server's mean; the history holds None for NaN, and nothing where a task has no such score."""
    return lambda record: _number(record[key]) if key in record else None


def own_metric(name: str) -> Callable[[Record], float | None]:
    """The user's own score at the server's mean."""
    return lambda record: _number(record["metrics"][name]) if name in record.get("metrics", {}) else None


def under_averaging(key: str) -> Callable[[Record], float | None]:
    """The score of predictions averaged over the posterior; None for a method without one."""
    return lambda record: _number(record["averaged"][key]) if key in (record["averaged"] or {}) else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def of_prediction(key: str) -> Callable[[Record], float | None]:
    """The score of the method's prediction: averaged over the posterior if it has one, else at the mean."""
    averaged, mean = under_averaging(key), at_mean(key)
    return lambda record: mean(record) if record["averaged"] is None else averaged(record)


def percent(read: Callable[[Record], float | None]) -> Callable[[Record], float | None]:
    """A hundred times a score."""

    def scaled(record: Record) -> float | None:
        value = read(record)
        return None if value is None else 100.0 * value

    return scaled


ACCURACY = Score("accuracy at the mean, %", percent(at_mean("accuracy")), 2)
NLL = Score("NLL at the mean, nats per point", at_mean("nll"), 3)
AVERAGED_ACCURACY = Score("accuracy averaged over the posterior, %", percent(under_averaging("accuracy")), 2)
AVERAGED_NLL = Score("NLL averaged over the posterior, nats per point", under_averaging("nll"), 3)
PREDICTION_NLL = Score("NLL of the prediction (averaged if there is a posterior)", of_prediction("nll"), 3)
BY_ROUND = (ACCURACY, NLL, AVERAGED_ACCURACY, AVERAGED_NLL)
COMPARED = (ACCURACY, PREDICTION_NLL)
LAST = (
    Score("worst client, %", percent(at_mean("worst_client")), 2),
    Score("ECE", at_mean("ece"), 3),
    Score("averaged NLL", under_averaging("nll"), 3),
    Score("averaged ECE", under_averaging("ece"), 3),
)
COSTS = {"MB up": ("bytes_up", 1e6), "MB down": ("bytes_down", 1e6), "TFLOP": ("flops", 1e12)}
"""Running totals of a history and their units."""


def rounds_to_report(wanted: Sequence[int], last: int) -> list[int]:
    """Return the wanted rounds up to the last one, and the last one."""
    return sorted({index for index in wanted if index < last} | {last})


def interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return (mean, low, high): the mean of paired differences and its t-interval with n − 1 degrees of freedom.

    low and high are NaN for n = 1.
    """
    values = np.asarray(differences, dtype=float)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return mean, float("nan"), float("nan")
    half = float(stdtrit(count - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def spread(values: Sequence[float | None], decimals: int) -> str:
    """Return "mean ± standard deviation", the mean alone for one value, or "-" if any value is None."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return MISSING
    deviation = f" ± {np.std(numbers, ddof=1):.{decimals}f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.{decimals}f}{deviation}"


def by_round(runs: Runs, score: Score, rounds: Sequence[int]) -> TextTable | None:
    """Return mean ± standard deviation by round, one row per method; None if no method has the score."""
    rows = []
    for label, histories in runs.items():
        cells = [score.over_seeds(histories, index) for index in rounds]
        if any(cell != MISSING for cell in cells):
            rows.append([label, *cells])
    header = ["method", *(f"round {index}" for index in rounds)]
    return TextTable(score.name[0].upper() + score.name[1:], header, rows) if rows else None


def compared(runs: Runs, score: Score, rounds: Sequence[int], reference: str) -> TextTable | None:
    """Return every other method's difference to the reference with its interval; None if there is no other method."""
    rows = []
    for label, histories in runs.items():
        if label == reference:
            continue
        seeds = [seed for seed in histories if seed in runs[reference]]
        cells = []
        for index in rounds:
            pairs = [(score.at(histories[seed], index), score.at(runs[reference][seed], index)) for seed in seeds]
            cells.append(_difference([a - b for a, b in pairs if a is not None and b is not None], score.decimals))
        rows.append([label, *cells])
    title = f"{score.name[0].upper()}{score.name[1:]}: difference to {reference}, 95% t-interval"
    some = any(cell != MISSING for row in rows for cell in row[1:])
    return TextTable(title, ["method", *(f"round {index}" for index in rounds)], rows) if some else None


def _difference(values: Sequence[float], decimals: int) -> str:
    if not values:
        return MISSING
    mean, low, high = interval(values)
    return f"{mean:+.{decimals}f}" + ("" if np.isnan(low) else f" [{low:+.{decimals}f}, {high:+.{decimals}f}]")


def calibration(runs: Runs, index: int) -> TextTable:
    """Return worst client, ECE, and the averaged scores after round `index`."""
    rows = [[label, *(score.over_seeds(histories, index) for score in LAST)] for label, histories in runs.items()]
    return TextTable(f"After round {index}", ["method", *(score.name for score in LAST)], rows)


def cost(runs: Runs) -> TextTable:
    """Return communication, the clients' work and time of a run, and the number of client exclusions over all seeds."""
    rows = []
    for label, histories in runs.items():
        ends = [history[-1] for history in histories.values() if history]
        cells = [f"{np.mean([e[key] for e in ends]) / unit:.4g}" if ends else MISSING for key, unit in COSTS.values()]
        seconds = spread([sum(record["seconds"] for record in history) for history in histories.values()], 1)
        lost = sum(len(record["excluded"]) for history in histories.values() for record in history)
        rows.append([label, *cells, seconds, str(lost)])
    return TextTable("Cost of a run", ["method", *COSTS, "seconds", "left out"], rows)


def events(runs: Runs) -> TextTable | None:
    """Return the numbers of coordinates at the boundary of the domain by action, over all rounds and seeds, or None."""
    counts = {
        label: sum((Counter(record["events"]) for history in histories.values() for record in history), Counter[str]())
        for label, histories in runs.items()
    }
    names = sorted({name for own in counts.values() for name in own})
    rows = [[label, *(str(own[name]) for name in names)] for label, own in counts.items() if own]
    header = ["method", *(name.replace("_", " ") for name in names)]
    return TextTable("At the edge of the domain, all rounds and seeds", header, rows) if rows else None


def unfinished(failures: Sequence[Mapping[str, Any]]) -> TextTable | None:
    """Return the failed runs with reasons; None if there are none."""
    rows = [[entry["label"], str(entry["seed"]), entry["failure"]] for entry in failures]
    return TextTable("Could not go on", ["method", "seed", "why"], rows) if rows else None


def noise_table(runs: Runs) -> TextTable | None:
    """Return the largest ratio of posterior standard deviations to weights over layers, or None without posteriors.

    The columns are the ratio after the first and the last round, and the layer after the last.
    """
    rows = []
    for label, histories in runs.items():
        pairs = [
            (largest_noise(history[0]["noise"]), largest_noise(history[-1]["noise"]))
            for history in histories.values()
            if history
        ]
        known = [(first, last) for first, last in pairs if first and last]
        if known:
            cells = [spread([pair[place][1] for pair in known], 2) for place in (0, 1)]
            rows.append([label, *cells, ", ".join(sorted({last[0] for _, last in known}))])
    header = ["method", "first round", "last round", "layer"]
    return TextTable("Posterior standard deviation over weights, the noisiest layer", header, rows) if rows else None


@dataclass(frozen=True)
class Summary:
    """All tables of a run; `note` states rounds, seeds and reference."""

    name: str
    note: str
    grids: Sequence[TextTable]
    """Tables of the Markdown file."""
    shown: Sequence[TextTable]
    """Tables on the terminal."""

    def markdown(self) -> str:
        """Return all tables as Markdown."""
        return f"# {self.name}\n\n{self.note}\n\n" + "\n".join(grid.markdown() for grid in self.grids)

    def print(self, console: Console) -> None:
        """Print the tables `shown`."""
        console.print(f"{self.name}: {self.note}\n", highlight=False)
        for grid in self.shown:
            console.print(grid.rich())


def summarise(
    name: str,
    runs: Runs,
    rounds: Sequence[int],
    reference: str,
    scored_on: str,
    failures: Sequence[Mapping[str, Any]] = (),
) -> Summary:
    """Summarise histories that end in the same round, except for `failures`; `reference` is one of the labels."""
    seeds = sorted({seed for histories in runs.values() for seed in histories})
    last = max(record["round"] for histories in runs.values() for history in histories.values() for record in history)
    chosen = rounds_to_report(rounds, last)
    records = [record for histories in runs.values() for history in histories.values() for record in history]
    named = sorted({name for record in records for name in record.get("metrics", {})})
    own = [Score(f"{name} at the mean", own_metric(name), 3) for name in named]
    tables = [by_round(runs, score, chosen) for score in (*BY_ROUND, *own)]
    differences = [compared(runs, score, chosen, reference) for score in COMPARED]
    end, costs = calibration(runs, last), cost(runs)
    note = (
        f"{last} rounds, scored on the {scored_on} images; seeds {', '.join(map(str, seeds))}"
        + (", mean ± standard deviation over them." if len(seeds) > 1 else ".")
        + f" Differences are seed by seed to {reference}. The worst client and its metrics are at the server's mean; "
        "MB and TFLOP are all clients' over all rounds."
    )
    notes = (noise_table(runs), events(runs), unfinished(failures))
    whole = [grid for grid in (*tables, *differences, end, costs, *notes) if grid is not None]
    shown = [grid for grid in (tables[0], tables[1], differences[0], end, costs, *notes) if grid is not None]
    return Summary(name, note, whole, shown)
