"""Special functions that the stable forms need, and how each is computed.

ln Γ(x) = x ln x − x + R(x), and likewise ψ = ln + R′, ψ₁ = 1/x + R″: R, the remainder of Stirling's formula, carries
everything that is left of entropies and divergences after the large terms cancel (`stirling` has their code).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import sympy as sp

from ..ir.build import call, horner, op
from ..ir.nodes import Function, If, Let, Return, Stmt
from . import stirling
from .stirling import ASYMPTOTIC_FROM, chosen

ZETA_TERMS = 30
NEAR = 0.4  # below it the series of φ is summed


class Named(sp.Function):
    """A function whose name is that of the lowered one; `definition` is what it stands for."""

    @staticmethod
    def definition(*args: sp.Expr) -> sp.Expr:
        """The function in elementary ones, however they cancel."""
        raise NotImplementedError


class Tailed(Named):
    """A function of `calculus/tails.py`."""

    nargs = 1


class lgamma(Named):
    """ln Γ(x), which SymPy would write as log(Γ(x)) where x is an integer symbol."""

    nargs = 1

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return sp.loggamma(x)


class log1p(sp.Function):
    """log(1 + x), accurate near 0."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return 1 / (1 + self.args[0])


class x_minus_log1p(sp.Function):
    """φ(x) = x − log(1 + x) ≥ 0: the divergence of a ratio 1 + x from 1."""

    nargs = 1


class ratio_divergence(sp.Function):
    """φ of a ratio, given x = ratio − 1 and the ratio: x − log(ratio), accurate for ratios near 1 and far below it."""

    nargs = 2


class stirling_remainder(sp.Function):
    """R(x) = ln Γ(x) − x ln x + x."""

    nargs = 1


class stirling_remainder_1(sp.Function):
    """R′(x) = ψ(x) − ln x < 0."""

    nargs = 1


class stirling_remainder_2(sp.Function):
    """R″(x) = ψ₁(x) − 1/x > 0."""

    nargs = 1


class stirling_bregman(sp.Function):
    """R(p) − R(q) − R′(q)(p − q) ≥ 0, the Bregman divergence of the convex R."""

    nargs = 2


DEFINITIONS: dict[Any, Callable[..., sp.Expr]] = {
    log1p: lambda x: sp.log(1 + x),
    x_minus_log1p: lambda x: x - sp.log(1 + x),
    ratio_divergence: lambda x, ratio: x - sp.log(ratio),
    stirling_remainder: lambda x: sp.loggamma(x) - x * sp.log(x) + x,
    stirling_remainder_1: lambda x: sp.polygamma(0, x) - sp.log(x),
    stirling_remainder_2: lambda x: sp.polygamma(1, x) - 1 / x,
    stirling_bregman: lambda p, q: stirling_remainder(p) - stirling_remainder(q) - stirling_remainder_1(q) * (p - q),
}

FUNCTION_NAMES: dict[Any, str] = {
    x_minus_log1p: "x_minus_log1p",
    ratio_divergence: "ratio_divergence",
    stirling_remainder: "stirling_remainder",
    stirling_remainder_1: "stirling_remainder_1",
    stirling_remainder_2: "stirling_remainder_2",
    stirling_bregman: "stirling_bregman",
    sp.loggamma: "lgamma",
}


def definition(function: Any) -> Callable[..., sp.Expr] | None:
    """What a function of this module, of `tails` or of `bregman` stands for; None for SymPy's own."""
    return function.definition if issubclass(function, Named) else DEFINITIONS.get(function)


def _defined(call: sp.Function) -> sp.Expr:
    found = definition(call.func)
    assert found is not None
    return found(*call.args)


def define(expr: sp.Expr) -> sp.Expr:
    """The expression with every function of this module replaced by its definition."""
    while True:
        found = sorted((f for f in expr.atoms(sp.Function) if definition(f.func)), key=sp.default_sort_key)
        if not found:
            return expr
        expr = expr.xreplace({f: _defined(f) for f in found})


def by_stirling(expr: sp.Expr) -> sp.Expr:
    """ln Γ, ψ and ψ₁ rewritten through R, R′ and R″."""
    expr = expr.replace(sp.loggamma, lambda x: stirling_remainder(x) + x * sp.log(x) - x)
    return expr.replace(
        sp.polygamma,
        lambda n, x: stirling_remainder_1(x) + sp.log(x) if n == 0 else stirling_remainder_2(x) + 1 / x,
    )


def x_minus_log1p_function() -> Function:
    """φ by x·s − 2(s³/3 + s⁵/5 + …), s = x/(2 + x), near 0; directly elsewhere."""
    odd = [sp.Rational(2, 2 * k + 3) for k in range(12)]
    near: tuple[Stmt, ...] = (
        Let("s", op("div", "x", op("add", "x", 2.0))),
        Let("w", op("mul", "s", "s")),
        *horner("p", odd, "w"),
        Let("tail", op("mul", op("mul", "s", "w"), "p")),
        Return((op("fma", "x", "s", op("neg", "tail")),)),
    )
    far = Return((op("sub", "x", op("log1p", "x")),))
    return Function(
        "x_minus_log1p",
        ("x",),
        (If(op("lt", op("abs", "x"), NEAR), near), far),
        "phi(x) = x - log(1 + x); log(1 + x) = 2 atanh(s), s = x / (2 + x), and x - 2 s = x s: nothing cancels near 0.",
    )


def trigamma_function() -> Function:
    """ψ₁ from R″."""
    value = op("add", call("stirling_remainder_2", "x"), op("div", 1.0, "x"))
    return Function("trigamma", ("x",), (Return((value,)),), "trigamma(x) = R''(x) + 1/x, x > 0.")


def lgamma_function() -> Function:
    """ln Γ with full relative accuracy at its zeros 1 and 2: z times the zeta series about 2, moved there by one factor
    or two from below, by up to eight from above; Stirling's formula from 10 on. One logarithm serves all."""
    zeta = [1 - sp.EulerGamma] + [(-1) ** k * (sp.zeta(k) - 1) / k for k in range(2, ZETA_TERMS + 1)]
    body: list[Stmt] = [
        Let("low", op("lt", "x", 1.5)),
        Let("lowest", op("lt", "x", 0.5)),
        Let("large", op("ge", "x", float(ASYMPTOTIC_FROM))),
        Let("z", op("sub", "x", chosen("low", chosen("lowest", 0.0, 1.0), 2.0))),
        Let("product", chosen("low", chosen("lowest", op("fma", "x", "x", "x"), "x"), 1.0)),
    ]
    for k in range(1, ASYMPTOTIC_FROM - 1):
        body.append(Let("high", op("ge", "x", k + 1.5)))
        body.append(Let("z", chosen("high", op("sub", "x", k + 2.0), "z")))
        body.append(Let("product", chosen("high", op("mul", "product", op("sub", "x", float(k))), "product")))
    body += [
        Let("u", op("div", 1.0, "x")),
        Let("w", op("mul", "u", "u")),
        *horner("s", stirling.asymptotic(0), "w"),
        *horner("p", zeta, "z"),
        Let("far", op("fma", "u", "s", op("sub", sp.log(2 * sp.pi) / 2, "x"))),
        Let("times", chosen("large", op("sub", "x", 0.5), chosen("low", -1.0, 1.0))),
        Let("rest", chosen("large", "far", op("mul", "z", "p"))),
        Return((op("fma", "times", call("ln", chosen("large", "x", "product")), "rest"),)),
    ]
    doc = "ln Gamma(x), x > 0: zeta series about 2, upward or downward recurrence, Stirling from 10."
    return Function("lgamma", ("x",), tuple(body), doc)


@cache
def library() -> dict[str, Function]:
    """Every special function, callees before callers."""
    functions = [*stirling.library().values(), x_minus_log1p_function(), trigamma_function(), lgamma_function()]
    return {f.name: f for f in functions}
