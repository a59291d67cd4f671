"""Named claims and their proofs: nothing is generated unless every one holds.

A proof is symbolic where SymPy decides it; elementwise at d = 1, 2, 3 where matrix calculus stalls, in exact rational
arithmetic at random points where a rational identity is too large to simplify; at 50 digits with mpmath at random
points where transcendental functions stall. The report says which.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import mpmath as mp
import sympy as sp

from ..calculus.special import define

DIGITS = 50
POINTS = 5
EXACT = f"exact rational arithmetic at {POINTS} random points"
Point = dict[sp.Symbol, sp.Rational]
Point50 = dict[sp.Symbol, mp.mpf]


class ClaimError(AssertionError):
    """A claim does not hold."""


@dataclass(frozen=True)
class Claim:
    """A named identity, its statement in LaTeX, and a function that proves it and returns how (or raises ClaimError).

    `targets` are the kernels, each as "module.kernel", that the proof runs or compares."""

    name: str
    family: str
    statement: str
    prove: Callable[[], str]
    source: str = ""
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim."""

    claim: Claim
    holds: bool
    method: str


def check(claim: Claim) -> Verdict:
    """Run one proof; a miss carries the reason in `method`."""
    try:
        return Verdict(claim, True, claim.prove())
    except ClaimError as miss:
        return Verdict(claim, False, str(miss))


def zero(*exprs: sp.Expr, what: str = "difference") -> str:
    """Prove that expressions vanish, symbolically; raises ClaimError with what is left otherwise."""
    for expr in exprs:
        for entry in expr if isinstance(expr, sp.MatrixBase) else [expr]:
            rest = sp.simplify(sp.expand_log(sp.expand(entry), force=True))
            if rest != 0:
                raise ClaimError(f"{what} leaves {rest}")
    return "symbolic"


def rational_points(symbols: Iterable[sp.Symbol], positive_definite: Iterable[sp.Matrix] = ()) -> Iterator[Point]:
    """Random rational points; the given symmetric matrices are diagonally dominant, so positive definite."""
    names, matrices = sorted(symbols, key=lambda s: s.name), list(positive_definite)
    for seed in range(POINTS):
        draw = random.Random(seed)
        point: Point = {s: sp.Rational(draw.randint(1, 97), draw.randint(1, 23)) for s in names}
        for matrix in matrices:
            for i in range(matrix.rows):
                for j in range(i, matrix.rows):
                    point[matrix[i, j]] = sp.Rational(draw.randint(70, 97) if i == j else draw.randint(-23, 23), 23)
        yield point


def zero_at_rationals(*exprs: sp.Expr, positive_definite: Iterable[sp.Matrix] = (), what: str = "difference") -> str:
    """Prove a rational identity in exact arithmetic at random points, where a false one would almost surely show."""
    listed = [e for expr in exprs for e in (expr if isinstance(expr, sp.MatrixBase) else [expr])]
    symbols = set().union(*(e.free_symbols for e in listed)) if listed else set()
    for point in rational_points(symbols, positive_definite):
        for entry in listed:
            rest = entry.xreplace(point)
            rest = rest if rest.is_Rational else sp.simplify(rest)
            if rest != 0:
                raise ClaimError(f"{what} leaves {rest} at {point}")
    return EXACT


def domain_points(symbols: Iterable[sp.Symbol], seed: int = 0, decades: float = 1.5) -> Iterator[Point50]:
    """Random points of the domain over several orders of magnitude, as 50-digit numbers; whole ones of integers."""
    for k in range(POINTS):
        draw = random.Random(1000 * seed + k)
        point = {}
        for s in sorted(symbols, key=lambda x: x.name):
            size = mp.mpf(10) ** mp.mpf(draw.uniform(-decades, decades))
            size = mp.ceil(size) if s.is_integer else size
            point[s] = size if s.is_nonnegative else -size if s.is_negative else size * draw.choice((-1, 1))
        yield point


def numeric(expr: sp.Expr, point: Point50) -> mp.mpf:
    """A defined expression at a point, at DIGITS digits."""
    symbols = sorted(point, key=lambda s: s.name)
    return sp.lambdify(symbols, define(expr), "mpmath")(*[point[s] for s in symbols])


def zero_at_digits(expr: sp.Expr, what: str = "difference", seed: int = 0) -> str:
    """Check that an expression vanishes to 10⁻⁴⁰ of its largest term at random points of the domain, at 50 digits."""
    with mp.workdps(DIGITS):
        for point in domain_points(expr.free_symbols, seed):
            terms = [abs(numeric(t, point)) for t in sp.Add.make_args(sp.expand(expr))]
            left = abs(numeric(expr, point))
            if left > mp.mpf(10) ** -40 * max([*terms, mp.mpf(1)]):
                raise ClaimError(
                    f"{what} leaves {mp.nstr(left, 5)} at { ({str(k): mp.nstr(v, 5) for k, v in point.items()}) }"
                )
    return f"mpmath, {DIGITS} digits at {POINTS} random points"
