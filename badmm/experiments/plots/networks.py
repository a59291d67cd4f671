"""Plots of a federated run from its histories and summaries: scores by round and bytes, reliability, settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from badmm.experiments.plots import style as plots
from badmm.experiments.summary import ACCURACY, PREDICTION_NLL, Record, Runs, Score

COLORS = (plots.BLUE, plots.RED, plots.GREEN, plots.ORANGE, plots.PINK, plots.SKY, plots.BLACK, "0.55")
MARKERS = "os^Dv<>Pd*"
MARKS = 8
"""Number of markers per curve."""


def styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a colour, marker and dash per label; the first 40 labels get distinct combinations."""
    dashes = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
    return {
        label: {
            "color": COLORS[place % len(COLORS)],
            "marker": MARKERS[place % len(MARKERS)],
            "ls": dashes[place // len(COLORS) % len(dashes)],
        }
        for place, label in enumerate(labels)
    }


def curves(runs: Runs, title: str) -> Figure:
    """Plot accuracy at the mean (top) and NLL of the prediction (bottom) by round (left) and by megabytes (right).

    A line is the mean over seeds and its band ± one standard deviation (n − 1); it ends with the shortest history.
    """
    line_styles = styles(list(runs))
    records = [record for histories in runs.values() for history in histories.values() for record in history]
    every = ((ACCURACY, "accuracy at the mean, %"), (PREDICTION_NLL, "NLL of the prediction,\nnats per point"))
    scores = [(score, name) for score, name in every if any(score.read(record) is not None for record in records)]
    drawn, axes = plots.figure(2, len(scores), width=5.2, height=3.7)
    for row, (score, name) in enumerate(scores):
        for column, by_bytes in enumerate((False, True)):
            axis = axes[2 * row + column]
            for label, histories in runs.items():
                _curve(axis, list(histories.values()), score, by_bytes, {**line_styles[label], "label": label})
            axis.set(ylabel=name if column == 0 else "", xlabel="MB, up and down, all clients" if by_bytes else "round")
            if by_bytes:
                axis.set_xscale("log")
                _plain_ticks(axis.xaxis)
            else:
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _clear_of_the_start(axes[-2:], runs)
    _legend(drawn, axes[0], title)
    return drawn


def _curve(
    axis: Axes, histories: Sequence[Sequence[Record]], score: Score, by_bytes: bool, style: Mapping[str, Any]
) -> None:
    first = min(histories, key=len)
    values = np.array([[_number(score.read(record)) for record in history[: len(first)]] for history in histories])
    x = [(r["bytes_up"] + r["bytes_down"]) / 1e6 if by_bytes else r["round"] for r in first]
    mean = values.mean(axis=0)
    step = max(1, len(x) // MARKS)
    axis.plot(x, mean, lw=1.6, ms=4.5, markevery=(step - 1, step), **style)
    if len(values) > 1:
        deviation = values.std(axis=0, ddof=1)
        axis.fill_between(x, mean - deviation, mean + deviation, color=style["color"], alpha=0.12, lw=0)


def _clear_of_the_start(axes: Sequence[Axes], runs: Runs) -> None:
    """Switch to a logarithmic axis if the losses of the first rounds would flatten the others."""
    values = [_number(PREDICTION_NLL.read(r)) for h in runs.values() for history in h.values() for r in history]
    finite = np.array([value for value in values if np.isfinite(value) and value > 0])
    if finite.size and finite.max() > 5 * finite.min():
        for axis in axes:
            axis.set_yscale("log")
            _plain_ticks(axis.yaxis)


def _plain_ticks(axis: Any) -> None:
    """Set ticks at 0.1, 0.2, 0.5, 1, ... on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _legend(drawn: Figure, axis: Axes, title: str) -> None:
    handles, labels = axis.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False, fontsize=10)
    drawn.suptitle(title)


def pooled(diagrams: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, np.ndarray]:
    """Merge diagrams of equal numbers of points: bins are joined, weighted by their shares."""
    bins = sorted({int(index) for diagram in diagrams for index in diagram["bin"]})
    total = {name: np.zeros(len(bins)) for name in ("confidence", "accuracy", "share")}
    for diagram in diagrams:
        places = [bins.index(int(index)) for index in diagram["bin"]]
        share = np.asarray(diagram["share"]) / len(diagrams)
        total["share"][places] += share
        for name in ("confidence", "accuracy"):
            total[name][places] += share * np.asarray(diagram[name])
    means = {name: total[name] / total["share"] for name in ("confidence", "accuracy")}
    return {"bin": np.array(bins), **means, "share": total["share"]}


def reliability(diagrams: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> Figure:
    """Plot accuracy against confidence after the last round, one panel per method with the points of all seeds.

    diagrams: results of `Experiment.reliability`, one per seed. The area of a mark grows with its share of the points;
    the diagonal is perfect calibration. Titles have the expected calibration error of the joined points.
    """
    columns = min(len(diagrams), 4)
    drawn, axes = plots.figure(columns, -(-len(diagrams) // columns), width=3.1, height=3.3)
    ways = (("mean", "at the mean", plots.BLUE, "o", "-"), ("averaged", "averaged", plots.RED, "s", (0, (4, 2))))
    handles: dict[str, Any] = {}
    for axis in axes[len(diagrams) :]:
        axis.set_visible(False)
    for axis, (label, seeds) in zip(axes, diagrams.items(), strict=False):
        axis.plot([0, 1], [0, 1], color="0.6", lw=1, zorder=1)
        errors = []
        for way, text, color, marker, dash in ways:
            if any(seed[way] is None for seed in seeds):
                continue
            joined = pooled([seed[way] for seed in seeds])
            error = np.sum(joined["share"] * np.abs(joined["accuracy"] - joined["confidence"]))
            errors.append(f"{'' if way == 'mean' else 'averaged '}{error:.3f}")
            x, y, size = joined["confidence"], joined["accuracy"], 12 + 150 * joined["share"]
            axis.scatter(x, y, s=size, color=color, marker=marker, alpha=0.85, lw=0, zorder=3)
            (handles[text],) = axis.plot(x, y, color=color, lw=1.4, ls=dash, marker=marker, ms=3, zorder=2)
        axis.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.04), aspect="equal", xlabel="confidence", ylabel="accuracy")
        axis.set_title(f"{label}\nECE {', '.join(errors)}", fontsize=9)
    drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)
    drawn.suptitle(title)
    return drawn


@dataclass(frozen=True)
class Point:
    """One combination of settings, by dotted name, and its scores, one per seed."""

    settings: Mapping[str, Any]
    scores: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.scores)) if len(self.scores) else float("nan")


def varied_settings(points: Sequence[Point]) -> list[str]:
    """Return the numeric settings that differ between points whose other settings are equal."""
    found = []
    for key in dict.fromkeys(key for point in points for key in point.settings):
        values: dict[str, set[float]] = {}
        for point in points:
            others = repr(sorted((name, value) for name, value in point.settings.items() if name != key))
            value = point.settings.get(key)
            if value is not None and is_number(value):
                values.setdefault(others, set()).add(value)
        if any(len(different) > 1 for different in values.values()):
            found.append(key)
    return found


def effect(groups: Mapping[str, Sequence[Point]], name: str, larger_is_better: bool, title: str) -> Figure | None:
    """Plot the score against every varied setting, one panel per group and setting; return None without such a setting.

    Grey dots are all points. The line joins, for every value, the point that is best over the other settings, with a
    bar of ± one standard deviation over seeds.
    """
    panels = [(group, points, key) for group, points in groups.items() for key in varied_settings(points)]
    if not panels:
        return None
    columns = min(len(panels), 3)
    drawn, axes = plots.figure(columns, -(-len(panels) // columns), width=3.4, height=3.0)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    best: Callable[..., Point] = max if larger_is_better else min
    for axis, (group, points, key) in zip(axes, panels, strict=False):
        known = [point for point in points if is_number(point.settings.get(key)) and np.isfinite(point.mean)]
        axis.plot([p.settings[key] for p in known], [p.mean for p in known], "o", color="0.75", ms=4, zorder=2)
        values = sorted({point.settings[key] for point in known})
        tops = [best((p for p in known if p.settings[key] == value), key=lambda p: p.mean) for value in values]
        bars = [float(np.std(top.scores, ddof=1)) if len(top.scores) > 1 else 0.0 for top in tops]
        axis.errorbar(
            values, [top.mean for top in tops], yerr=bars, color=plots.BLUE, marker="o", ms=5, capsize=3, zorder=3
        )
        if values and min(values) > 0 and max(values) / min(values) > 2:
            axis.set_xscale("log")
            axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(values, [f"{value:g}" for value in values], rotation=45 if len(values) > 4 else 0)
        axis.set(xlabel=key)
        axis.set_title(group, fontsize=11)
    drawn.suptitle(f"{title}: {name}")
    return drawn


def is_number(value: Any) -> bool:
    """Return whether a value is a number and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
