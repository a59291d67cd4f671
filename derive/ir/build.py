"""Short ways to write IR by hand: numbers, operations, calls, polynomials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy as sp

from .scalar import Expr, Int, Let, Lit, Op, Var

Part = Expr | str | float


def num(value: Any) -> Lit:
    """The float64 nearest to a number of SymPy's or Python's."""
    return Lit(repr(float(sp.N(value, 40))).replace("e+", "e"))


def part(value: Any) -> Expr:
    """An expression as it is, a name as a variable, a number as a literal."""
    return value if isinstance(value, Var | Lit | Int | Op) else Var(value) if isinstance(value, str) else num(value)


def op(name: str, *args: Any) -> Op:
    """An operation of parts."""
    return Op(name, tuple(part(a) for a in args))


def call(target: str, *args: Any) -> Op:
    """A call of a scalar function."""
    return Op("call", tuple(part(a) for a in args), target)


def horner(name: str, coefficients: Iterable[Any], x: str) -> list[Let]:
    """name = Σ cᵢ xⁱ by fused multiply-adds, coefficients given lowest order first."""
    first, *rest = [num(c) for c in reversed(list(coefficients))]
    return [Let(name, first), *[Let(name, op("fma", name, x, c)) for c in rest]]
