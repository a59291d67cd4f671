"""Forest plots: every site's own estimate of a coefficient, and the pooled one below them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from badmm.glm.coordinates import INTERCEPT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Fit(Protocol):
    """What a plot needs of a result (`badmm.glm.result.GLMResult`)."""

    family: Any
    counts: dict[str, Any]

    @property
    def terms(self) -> tuple[str, ...]:
        """The coefficients' names."""

    @property
    def params(self) -> pd.Series:
        """Estimates by term."""

    def conf_int(self, level: float) -> pd.DataFrame:
        """Intervals by term."""

    def by_site(self, level: float) -> pd.DataFrame:
        """Estimates and intervals by site and term."""


MOST_SITES = 40
"""Sites that are drawn, those with the most rows; the title says how many there are."""
ROW = 0.26
SITE, POOLED = "#4c72b0", "#c44e52"
NARROW = 5.0
"""The ratio of an axis' ends below which 1, 2 and 5 are too few ticks."""


def forest(result: Fit, terms: list[str] | None = None, level: float = 0.95) -> list[Axes]:
    """One panel per term (default: all but the intercept), ratios on a logarithmic axis where the family has them.

    Raises `ValueError` for an unknown term.
    """
    chosen = terms or [term for term in result.terms if term != INTERCEPT] or list(result.terms)
    for term in chosen:
        if term not in result.terms:
            raise ValueError(f"terms: expected some of {', '.join(result.terms):.160}, got {term!r}")
    sites = sorted(result.counts, key=lambda site: -result.counts[site].used)[:MOST_SITES]
    sites = [site for site in result.counts if site in sites]
    table = result.by_site(level)
    figure, axes = plt.subplots(
        1,
        len(chosen),
        figsize=(2.2 + 3.2 * len(chosen), 1.2 + ROW * (len(sites) + 1)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    pooled = result.conf_int(level)
    for ax, term in zip(axes[0], chosen, strict=True):
        rows = np.array([table.loc[(site, term)].to_numpy(dtype=float) for site in sites])
        everyone = np.array([[result.params[term], *pooled.loc[term]]])
        _draw(ax, np.concatenate([rows, everyone]), result.family.ratio is not None)
        ax.set_title(term, fontsize=9)
        ax.set_xlabel(result.family.ratio or "coefficient", fontsize=8)
    shown = f"; {len(sites)} of {len(result.counts)} sites" if len(sites) < len(result.counts) else ""
    whole = sum(count.used for count in result.counts.values())
    labels = [*(f"{site} ({result.counts[site].used})" for site in sites), f"pooled ({whole})"]
    axes[0][0].set_yticks(range(len(labels)), labels)
    axes[0][0].set_ylim(len(sites) + 0.6, -0.6)
    figure.suptitle(f"estimates with {100 * level:g}% intervals, rows used in parentheses{shown}", fontsize=8)
    return list(axes[0])


def _draw(ax: Axes, rows: np.ndarray, ratios: bool) -> None:
    """Estimates with intervals, the pooled one last; a site without one says so."""
    shown = np.exp(np.clip(rows, -50, 50)) if ratios else rows
    places = np.arange(len(rows))
    for place, (estimate, lower, upper) in zip(places, shown, strict=True):
        color = POOLED if place == len(rows) - 1 else SITE
        if np.isfinite(estimate):
            ax.plot([lower, upper], [place, place], color=color, lw=1.4)
            ax.plot([estimate], [place], "D" if color == POOLED else "o", color=color, ms=5)
        else:
            white = {"fc": "white", "ec": "none", "pad": 1}
            ax.annotate("not estimable alone", (0.5, place), xycoords=("axes fraction", "data"), fontsize=7,
                        color="0.45", ha="center", va="center", bbox=white)  # fmt: skip
    ax.axvline(1.0 if ratios else 0.0, color="0.6", lw=0.8, ls=":")
    ax.axhline(len(rows) - 1.5, color="0.85", lw=0.8)
    finite = shown[np.isfinite(shown).all(axis=1)]
    # one wide interval must not flatten the others: the axis spans the estimates and the pooled interval generously
    low = min(np.quantile(finite[:, 0], 0.05), finite[-1, 1])
    high = max(np.quantile(finite[:, 0], 0.95), finite[-1, 2])
    if ratios:
        reach = np.exp(max(np.log(high / low), 1e-3))
        left, right = low / reach, high * reach
        _ratio_axis(ax, right / left < NARROW)
    else:
        reach = max(high - low, 1e-12)
        left, right = low - reach, high + reach
    ax.set_xlim(left, right)
    ax.tick_params(labelsize=8)
    for place, (_, lower, upper) in zip(places, shown, strict=True):
        color = POOLED if place == len(rows) - 1 else SITE
        for beyond, edge, marker in ((lower < left, left, "<"), (upper > right, right, ">")):
            if beyond:  # an interval that goes on outside
                ax.plot([edge], [place], marker, color=color, ms=6, clip_on=False)


def _ratio_axis(ax: Axes, narrow: bool) -> None:
    """A logarithmic axis whose ticks are 1, 2 and 5 times powers of ten, or equally spaced where it is narrow."""
    ax.set_xscale("log")
    equal = MaxNLocator(5, steps=[1, 2, 5, 10])
    ax.xaxis.set_major_locator(equal if narrow else LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
