"""Plots of the history and posterior of a convex problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from badmm.checks import Array
from badmm.experiments.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    YELLOW,
    ellipse,
    figure,
    most_correlated,
)
from badmm.families.factorised import Factorised


def history_figure(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Plot gap, residuals and objective by round (top) and by bytes sent (bottom)."""
    drawn, axes = figure(3, 2)
    rounds = np.array([record["round"] for record in history])
    sent = np.array([record["bytes_up"] + record["bytes_down"] for record in history]) / 1e6
    panels: list[tuple[str, list[tuple[str, str, str, str]]]] = [
        ("fixed-point residual", [("gap", "gap", BLUE, "o")]),
        ("residuals", [("primal_residual", "primal", ORANGE, "s"), ("dual_residual", "dual", GREEN, "^")]),
        ("objective (nats)", [("objective", "objective", RED, "D")]),
    ]
    for row, (x, label) in enumerate([(rounds, "round"), (sent, "megabytes sent, up and down")]):
        for axis, (name, series) in zip(axes[3 * row : 3 * row + 3], panels, strict=True):
            for key, text, color, marker in series:
                y = np.array([np.nan if record[key] is None else record[key] for record in history], dtype=float)
                logarithmic = key != "objective"
                axis.plot(
                    x, np.where(y > 0, y, np.nan) if logarithmic else y, color=color, marker=marker, ms=4, label=text
                )
                if logarithmic and np.any(y > 0):
                    axis.set_yscale("log")
            axis.set(xlabel=label, ylabel=name)
            if label == "round":
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if len(series) > 1:
                axis.legend(frameon=False)
    drawn.suptitle(title)
    return drawn


def gaussian_figure(mean: Array, covariance: Array, names: Sequence[str], title: str) -> Figure:
    """Plot means ± two standard deviations, and the 95% ellipse of the two most correlated coordinates (names (d,))."""
    deviation = np.sqrt(np.diag(covariance))
    drawn, axes = figure(2)
    shown = np.arange(min(len(mean), 60))
    axes[0].errorbar(shown, mean[shown], yerr=2 * deviation[shown], fmt="o", ms=4, color=BLUE, ecolor=SKY)
    axes[0].axhline(0, color="0.6", lw=0.8)
    axes[0].set(xlabel=f"coordinate ({len(shown)} of {len(mean)})", ylabel="mean ± 2 standard deviations")
    if len(mean) == 1:
        axes[1].set_visible(False)
    else:
        first, second = most_correlated(covariance)
        pair = [first, second]
        block = covariance[np.ix_(pair, pair)]
        ellipse(axes[1], mean[pair], block, color=BLUE, lw=2)
        axes[1].plot(*mean[pair], "o", color=BLUE)
        correlation = block[0, 1] / np.sqrt(block[0, 0] * block[1, 1])
        axes[1].set(xlabel=names[first], ylabel=names[second])
        axes[1].set_title(f"95% region, correlation {correlation:+.2f}", fontsize=10)
    drawn.suptitle(title)
    return drawn


def density_figure(posterior: Factorised, prior: Factorised, title: str) -> Figure:
    """Plot the density and central 95% interval of at most eight coordinates, and the prior of the first."""
    drawn, axes = figure(1, width=6.5)
    axis = axes[0]
    bottom, low, high, top = posterior.quantile([0.0005, 0.025, 0.975, 0.9995])
    span = 0.2 * (np.max(top) - np.min(bottom))
    least, largest = posterior.support
    start = max(float(np.min(bottom)) - span, least)
    grid = np.linspace(start, min(float(np.max(top)) + span, largest), 602)[1:-1]
    densities = np.exp(posterior.log_density(np.repeat(grid[:, None], posterior.dim, axis=1)))
    colors = (BLUE, RED, GREEN, ORANGE, PINK, SKY, YELLOW, "0.4")
    for index, (density, color) in enumerate(zip(densities.T, colors, strict=False)):
        label = f"rate {index}: {posterior.mean[index]:.3g}  ({low[index]:.3g} to {high[index]:.3g})"
        axis.plot(grid, density, color=color, lw=2, label=label)
        inside = (grid >= low[index]) & (grid <= high[index])
        axis.fill_between(grid[inside], density[inside], color=color, alpha=0.2, lw=0)
    before = prior.log_density(np.repeat(grid[:, None], prior.dim, axis=1))[:, 0]
    axis.plot(grid, np.exp(before), "--", color=BLACK, label="prior")
    axis.set(xlabel="rate", ylabel="posterior density", ylim=(0, None))
    axis.legend(frameon=False, title="mean (central 95%)")
    drawn.suptitle(title)
    return drawn
