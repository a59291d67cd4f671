"""Functions of losses that keep their digits on both tails, each with its derivative in functions that do.

softplus(x) = log(1 + eˣ)                           softplus′ = logistic
logistic(x) = 1/(1 + e⁻ˣ)                           logistic′ = logistic(x) logistic(−x)
log_normal_cdf(x) = log Φ(x)                        log_normal_cdf′ = mills, the inverse Mills ratio φ/Φ
mills(x) = φ(x)/Φ(x)                                mills′ = −mills(x) mills_excess(x)
mills_excess(x) = x + mills(x) > 0                  falls as −1/x for x → −∞
log_one_minus_exp(u) = log(1 − e⁻ᵘ), u > 0          its derivative is bernoulli(u)/u
log_event(x) = log(1 − exp(−eˣ))                    log_event′ = bernoulli(eˣ)
bernoulli(u) = u/(eᵘ − 1)                           bernoulli′ = bernoulli_slope(u)/u
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import mpmath as mp
import sympy as sp

from ..ir.build import call, horner, num, op
from ..ir.evaluate import Evaluator
from ..ir.nodes import Expr, Function, If, Let, Loop, Return, Stmt, Var
from .special import Tailed, log1p

MILLS_FROM = 3.0  # beyond it the continued fraction converges within MILLS_STEPS
MILLS_STEPS = 60
BERNOULLI_NEAR = 1.0  # below it the series is summed, a sixth of the way to its nearest pole 2πi
BERNOULLI_TERMS = 12
LARGEST_EXPONENT = 700.0
UNDERFLOWING = -37.0  # below it eˣ/2 is less than half a unit of x


class softplus(Tailed):
    """log(1 + eˣ)."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return sp.log(1 + sp.exp(x))

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return logistic(self.args[0])


class logistic(Tailed):
    """1/(1 + e⁻ˣ)."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return 1 / (1 + sp.exp(-x))

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return logistic(self.args[0]) * logistic(-self.args[0])


def normal_cdf(x: sp.Expr) -> sp.Expr:
    """Φ(x)."""
    return sp.erfc(-x / sp.sqrt(2)) / 2


class log_normal_cdf(Tailed):
    """log Φ(x)."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return sp.log(normal_cdf(x))

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return mills(self.args[0])


class mills(Tailed):
    """φ(x)/Φ(x)."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return sp.exp(-(x**2) / 2) / (sp.sqrt(2 * sp.pi) * normal_cdf(x))

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return -mills(self.args[0]) * mills_excess(self.args[0])


class mills_excess(Tailed):
    """x + φ(x)/Φ(x)."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return x + mills.definition(x)


class log_one_minus_exp(Tailed):
    """log(1 − e⁻ᵘ), u > 0."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return sp.log(1 - sp.exp(-x))

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return bernoulli(self.args[0]) / self.args[0]


class log_event(Tailed):
    """log(1 − exp(−eˣ)), which is x far below 0."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return sp.log(1 - sp.exp(-sp.exp(x)))

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return bernoulli(sp.exp(self.args[0]))


class bernoulli(Tailed):
    """u/(eᵘ − 1)."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        return x / (sp.exp(x) - 1)

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return bernoulli_slope(self.args[0]) / self.args[0]


class bernoulli_slope(Tailed):
    """u times the derivative of u/(eᵘ − 1)."""

    @staticmethod
    def definition(x: sp.Expr) -> sp.Expr:
        u = sp.Symbol("u")
        return (u * sp.diff(bernoulli.definition(u), u)).subs(u, x)


def numeric(expr: sp.Expr, symbols: Sequence[sp.Symbol]) -> Callable[..., Any]:
    """A function of mpmath numbers for an expression in this module's functions, which run as they are lowered."""
    evaluator = Evaluator(tuple(library().values()))
    own = {f.__name__: partial(_called, evaluator, f.__name__) for f in Tailed.__subclasses__()}
    found: Callable[..., Any] = sp.lambdify(symbols, expr, [own | {"log1p": mp.log1p}, "mpmath"])
    return found


def _called(evaluator: Evaluator, name: str, value: Any) -> Any:
    return evaluator.call(name, [value])


def stable(expr: sp.Expr) -> sp.Expr:
    """The expression with the patterns that lose digits on a tail in functions that keep them; an identity each."""
    return _quotients(expr.replace(sp.log, _stable_log))


def _quotients(e: sp.Expr) -> sp.Expr:
    """eᵏˣ(1 + eˣ)⁻ⁿ with k between 0 and n by the logistic function: neither of the two powers may overflow.

    From the outside in, so that a power of 1 + eˣ is met together with the exponentials that it is multiplied by.
    """
    if not e.has(sp.exp) or isinstance(e, sp.exp):
        return e
    if isinstance(e, sp.Mul | sp.Pow):
        factors = list(sp.Mul.make_args(e))
        for below in factors:
            base, power = below.as_base_exp()
            x = (base - 1).args[0] if isinstance(base - 1, sp.exp) else None
            if x is None or not power.is_Rational:
                continue
            shares = {f: sp.cancel(f.args[0] / x) for f in factors if isinstance(f, sp.exp)}
            grown = [f for f, share in shares.items() if share.is_Rational]
            k, n = sum((shares[f] for f in grown), sp.S.Zero), -power
            if min(0, n) <= k <= max(0, n):
                rest = sp.Mul(*[f for f in factors if f is not below and f not in grown])
                return _quotients(rest) * logistic(x) ** k * logistic(-x) ** (n - k)
    return e.func(*[_quotients(a) for a in e.args])


def _stable_log(u: sp.Expr) -> sp.Expr:
    """log u: of 1 + eˣ and c + eˣ, of Φ, of 1 − e⁻ˣ with x > 0, of 1 + x² and the like; else as it stands."""
    error = 2 * u - 1
    if error.as_coeff_Mul()[0] in (1, -1) and isinstance(error.as_coeff_Mul()[1], sp.erf):
        sign, erf = error.as_coeff_Mul()
        return log_normal_cdf(sp.sqrt(2) * sign * erf.args[0])
    terms = sp.Add.make_args(u)
    exponentials = [t for t in terms if isinstance(t, sp.exp)]
    falling = [t for t in terms if isinstance(-t, sp.exp)]
    rest = u - sum(exponentials) - sum(falling)
    if len(terms) == 2 and len(exponentials) == 1 and rest.is_positive:
        return sp.log(rest) + softplus(exponentials[0].args[0] - sp.log(rest))
    if len(terms) == 2 and len(falling) == 1 and rest == 1 and (-falling[0]).args[0].could_extract_minus_sign():
        inner = -(-falling[0]).args[0]
        return log_event(inner.args[0]) if isinstance(inner, sp.exp) else log_one_minus_exp(inner)
    if len(terms) == 2 and 1 in terms and (u - 1).is_nonnegative:
        return log1p(u - 1)
    if len(terms) == 2 and u.is_rational_function() and any(t.could_extract_minus_sign() for t in terms):
        quotient = sp.cancel(u)  # 1 − 1/(1 + x) = x/(1 + x) has no difference
        return stable(sp.expand_log(sp.log(quotient), force=True)) if quotient != u else sp.log(u)
    return sp.log(u)


def _logistic_functions() -> list[Function]:
    tail = Let("t", op("exp", op("neg", op("abs", "x"))))
    positive = op("select", op("lt", "x", 0.0), 0.0, "x")
    return [
        Function(
            "softplus",
            ("x",),
            (tail, Return((op("add", positive, op("log1p", "t")),))),
            "log(1 + e^x) = max(x, 0) + log(1 + e^-|x|).",
        ),
        Function(
            "logistic",
            ("x",),
            (
                tail,
                Let("upper", op("div", 1.0, op("add", 1.0, "t"))),
                Return((op("select", op("lt", "x", 0.0), op("mul", "t", "upper"), "upper"),)),
            ),
            "1/(1 + e^-x): 1/(1 + t) or t/(1 + t) with t = e^-|x|.",
        ),
    ]


def _normal_functions() -> list[Function]:
    """Φ's logarithm and its derivatives: Laplace's continued fraction far below 0, erfc elsewhere."""
    half = op("mul", 0.5, op("erfc", op("mul", -sp.sqrt(2) / 2, "x")))
    density = op("mul", 1 / sp.sqrt(2 * sp.pi), op("exp", op("mul", op("mul", -0.5, "x"), "x")))
    far, log_root = op("lt", "x", -MILLS_FROM), sp.log(2 * sp.pi) / 2
    fraction: tuple[Stmt, ...] = (
        Let("tail", op("neg", "x")),
        Let("k", num(MILLS_STEPS)),
        Loop(
            MILLS_STEPS,
            op("le", "k", 1.0),
            (Let("tail", op("sub", op("div", "k", "tail"), "x")), Let("k", op("sub", "k", 1.0))),
        ),
        Return((op("div", 1.0, "tail"),)),
    )
    squared = op("mul", op("mul", -0.5, "x"), "x")
    return [
        Function(
            "mills_excess",
            ("x",),
            (If(far, fraction), Return((op("add", "x", op("div", density, half)),))),
            "x + phi(x)/Phi(x) > 0; below -3 Laplace's continued fraction 1/(y + 2/(y + 3/(y + ...))), y = -x.",
        ),
        Function(
            "mills",
            ("x",),
            (
                If(far, (Return((op("sub", call("mills_excess", "x"), "x"),)),)),
                Return((op("div", density, half),)),
            ),
            "phi(x)/Phi(x), the inverse Mills ratio.",
        ),
        Function(
            "log_normal_cdf",
            ("x",),
            (
                If(
                    far,
                    (Return((op("sub", op("sub", squared, log_root), op("log", call("mills", "x"))),)),),
                ),
                If(
                    op("lt", "x", 0.0),
                    (Return((op("log", half),)),),
                ),
                Return((op("log1p", op("mul", -0.5, op("erfc", op("mul", sp.sqrt(2) / 2, "x")))),)),
            ),
            "log Phi(x): log phi(x) - log(phi(x)/Phi(x)) far below 0, log(1 - Phi(-x)) above.",
        ),
    ]


def _bernoulli_functions() -> list[Function]:
    """u/(eᵘ − 1) and its derivative; Bernoulli numbers near 0, where the derivative cancels."""
    numbers = [sp.bernoulli(2 * k) / sp.factorial(2 * k) for k in range(1, BERNOULLI_TERMS + 1)]
    slope = [2 * k * c for k, c in enumerate(numbers, start=1)]  # of u^(2k-1)
    beyond = op("lt", LARGEST_EXPONENT, "x")
    zero: Expr = num(0)
    near: tuple[Stmt, ...] = (
        Let("w", op("mul", "x", "x")),
        *horner("p", slope, "w"),
        Return((op("mul", "x", op("fma", "x", "p", -0.5)),)),
    )
    return [
        Function(
            "bernoulli",
            ("x",),
            (
                If(beyond, (Return((zero,)),)),
                If(op("le", op("abs", "x"), 0.0), (Return((num(1),)),)),
                Return((op("div", "x", op("expm1", "x")),)),
            ),
            "x/(e^x - 1), x >= 0; 1 at 0.",
        ),
        Function(
            "bernoulli_slope",
            ("x",),
            (
                If(beyond, (Return((zero,)),)),
                If(op("lt", "x", BERNOULLI_NEAR), near),
                Let("e", op("expm1", "x")),
                Let("slope", op("div", op("sub", 1.0, op("add", "x", op("div", "x", "e"))), "e")),
                Return((op("mul", "x", "slope"),)),
            ),
            "x times the derivative of x/(e^x - 1), x >= 0; Bernoulli numbers below 1.",
        ),
        Function(
            "log_one_minus_exp",
            ("x",),
            (
                If(
                    op("lt", "x", sp.log(2)),
                    (Return((op("log", op("neg", op("expm1", op("neg", "x")))),)),),
                ),
                Return((op("log1p", op("neg", op("exp", op("neg", "x")))),)),
            ),
            "log(1 - e^-x), x > 0.",
        ),
        Function(
            "log_event",
            ("x",),
            (
                If(op("lt", "x", UNDERFLOWING), (Return((Var("x"),)),)),
                Return((call("log_one_minus_exp", op("exp", "x")),)),
            ),
            "log(1 - exp(-e^x)); x far below 0, where it differs by e^x/2.",
        ),
    ]


@cache
def library() -> dict[str, Function]:
    """The functions of this module, callees before callers."""
    functions = [*_logistic_functions(), *_normal_functions(), *_bernoulli_functions()]
    return {f.name: f for f in functions}
