"""Expressions cut into lines: a formula that is too wide for one has its widest parts named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ir.nodes import COMPARISONS, Expr, Int, Let, Lit, Op, Stmt, Var

WIDEST = 92  # characters of an expression, so that a line of a loop holds it
TOGETHER = 105  # of all results, which a scalar function returns on one line
INFIX = ("add", "sub", "mul", "div", *COMPARISONS)
OWN = ("fma", "abs", "select")  # functions without the prefix of a library


def width(e: Expr, cast: int, inside: bool = False) -> int:
    """How many characters the expression takes in Numba's source; a literal's cast takes `cast` of them."""
    if isinstance(e, Var):
        return len(e.name)
    if isinstance(e, Lit):
        return len(e.text) + cast
    if isinstance(e, Int):
        return 12
    if e.op == "neg" or e.op in INFIX:
        parts = sum(width(a, cast, True) for a in e.args)
        return parts + (1 if e.op == "neg" else 3 + 2 * inside)
    name = e.target or (e.op if e.op in OWN else f"math.{e.op}")
    return sum(width(a, cast) for a in e.args) + len(name) + 2 * len(e.args)


class _Cutter:
    def __init__(self, cast: int) -> None:
        self.cast = cast
        self.statements: list[Stmt] = []
        self.count = 0

    def width(self, e: Expr) -> int:
        return width(e, self.cast)

    def name(self, e: Expr) -> Var:
        self.count += 1
        self.statements.append(Let(f"part_{self.count}", e))
        return Var(f"part_{self.count}")

    def cut(self, e: Expr) -> Expr:
        if not isinstance(e, Op) or self.width(e) <= WIDEST:
            return e
        args = [self.cut(a) for a in e.args]
        while sum(map(self.width, args)) > WIDEST - 20:
            wide = [k for k, a in enumerate(args) if isinstance(a, Op) and a.op not in COMPARISONS]
            if not wide:
                break
            k = max(wide, key=lambda k: self.width(args[k]))
            args[k] = self.name(args[k])
        return replace(e, args=tuple(args))


def cut(body: Sequence[Stmt], results: Sequence[Expr], promote: bool) -> tuple[list[Stmt], list[Expr]]:
    """Statements and results that fit a line each; what fits already is left as it is.

    Literals are cast, f32(1.0), unless the kernel computes in float64 (`promote`), which casts its results.
    """
    cutter = _Cutter(0 if promote else 5)
    for s in body:
        cutter.statements.append(replace(s, value=cutter.cut(s.value)) if isinstance(s, Let) else s)
    found = [cutter.cut(r) for r in results]
    while sum(cutter.width(r) + 5 * promote for r in found) > TOGETHER and len(found) > 1:
        k = max(range(len(found)), key=lambda k: cutter.width(found[k]))
        if not isinstance(found[k], Op):
            break
        found[k] = cutter.name(found[k])
    return cutter.statements, found
