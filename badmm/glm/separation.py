"""Separation: responses that the terms predict perfectly, so that no finite maximum likelihood estimate exists.

A direction v separates where no row's likelihood falls along it: x·v ≥ 0 where y = 1 and ≤ 0 where y = 0 (binomial),
x·v ≤ 0 where y = 0 and = 0 elsewhere (counts). Along it the curvature vanishes and the estimate runs away, so the
candidates are the direction of the largest variance, the estimate's part in the widest ones and its own, which every
site then tests on its own rows: a site answers with a yes or a no.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from badmm.checks import Array
from badmm.glm.coordinates import INTERCEPT
from badmm.glm.families import ResponseFamily
from badmm.glm.result import Fitted
from badmm.glm.rows import Blocks, Site, SiteRows, Sites

ROUNDING = 1e-4
"""A share of the root mean square of x·v below which it counts as 0: v is an eigenvector at a finite estimate."""
WIDE = 1e-3
"""A share of the largest variance above which directions may run away together: the estimate tells their mixture."""


def separated(family: ResponseFamily, terms: Sequence[str], scale: Array, sites: Sites, fitted: Fitted) -> list[str]:
    """A note naming the terms, where the direction of the largest variance separates all sites' rows.

    It is found in coordinates whose rows have mean square I, so that it does not depend on units.
    """
    theta, coordinates = fitted.theta, fitted.coordinates
    variances, directions = np.linalg.eigh(theta.scale)
    v, wide = directions[:, -1], directions[:, variances > WIDE * variances[-1]]
    for direction in (v, -v, wide @ (theta.mean @ wide), theta.mean):
        inner, outer = (map_ @ coordinates.matrix(direction) for map_ in (coordinates.inner, coordinates.outer))
        slack = ROUNDING * float(np.linalg.norm(direction))
        if slack > 0 and all(_never_falls(family, part, outer, slack) for part in Blocks(sites)):
            # an intercept that only makes up for the columns' means is not named
            reach = (np.minimum(np.abs(inner), np.abs(outer)).T * scale).ravel()
            named = family.coefficients(terms)
            names = ", ".join(repr(named[int(j)]) for j in np.flatnonzero(reach > 0.05 * reach.max()))
            return [
                f"separation: {names:.200} predict every response of some rows; their estimates are set by the prior"
            ]
    return []


def _never_falls(family: ResponseFamily, part: SiteRows, direction: Array, slack: float) -> bool:
    counted = part.weights > 0
    move = part.X[counted] @ direction
    return family.never_falls(part.y[counted], move if move.shape[1] > 1 else move[:, 0], slack)


def site_notes(family: ResponseFamily, terms: Sequence[str], sites: Sites) -> Iterator[str]:
    """A note for every site without events, or with nothing else, which alone would determine no estimate."""
    if not family.counts_events:
        return
    for site, part in sites.items():
        totals = [(block.weights @ block.y, block.weights.sum()) for block in part.blocks()]
        events, rows = (float(sum(values)) for values in zip(*totals, strict=True))
        if events == 0:
            yield f"site {site!r}: no event in {rows:g} rows"
        elif _is_binary(family) and events == rows:
            yield f"site {site!r}: an event in every one of {rows:g} rows"
        else:
            yield from _level_notes(family, terms, site, part)


def _level_notes(family: ResponseFamily, terms: Sequence[str], site: str, part: Site) -> Iterator[str]:
    """A note for every column of zeros and ones whose ones have no event, or nothing else."""
    binary, inside, outside, none, every = (np.full(len(terms), start) for start in (True, 0, 0, True, True))
    for block in part.blocks():
        ones, counted = block.X == 1.0, block.weights[:, None] > 0
        binary &= (ones | (block.X == 0.0)).all(axis=0)
        inside += (ones & counted).sum(axis=0)
        outside += (~ones | ~counted).sum(axis=0)
        none &= ((block.y[:, None] == 0) | ~ones | ~counted).all(axis=0)
        every &= ((block.y[:, None] == 1) | ~ones | ~counted).all(axis=0)
    for term, rows, *found in zip(terms, inside, binary & (inside > 0) & (outside > 0), none, every, strict=True):
        if term == INTERCEPT or not found[0]:
            continue
        if found[1]:
            yield f"site {site!r}: no event where {term} is 1 ({rows} rows)"
        elif _is_binary(family) and found[2]:
            yield f"site {site!r}: an event in every row where {term} is 1 ({rows} rows)"


def _is_binary(family: ResponseFamily) -> bool:
    return family.levels_taken == (2, 2)
