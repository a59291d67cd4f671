"""Plots of the report, as PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from ..check import Check

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen

COLOURS = {
    "isotropic_gaussian": "#3b6fb6",
    "diagonal_gaussian": "#2f9e77",
    "full_gaussian": "#b5651d",
    "gamma": "#8a4fa3",
}
OTHER = "#5f6b7a"
MISS = "#d1242f"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8b949e",
    "axes.labelcolor": "#3d444d",
    "xtick.color": "#3d444d",
    "ytick.color": "#3d444d",
    "grid.color": "#e6e9ed",
    "figure.dpi": 150,
}
FLOOR = 1e-9  # errors below this fraction of their tolerance are drawn here
LINE_LIMIT = 400  # curves in one plot


def png(figure: Any) -> bytes:
    """The figure as PNG bytes; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return buffer.getvalue()


def families_of(checks: Sequence[Check]) -> list[str]:
    """Return the families of the checks; those of `COLOURS` come first, in its order."""
    present = {item.family for item in checks}
    return [name for name in COLOURS if name in present] + sorted(present - COLOURS.keys())


def label(family: str) -> str:
    """Return a family's name with spaces."""
    return family.replace("_", " ")


def error_over_tolerance(checks: Sequence[Check]) -> bytes:
    """Plot every check at its error over its tolerance, one row per group; checks left of the line at 1 pass."""
    groups = sorted({item.group for item in checks}, reverse=True)
    families = families_of(checks)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9.0, 0.9 + 0.42 * len(groups)))
        for family_index, family in enumerate(families):
            xs, ys, missed = [], [], []
            for index, item in enumerate(item for item in checks if item.family == family):
                ratio = item.value / item.tolerance if item.tolerance > 0 else (FLOOR if item.passed else 1e3)
                xs.append(min(max(ratio, FLOOR), 1e3) if math.isfinite(ratio) else 1e3)
                lane = (family_index - (len(families) - 1) / 2) * 0.17
                ys.append(groups.index(item.group) + lane + 0.05 * math.sin(12.9898 * index))
                missed.append(not item.passed)
            colours = [MISS if miss else COLOURS.get(family, OTHER) for miss in missed]
            axes.scatter(xs, ys, s=11, c=colours, alpha=0.6, linewidths=0)
            axes.scatter([], [], s=22, color=COLOURS.get(family, OTHER), label=label(family))
        axes.axvline(1.0, color=MISS, linewidth=1.0)
        axes.text(1.15, len(groups) - 0.45, "tolerance", color=MISS, fontsize=8, va="bottom")
        axes.set(xscale="log", xlim=(FLOOR / 2, 2e3), ylim=(-0.6, len(groups) - 0.3), yticks=range(len(groups)))
        axes.set_yticklabels(groups)
        axes.set_xlabel(
            f"measured error / tolerance (anything below {FLOOR:g}, zero included, is drawn at the left edge)"
        )
        axes.grid(axis="x", which="major")
        axes.set_axisbelow(True)
        axes.legend(loc="lower center", ncols=len(families), frameon=False, bbox_to_anchor=(0.5, 1.03))
        return png(figure)


def histograms(checks: Sequence[Check], group: str, unit: str) -> bytes | None:
    """Plot histograms of the errors of a group's test points, one panel per family and dtype, with the tolerance."""
    sampled = [item for item in checks if item.group == group and item.samples and item.tolerance > 0]
    keys = sorted(
        {(item.family, item.dtype) for item in sampled}, key=lambda key: (list(COLOURS).index(key[0]), key[1])
    )
    if not keys:
        return None
    columns = min(4, len(keys))
    rows = -(-len(keys) // columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows, columns, figsize=(9.0, 1.75 * rows + 0.4), squeeze=False, layout="constrained"
        )
        for axes in grid.ravel()[len(keys) :]:
            axes.set_visible(False)
        for axes, (family, dtype) in zip(grid.ravel(), keys, strict=False):
            chosen = [item for item in sampled if (item.family, item.dtype) == (family, dtype)]
            ratios = np.concatenate([np.asarray(item.samples) / item.tolerance for item in chosen])
            ratios = np.clip(np.nan_to_num(ratios, nan=9.0, posinf=9.0), 0.0, 1.2)
            axes.hist(ratios, bins=np.linspace(0.0, 1.2, 49), color=COLOURS.get(family, OTHER), alpha=0.85)
            axes.axvline(1.0, color=MISS, linewidth=1.0)
            axes.set(yscale="log", xlim=(0.0, 1.2))
            axes.set_title(f"{label(family)}, {dtype}\n{len(ratios)} points", fontsize=8)
        figure.supxlabel(unit, fontsize=9, color="#3d444d")
        return png(figure)


def convergence(checks: Sequence[Check]) -> bytes | None:
    """Plot the error by round of every check with a curve, one panel per group."""
    curved = [item for item in checks if len(item.curve) > 1]
    groups = sorted({item.group for item in curved})
    if not groups:
        return None
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(1, len(groups), figsize=(9.0, 3.4), squeeze=False, layout="constrained")
        for axes, group in zip(grid[0], groups, strict=True):
            chosen = [item for item in curved if item.group == group]
            for item in chosen[:LINE_LIMIT]:
                values = np.maximum(np.asarray(item.curve), 1e-18)
                colour = COLOURS.get(item.family, OTHER) if item.passed else MISS
                axes.plot(
                    range(1, len(values) + 1), values, color=colour, alpha=max(0.12, min(0.9, 12 / len(chosen))), lw=1.1
                )
            axes.set(yscale="log", xlabel="round", title=f"{group} ({len(chosen)} curves)")
            axes.grid(axis="y")
        grid[0][0].set_ylabel("error")
        return png(figure)
