"""Bregman divergences f(p) − f(q) − f′(q)(p − q) of convex functions, without the cancellation near p = q.

For near arguments the divergence is (p − q)² ∫₀¹ (1 − s) f″(q + s(p − q)) ds, a sum of positive terms by
Gauss–Legendre; for far ones its definition. A log-partition that is such a function of one parameter has it as its KL.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import sympy as sp

from ..ir.build import call, num, op
from ..ir.nodes import Expr, Function, If, Let, Return, Stmt, Var
from .special import Named, stirling_bregman, stirling_remainder, stirling_remainder_1
from .tails import bernoulli, log_one_minus_exp, logistic, softplus

GAUSS_NODES = 12
REACH = 1.0  # of near arguments of functions that change on the scale of 1


class exp_bregman(Named):
    """eᵖ − e^q − e^q (p − q)."""

    nargs = 2

    @staticmethod
    def definition(p: sp.Expr, q: sp.Expr) -> sp.Expr:
        return sp.exp(p) - sp.exp(q) - sp.exp(q) * (p - q)


class softplus_bregman(Named):
    """Of log(1 + eˣ), which is the same at (−p, −q)."""

    nargs = 2

    @staticmethod
    def definition(p: sp.Expr, q: sp.Expr) -> sp.Expr:
        return softplus.definition(p) - softplus.definition(q) - logistic.definition(q) * (p - q)


class escape_bregman(Named):
    """Of −log(1 − e⁻ˣ), x > 0."""

    nargs = 2

    @staticmethod
    def definition(p: sp.Expr, q: sp.Expr) -> sp.Expr:
        gap = log_one_minus_exp.definition(q) - log_one_minus_exp.definition(p)
        return gap + (p - q) / (sp.exp(q) - 1)


class positive_part(Named):
    """max(x, 0): of a divergence that is a difference of divergences, which rounding may make negative."""

    nargs = 1

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return sp.Max(x, 0)


@dataclass(frozen=True)
class Convex:
    """±f with its derivative: `sign` is −1 for a concave f, whose divergence is −f's."""

    value: Any
    slope: Any
    sign: int = 1


BREGMAN: dict[Any, Convex] = {
    stirling_bregman: Convex(stirling_remainder, stirling_remainder_1),
    softplus_bregman: Convex(softplus, logistic),
    escape_bregman: Convex(log_one_minus_exp, lambda x: bernoulli(x) / x, -1),
    exp_bregman: Convex(sp.exp, sp.exp),
}
"""By the function of (p, q): the function whose divergence it is; each is looked for in what those before it leave."""


@cache
def unit_rule() -> tuple[tuple[sp.Expr, sp.Expr], ...]:
    """Gauss–Legendre nodes s and weights on [0, 1]."""
    from sympy.integrals.quadrature import gauss_legendre

    return tuple(((1 + node) / 2, w / 2) for node, w in zip(*gauss_legendre(GAUSS_NODES, 30), strict=True))


def integral(curvature: Any, h: str, base: str) -> tuple[Stmt, ...]:
    """Return h² ∫₀¹ (1 − s) f″(base + s h) ds; `curvature` gives the IR of f″ at an expression."""
    body: list[Stmt] = [Let("total", num(0)), Let("at", Var(base))]
    for s, w in unit_rule():
        body.append(Let("at", op("fma", num(s), h, base)))
        body.append(Let("total", op("fma", num(w * (1 - s)), curvature(Var("at")), "total")))
    return (*body, Return((op("mul", op("mul", h, h), "total"),)))


def _exp_function() -> Function:
    near = op("lt", op("abs", "h"), REACH)
    gap = op("sub", op("exp", "p"), op("exp", "q"))
    return Function(
        "exp_bregman",
        ("p", "q"),
        (
            Let("h", op("sub", "p", "q")),
            If(near, integral(lambda at: op("exp", at), "h", "q")),
            Return((op("fma", op("neg", op("exp", "q")), "h", gap),)),
        ),
        "e^p - e^q - e^q (p - q) >= 0; near p = q as the integral of (p - t) e^t.",
    )


def _softplus_function() -> Function:
    def curvature(at: Expr) -> Expr:
        return op("mul", call("logistic", at), call("logistic", op("neg", at)))

    gap = op("sub", call("softplus", "b"), call("softplus", "a"))
    return Function(
        "softplus_bregman",
        ("p", "q"),
        (
            Let("a", op("select", op("lt", "q", 0.0), "q", op("neg", "q"))),
            Let("b", op("select", op("lt", "q", 0.0), "p", op("neg", "p"))),
            Let("h", op("sub", "b", "a")),
            If(op("lt", op("abs", "h"), REACH), integral(curvature, "h", "a")),
            Return((op("fma", op("neg", call("logistic", "a")), "h", gap),)),
        ),
        "softplus(p) - softplus(q) - logistic(q) (p - q) >= 0, the same at (-p, -q); q is made negative, where nothing "
        "cancels far from p.",
    )


def _escape_function() -> Function:
    def curvature(at: Expr) -> Expr:
        return op("div", op("neg", 1.0), op("mul", op("expm1", at), op("expm1", op("neg", at))))

    gap = op("sub", call("log_one_minus_exp", "q"), call("log_one_minus_exp", "p"))
    half = op("mul", 0.5, "q")
    return Function(
        "escape_bregman",
        ("p", "q"),
        (
            Let("h", op("sub", "p", "q")),
            Let("reach", op("select", op("lt", half, REACH), half, REACH)),
            If(op("lt", op("abs", "h"), "reach"), integral(curvature, "h", "q")),
            Return((op("add", gap, op("div", "h", op("expm1", "q"))),)),
        ),
        "log(1 - e^-q) - log(1 - e^-p) + (p - q)/(e^q - 1) >= 0; near p = q as the integral of "
        "(p - t) e^t/(e^t - 1)^2.",
    )


@cache
def library() -> dict[str, Function]:
    """The functions of this module; they call those of `special` and `tails`."""
    clipped = (Return((op("select", op("lt", "x", 0.0), 0.0, "x"),)),)
    part = Function("positive_part", ("x",), clipped, "max(x, 0), of what rounding alone makes negative.")
    return {f.name: f for f in (_exp_function(), _softplus_function(), _escape_function(), part)}
