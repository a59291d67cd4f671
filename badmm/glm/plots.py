"""Forest plots: every site's own estimate of a coefficient, and the pooled one below them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from badmm.glm.design import INTERCEPT

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
    shown = f"{len(sites)} of {len(result.counts)} sites" if len(sites) < len(result.counts) else ""
    axes[0][0].set_yticks(range(len(sites) + 1), [*(f"{s} ({result.counts[s].used})" for s in sites), "pooled"])
    axes[0][0].tick_params(axis="y", labelsize=8)
    axes[0][0].invert_yaxis()
    figure.suptitle(shown, fontsize=8)
    return list(axes[0])


def _draw(ax: Axes, rows: np.ndarray, ratios: bool) -> None:
    """Estimates with intervals, the pooled one last; a site without an estimate has a cross at the edge."""
    shown = np.exp(np.clip(rows, -50, 50)) if ratios else rows
    places = np.arange(len(rows))
    for place, (estimate, lower, upper) in zip(places, shown, strict=True):
        color = POOLED if place == len(rows) - 1 else SITE
        if np.isfinite(estimate):
            ax.plot([lower, upper], [place, place], color=color, lw=1.4)
            ax.plot([estimate], [place], "D" if color == POOLED else "o", color=color, ms=5)
        else:
            ax.annotate("not estimable alone", (0.5, place), xycoords=("axes fraction", "data"), fontsize=7,
                        color="0.45", ha="center", va="center")  # fmt: skip
    ax.axvline(1.0 if ratios else 0.0, color="0.6", lw=0.8, ls=":")
    ax.axhline(len(rows) - 1.5, color="0.85", lw=0.8)
    finite = shown[np.isfinite(shown).all(axis=1)]
    if ratios:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    # one wide interval must not flatten the others: the axis spans the estimates and the pooled interval generously
    low = min(np.quantile(finite[:, 0], 0.05), finite[-1, 1])
    high = max(np.quantile(finite[:, 0], 0.95), finite[-1, 2])
    if ratios:
        reach = max(np.log(high / low), 0.2)
        ax.set_xlim(low * np.exp(-reach), high * np.exp(reach))
    else:
        reach = max(high - low, 1e-12)
        ax.set_xlim(low - reach, high + reach)
