"""Plots of the demo: convergence by round and by bytes, posterior ellipses, and an overview of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from badmm.demo.contest import CONTENDERS, TARGETS, Trace
from badmm.demo.ellipses import CoordinatePair
from badmm.experiments.plots import style as plots

Traces = Mapping[str, Trace]
"""Traces by the contenders' labels."""
FLOOR = 1e-10
"""Smaller distances, which are below every target, are drawn at this value."""


def convergence(traces: Mapping[str, Traces], titles: Mapping[str, str]) -> Figure:
    """Plot the distance to the central solution by round (top) and by megabytes (bottom), one column per problem."""
    drawn, axes = plots.figure(len(traces), 2, width=4.4, height=3.5)
    for column, (name, problem) in enumerate(traces.items()):
        top, bottom = axes[column], axes[len(traces) + column]
        draw_traces(top, problem)
        draw_traces(bottom, problem, by_bytes=True)
        top.set_title(titles[name], fontsize=11)
        if column == 0:
            top.set_ylabel("distance to central solution")
            bottom.set_ylabel("distance to central solution")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    return drawn


def draw_traces(axis: Axes, problem: Traces, by_bytes: bool = False) -> None:
    """Draw all contenders on one problem, from the prior on, with the targets as thin lines."""
    first = 1.0
    for contender in CONTENDERS:
        trace = problem.get(contender.label)
        if trace is None or not trace.distance:
            continue
        x = np.concatenate(
            [[0.0], np.array(trace.bytes_sent) / 1e6 if by_bytes else 1.0 + np.arange(len(trace.distance))]
        )
        first = min(first, x[1])
        # PVI and Bayesian ADMM often coincide, so PVI is drawn wider underneath
        wide = contender.method == "pvi"
        axis.plot(
            x,
            np.maximum([trace.start, *trace.distance], FLOOR),
            color=contender.color,
            marker=contender.marker,
            markevery=np.unique(np.geomspace(1, len(x), 9).astype(int) - 1).tolist(),
            ms=7 if wide else 4.5,
            lw=3.2 if wide else 1.6,
            ls=(0, (4, 2)) if contender.dashed else "-",
            mfc="white" if contender.dashed else contender.color,
            label=contender.label,
            zorder=2 if wide else 3,
        )
    for target in TARGETS:
        axis.axhline(target, color="0.5", lw=0.8, ls=":")
    # linear up to the first round, so that the start at 0 is visible, then logarithmic
    axis.set_xscale("symlog", linthresh=first, linscale=0.5)
    axis.set_xlim(0, None)
    axis.set(yscale="log", ylim=(FLOOR / 3, 30))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "" if 0 < value < first else f"{value:g}"))
    axis.set_xlabel("megabytes sent, up and down, all clients" if by_bytes else "round")


def ellipses(pairs: Sequence[CoordinatePair]) -> Figure:
    """A panel for each pair of coordinates: exact posterior, full, diagonal, isotropic."""
    drawn, axes = plots.figure(len(pairs), 1, width=4.9, height=4.4)
    for axis, pair in zip(axes, pairs, strict=True):
        draw_pair(axis, pair)
    handles, labels = axes[-1].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    return drawn


def draw_pair(axis: Axes, pair: CoordinatePair) -> None:
    """The 95% regions of one pair of coordinates."""
    if pair.draws is not None:
        axis.plot(*pair.draws.T, ".", color="0.75", ms=1.5, alpha=0.6, rasterized=True, zorder=1)
    plots.ellipse(axis, *pair.exact, color="0.45", lw=6, alpha=0.55, label="exact", zorder=2)
    styles: dict[str, dict[str, Any]] = {
        "full": {"color": plots.BLUE, "lw": 2.0},
        "diagonal": {"color": plots.RED, "lw": 2.0, "ls": (0, (5, 2))},
        "isotropic": {"color": plots.BLACK, "lw": 1.6, "ls": ":"},
    }
    for family, style in styles.items():
        plots.ellipse(axis, *pair.families[family], label=family, zorder=3, **style)
        axis.plot(*pair.families[family][0], "o", color=style["color"], ms=4, zorder=4)
    axis.set(xlabel=pair.names[0], ylabel=pair.names[1])
    axis.set_title(pair.title, fontsize=11)


def overview(traces: Traces, title: str, pair: CoordinatePair) -> Figure:
    """One problem by round and by bytes, and one pair of coordinates: the picture for a first look."""
    drawn, axes = plots.figure(3, 1, width=4.5, height=4.0)
    draw_traces(axes[0], traces)
    draw_traces(axes[1], traces, by_bytes=True)
    axes[0].set_ylabel("distance to central solution")
    axes[0].set_title(f"{title}, by round", fontsize=11)
    axes[1].set_title(f"{title}, by bytes", fontsize=11)
    draw_pair(axes[2], pair)
    axes[2].margins(y=0.3)
    axes[2].legend(frameon=False, fontsize=9, loc="upper center", ncols=4, columnspacing=1.0, handlelength=1.6)
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    return drawn
