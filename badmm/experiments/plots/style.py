"""The style of all plots, which need neither a screen nor matplotlib's global state.

Colours are Okabe and Ito's, which readers with common forms of colour vision deficiency can distinguish; markers and
dashes distinguish the series in grey.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from badmm.checks import Array

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)


def figure(columns: int, rows: int = 1, width: float = 4.6, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """Return a figure and its grid of axes in reading order; width and height are those of one axes, in inches."""
    drawn = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(True, which="major", color="0.9", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
    return drawn, list(axes.flat)


def ellipse(axis: Axes, mean: Array, covariance: Array, level: float = 0.95, **style: Any) -> None:
    """Draw the ellipse that holds probability `level` of N(mean (2,), covariance (2, 2))."""
    angle = np.linspace(0, 2 * np.pi, 200)
    radius = np.sqrt(-2 * np.log(1 - level))  # the chi-squared quantile with two degrees of freedom, square-rooted
    points = mean[:, None] + radius * np.linalg.cholesky(covariance) @ np.stack([np.cos(angle), np.sin(angle)])
    axis.plot(*points, **style)


def most_correlated(covariance: Array) -> tuple[int, int]:
    """Return the two coordinates with the largest absolute correlation; (0, 1) if none are correlated."""
    deviation = np.sqrt(np.diag(covariance))
    correlation = np.abs(np.triu(covariance / np.outer(deviation, deviation), 1))
    if not correlation.any():
        return 0, 1
    first, second = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    return int(first), int(second)
