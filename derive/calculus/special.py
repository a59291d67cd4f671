"""Special functions that the stable forms need, and how each is computed.

ln Γ(x) = x ln x − x + R(x), and likewise ψ = ln + R′, ψ₁ = 1/x + R″: R, the remainder of Stirling's formula, carries
everything that is left of entropies and divergences after the large terms cancel. For x ≥ 10 it is its asymptotic
series (Bernoulli numbers, from SymPy); below, it is shifted up by recurrences. The shifts of ψ, R′ and R″ are sums of
fractions and are kept as one fraction, so that a call divides once however far it shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import sympy as sp

from ..ir.nodes import Expr, Function, If, Let, Lit, Loop, Op, Return, Stmt, Var

ASYMPTOTIC_FROM = 10
SERIES_TERMS = 10
ZETA_TERMS = 30
GAUSS_NODES = 12
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


def _num(value: Any) -> Lit:
    return Lit(repr(float(sp.N(value, 40))))


def _op(op: str, *args: Expr | str | float) -> Op:
    return Op(
        op, tuple(a if isinstance(a, (Var, Lit, Op)) else Var(a) if isinstance(a, str) else _num(a) for a in args)
    )


def _call(target: str, *args: Expr | str) -> Op:
    return Op("call", tuple(Var(a) if isinstance(a, str) else a for a in args), target)


def horner(name: str, coefficients: Iterable[Any], x: str) -> list[Stmt]:
    """name = Σ cᵢ xⁱ by fused multiply-adds, coefficients given lowest order first."""
    first, *rest = [_num(c) for c in reversed(list(coefficients))]
    return [Let(name, first), *[Let(name, _op("fma", name, x, c)) for c in rest]]


def _asymptotic(order: int) -> list[sp.Rational]:
    """Coefficients of u = 1/x² in x^(order+1) R^(order)(x) beyond R's own −½ ln x + ½ ln 2π: Bernoulli numbers."""
    x = sp.Symbol("x", positive=True)
    terms = [sp.bernoulli(2 * k) / (2 * k * (2 * k - 1) * x ** (2 * k - 1)) for k in range(1, SERIES_TERMS + 1)]
    return [sp.diff(t, x, order) * x ** (2 * k - 1 + order) for k, t in enumerate(terms, start=1)]


def _shifted(name: str, doc: str, per_step: Expr, finish: list[Stmt]) -> Function:
    """f(x) = Σ over the shifts up to 10 of `per_step` + the asymptotic form at the shifted y."""
    step: tuple[Stmt, ...] = (
        Let("u", _op("div", 1.0, "y")),
        Let("shift", _op("add", "shift", per_step)),
        Let("y", _op("add", "y", 1.0)),
    )
    body: list[Stmt] = [
        Let("y", Var("x")),
        Let("shift", _num(0)),
        Let("u", _num(0)),
        Loop(ASYMPTOTIC_FROM, _op("ge", "y", float(ASYMPTOTIC_FROM)), step),
        Let("u", _op("div", 1.0, "y")),
        Let("w", _op("mul", "u", "u")),
    ]
    return Function(name, ("x",), tuple(body + finish), doc)


def _fraction_shifted(name: str, doc: str, term: Expr, finish: list[Stmt]) -> Function:
    """f(x) from the asymptotic form at y = x + n ≥ 10 and `shift`, the sum of 1/term over the n steps, as one fraction.

    Σ 1/t_k = N/D: N ← N t + D, D ← D t, all positive.
    """
    step: tuple[Stmt, ...] = (
        Let("t", term),
        Let("top", _op("fma", "top", "t", "bottom")),
        Let("bottom", _op("mul", "bottom", "t")),
        Let("y", _op("add", "y", 1.0)),
    )
    body: list[Stmt] = [
        Let("y", Var("x")),
        Let("top", _num(0)),
        Let("bottom", _num(1)),
        Let("t", _num(0)),
        Loop(ASYMPTOTIC_FROM, _op("ge", "y", float(ASYMPTOTIC_FROM)), step),
        Let("shift", _op("div", "top", "bottom")),
        Let("u", _op("div", 1.0, "y")),
        Let("w", _op("mul", "u", "u")),
    ]
    return Function(name, ("x",), tuple(body + finish), doc)


def x_minus_log1p_function() -> Function:
    """φ by x·s − 2(s³/3 + s⁵/5 + …), s = x/(2 + x), near 0; directly elsewhere."""
    odd = [sp.Rational(2, 2 * k + 3) for k in range(12)]
    near: tuple[Stmt, ...] = (
        Let("s", _op("div", "x", _op("add", "x", 2.0))),
        Let("w", _op("mul", "s", "s")),
        *horner("p", odd, "w"),
        Let("tail", _op("mul", _op("mul", "s", "w"), "p")),
        Return((_op("fma", "x", "s", _op("neg", "tail")),)),
    )
    far = Return((_op("sub", "x", _op("log1p", "x")),))
    return Function(
        "x_minus_log1p",
        ("x",),
        (If(_op("lt", _op("abs", "x"), NEAR), near), far),
        "phi(x) = x - log(1 + x); log(1 + x) = 2 atanh(s), s = x / (2 + x), and x - 2 s = x s: nothing cancels near 0.",
    )


def ratio_divergence_function() -> Function:
    """φ(x) near x = 0; x − log(ratio) elsewhere, where 1 + x would have lost the digits of a small ratio."""
    near: tuple[Stmt, ...] = (Return((_call("x_minus_log1p", "x"),)),)
    far = Return((_op("sub", "x", _op("log", "ratio")),))
    return Function(
        "ratio_divergence",
        ("x", "ratio"),
        (If(_op("lt", _op("abs", "x"), NEAR), near), far),
        "phi(x) = x - log(ratio) for x = ratio - 1, both given: a small ratio keeps the digits that 1 + x loses.",
    )


def stirling_functions() -> list[Function]:
    """R, R′, R″ with their asymptotic series and one-signed recurrences."""
    half_log_2pi = sp.log(2 * sp.pi) / 2
    series = {order: horner("p", _asymptotic(order), "w") for order in range(3)}
    r0 = _shifted(
        "stirling_remainder",
        "R(x) = ln Gamma(x) - x ln x + x, x > 0; R(x) = R(x + 1) + (x + 1) log(1 + 1/x) - 1 below 10.",
        _op("fma", _op("add", "y", 1.0), _op("log1p", "u"), -1.0),
        [
            *series[0],
            Let("main", _op("fma", _num(-sp.S.Half), _op("log", "y"), _num(half_log_2pi))),
            Return((_op("add", "shift", _op("fma", "u", "p", "main")),)),
        ],
    )
    r1 = _fraction_shifted(
        "stirling_remainder_1",
        "R'(x) = digamma(x) - ln x, x > 0; R'(x) = R'(x + n) - sum of 1/(x + k) for k < n + ln((x + n)/x) below 10.",
        Var("y"),
        [
            *series[1],
            Let("main", _op("fma", "w", "p", _op("mul", -0.5, "u"))),
            If(
                _op("lt", "x", float(ASYMPTOTIC_FROM)),
                (
                    Let("shift", _op("add", "shift", _op("log", _op("div", "x", "y")))),
                    Let("main", _op("sub", "main", "shift")),
                ),
            ),
            Return((Var("main"),)),
        ],
    )
    r2 = _fraction_shifted(
        "stirling_remainder_2",
        "R''(x) = trigamma(x) - 1/x, x > 0; R''(x) = R''(x + 1) + 1/(x^2 (x + 1)) below 10.",
        _op("mul", _op("mul", "y", "y"), _op("add", "y", 1.0)),
        [*series[2], Return((_op("fma", "w", _op("fma", "u", "p", 0.5), "shift"),))],
    )
    return [r0, r1, r2]


def polygamma_functions() -> list[Function]:
    """ψ by its own shift, which needs one logarithm where R′ needs two, and ψ₁ from R″."""
    return [
        _fraction_shifted(
            "digamma",
            "digamma(x), x > 0; digamma(x) = digamma(x + n) - sum of 1/(x + k) for k < n below 10.",
            Var("y"),
            [
                *horner("p", _asymptotic(1), "w"),
                Let("main", _op("fma", "w", "p", _op("mul", -0.5, "u"))),
                Return((_op("add", _op("sub", _op("log", "y"), "shift"), "main"),)),
            ],
        ),
        Function(
            "trigamma",
            ("x",),
            (Return((_op("add", _call("stirling_remainder_2", "x"), _op("div", 1.0, "x")),)),),
            "trigamma(x) = R''(x) + 1/x, x > 0.",
        ),
    ]


def lgamma_function() -> Function:
    """ln Γ with full relative accuracy at its zeros 1 and 2: the zeta series about 2, recurrences, Stirling above
    10."""
    zeta = [1 - sp.EulerGamma] + [(-1) ** k * (sp.zeta(k) - 1) / k for k in range(2, ZETA_TERMS + 1)]
    polynomial = horner("p", zeta, "z")
    below_half: tuple[Stmt, ...] = (
        Let("z", Var("x")),
        *polynomial,
        Return((_op("sub", _op("fma", "z", "p", _op("neg", _op("log1p", "x"))), _op("log", "x")),)),
    )
    near_one: tuple[Stmt, ...] = (
        Let("z", _op("sub", "x", 1.0)),
        *polynomial,
        Return((_op("fma", "z", "p", _op("neg", _op("log1p", "z"))),)),
    )
    large: tuple[Stmt, ...] = (
        Let("lead", _op("fma", "x", _op("log", "x"), _op("neg", "x"))),
        Return((_op("add", "lead", _call("stirling_remainder", "x")),)),
    )
    down: tuple[Stmt, ...] = (Let("y", _op("sub", "y", 1.0)), Let("product", _op("mul", "product", "y")))
    body: tuple[Stmt, ...] = (
        If(_op("lt", "x", 0.5), below_half),
        If(_op("lt", "x", 1.5), near_one),
        If(_op("ge", "x", float(ASYMPTOTIC_FROM)), large),
        Let("y", Var("x")),
        Let("product", _num(1)),
        Loop(ASYMPTOTIC_FROM, _op("le", "y", 2.5), down),
        Let("z", _op("sub", "y", 2.0)),
        *polynomial,
        Return((_op("fma", "z", "p", _op("log", "product")),)),
    )
    return Function(
        "lgamma",
        ("x",),
        body,
        "ln Gamma(x), x > 0: zeta series about 2, upward or downward recurrence, Stirling from 10.",
    )


def stirling_bregman_function() -> Function:
    """(p − q)² ∫₀¹ (1 − s) R″(q + s(p − q)) ds for near arguments, by Gauss–Legendre; the definition for far ones."""
    from sympy.integrals.quadrature import gauss_legendre

    nodes, weights = gauss_legendre(GAUSS_NODES, 30)
    quadrature: list[Stmt] = [Let("total", _num(0))]
    for node, w in zip(nodes, weights, strict=True):
        s = (1 + node) / 2
        curvature = _call("stirling_remainder_2", _op("fma", _num(s), "h", "q"))
        quadrature.append(Let("total", _op("fma", _num(w / 2 * (1 - s)), curvature, "total")))
    near = (*quadrature, Return((_op("mul", _op("mul", "h", "h"), "total"),)))
    difference = _op("sub", _call("stirling_remainder", "p"), _call("stirling_remainder", "q"))
    far = Return((_op("fma", _op("neg", _call("stirling_remainder_1", "q")), "h", difference),))
    return Function(
        "stirling_bregman",
        ("p", "q"),
        (Let("h", _op("sub", "p", "q")), If(_op("lt", _op("abs", "h"), _op("mul", 0.5, "q")), near), far),
        "R(p) - R(q) - R'(q) (p - q) >= 0; near p = q as the integral of (p - t) R''(t), a sum of positive terms.",
    )


@cache
def library() -> dict[str, Function]:
    """Every special function, callees before callers."""
    functions = [
        x_minus_log1p_function(),
        ratio_divergence_function(),
        *stirling_functions(),
        *polygamma_functions(),
        lgamma_function(),
        stirling_bregman_function(),
    ]
    return {f.name: f for f in functions}
