"""Separation: responses that the terms predict perfectly, so that no finite maximum likelihood estimate exists.

A direction v separates where no row's likelihood falls along it: x·v ≥ 0 where y = 1 and ≤ 0 where y = 0 (binomial),
x·v ≤ 0 where y = 0 and = 0 elsewhere (Poisson). Along it the curvature vanishes and the estimate runs away, so the
candidates are the direction of the largest variance and the estimate's own, which every site then tests on its own
rows: a site answers with a yes or a no.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from badmm.checks import Array
from badmm.glm.design import INTERCEPT, SiteRows
from badmm.glm.families import ResponseFamily
from badmm.glm.result import Fitted

ROUNDING = 1e-4
"""A share of the largest x·v below which it counts as 0: v is an eigenvector at a finite estimate."""


def separated(
    family: ResponseFamily, terms: Sequence[str], scale: Array, sites: Mapping[str, SiteRows], fitted: Fitted
) -> list[str]:
    """A note naming the terms, where the direction of the largest variance separates all sites' rows."""
    if family.name not in ("binomial", "poisson"):
        return []
    # in columns of unit scale: the direction must not depend on units
    v = np.linalg.eigh(fitted.covariance * np.outer(scale, scale))[1][:, -1]
    for direction in (v, -v, fitted.params * scale):
        if all(_never_falls(family, part, direction / scale) for part in sites.values()):
            involved = np.flatnonzero(np.abs(direction) > 0.05 * np.abs(direction).max())
            names = ", ".join(repr(terms[int(j)]) for j in involved)
            return [
                f"separation: {names:.200} predict every response of some rows; their estimates are set by the prior"
            ]
    return []


def _never_falls(family: ResponseFamily, part: SiteRows, direction: Array) -> bool:
    move = part.X @ direction
    slack = ROUNDING * max(float(np.abs(move).max(initial=0.0)), 1e-300)
    if family.name == "binomial":
        return bool((np.where(part.y > 0.5, move, -move)[part.weights > 0] >= -slack).all())
    counted = part.weights > 0
    return bool((move[counted] <= slack).all() and (np.abs(move[counted & (part.y > 0)]) <= slack).all())


def site_notes(family: ResponseFamily, terms: Sequence[str], sites: Mapping[str, SiteRows]) -> Iterator[str]:
    """A note for every site without events, or with nothing else, which alone would determine no estimate."""
    if family.name not in ("binomial", "poisson"):
        return
    for site, part in sites.items():
        events, rows = float(part.weights @ part.y), float(part.weights.sum())
        if events == 0:
            yield f"site {site!r}: no event in {rows:g} rows"
        elif family.name == "binomial" and events == rows:
            yield f"site {site!r}: an event in every one of {rows:g} rows"
        else:
            yield from _level_notes(family, terms, site, part)


def _level_notes(family: ResponseFamily, terms: Sequence[str], site: str, part: SiteRows) -> Iterator[str]:
    for j, term in enumerate(terms):
        column = part.X[:, j]
        if term == INTERCEPT or not np.isin(column, (0.0, 1.0)).all():
            continue
        rows = (column == 1.0) & (part.weights > 0)
        if rows.any() and not rows.all():
            inside = part.y[rows]
            if (inside == 0).all():
                yield f"site {site!r}: no event where {term} is 1 ({rows.sum()} rows)"
            elif family.name == "binomial" and (inside == 1).all():
                yield f"site {site!r}: an event in every row where {term} is 1 ({rows.sum()} rows)"
