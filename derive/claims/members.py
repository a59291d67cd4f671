"""Points at which claims about families are tested, all of them members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sympy as sp

from ..calculus.elementwise import Calculus
from ..calculus.slots import fresh
from .claim import Point50, domain_points, numeric

SUFFIXES = ("", "_q", "_p")


def member_points(c: Calculus, symbols: Iterable[sp.Symbol], seed: int = 0, decades: float = 1.5) -> Iterator[Point50]:
    """Random points of some symbols; where those of λ, or of a second member, are among them, and the slots' signs do
    not make a member of them, λ is that of random standard parameters."""
    wanted = set(symbols)
    if not c.conditions:
        yield from domain_points(wanted, seed, decades)
        return
    named = {x: (fresh(c.at.natural, x), fresh(c.at.standard, x)) for x in SUFFIXES}
    present = [pair for pair in named.values() if _entries(pair[0]) <= wanted]
    drawn = wanted.union(*(_entries(standard) for _, standard in present))
    for point in domain_points(drawn, seed, decades):
        for natural, standard in present:
            own = {a[0, 0]: point[b[0, 0]] for a, b in zip(c.at.standard, standard, strict=True)}
            values = [numeric(m[0, 0], own) for m in c.at.natural_of_standard]
            point |= {m[0, 0]: value for m, value in zip(natural, values, strict=True)}
        yield point


def _entries(slots: tuple[sp.Matrix, ...]) -> set[sp.Symbol]:
    return {m[0, 0] for m in slots}
