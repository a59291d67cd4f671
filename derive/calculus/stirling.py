"""Functions around ln Γ as straight-line code, so that loops over them vectorise.

A logarithm splits its argument by its bits: x = 2⁻ᵏ(1 + f) with 1 + f in (√½, √2], log(1 + f) = 2 artanh s with
s = f/(2 + f). R, R′, R″ (`special`), ψ and the Bregman divergence of R are their asymptotic series from 10 on; below,
recurrences shift the argument up, one step for each whole number x + k < 10, and a step that is not needed leaves its
values as they are (`select`). Sums and products over the steps are kept as one fraction.

The divergence B of R at p = q + h is shifted by n steps to p′ = p + n and q′ = q + n. With c_k = (n − k)/(q + k),
e = h/p′, g = h/q′ and φ(x) = x − log(1 + x),

    B(p, q) = φ(x) + g e Σ c_k − (x − e Σ c_k) − p φ(−n g/p) + φ(g)/2 + B_series(p′, q′),
    1 + x = Π (1 + e c_k) = Π ((p + k) q′)/((q + k) p′),

where x and x − e Σ c_k are summed by recurrences of their own, the latter with the terms of second order alone. So
every term is of second order in h, and what is subtracted is smaller than what it is subtracted from by a factor, not
by digits. Where x is not small the first three terms are (1 + g) e Σ c_k − log(1 + x). A power of the series has, with
u = 1/q′ and v = 1/p′, v^m − u^m + m u^(m+1) h = g e Σ_{i<m} (m − i) u^(m−i) v^i, by Horner's rule in positive terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import sympy as sp

from ..ir.build import call, horner, num, op, part
from ..ir.nodes import Expr, Function, Int, Let, Return, Stmt

ASYMPTOTIC_FROM = 10
SERIES_TERMS = 10
DIVERGENCE_TERMS = 9  # of the series in a divergence: the tenth is 1e-16 of it
ARTANH_TERMS = 10
LEAST_NORMAL = 2.0**-1022
TINY = 2.0**-1000
"""Below it ln(y/x) is taken at x = 2^-1000, as y/x may overflow: x ln(y/x) and its share of R' are below 1e-297."""
LARGEST = float.fromhex("0x1.fffffffffffffp+1023")
ROOT_TWO = Int(0x3FF6A09E667F3BCD, "bits")  # √2
EXPONENT = Int(0xFFF0000000000000, "bits")  # sign and exponent
NOT_A_NUMBER = op("from_bits", Int(0x7FF8000000000000, "bits"))


def chosen(condition: Any, a: Any, b: Any) -> Expr:
    """a where the condition holds, else b; both are computed."""
    return op("select", condition, a, b)


def split(x: Any) -> list[Let]:
    """k and f of x = 2⁻ᵏ(1 + f)."""
    return [
        Let("word", op("bits", x)),
        Let("lifted", op("iand", op("isub", ROOT_TWO, "word"), EXPONENT)),
        Let("k", op("mul", op("real", "lifted"), 2.0**-52)),
        Let("f", op("sub", op("from_bits", op("iadd", "word", "lifted")), 1.0)),
    ]


def artanh() -> list[Let]:
    """s = f/(2 + f) and tail = 2(artanh s − s), so that log(1 + f) = 2s + tail = f − f s + tail."""
    return [
        Let("s", op("div", "f", op("add", "f", 2.0))),
        Let("square", op("mul", "s", "s")),
        *horner("tail", [sp.Rational(2, 2 * j + 3) for j in range(ARTANH_TERMS)], "square"),
        Let("tail", op("mul", op("mul", "s", "square"), "tail")),
    ]


def ln_function() -> Function:
    """log x; of a subnormal number by 2⁵⁴ x."""
    tiny = op("lt", "x", LEAST_NORMAL)
    value = op("fma", op("neg", "k"), sp.log(2), op("fma", 2.0, "s", "tail"))
    return Function(
        "ln",
        ("x",),
        (
            *split(chosen(tiny, op("mul", "x", 2.0**54), "x")),
            *artanh(),
            Let("k", chosen(tiny, op("add", "k", 54.0), "k")),
            Let("value", chosen(op("le", "x", 0.0), NOT_A_NUMBER, value)),
            Return((chosen(op("le", "x", LARGEST), "value", NOT_A_NUMBER),)),
        ),
        "log(x) of a positive number, without a branch; not a number elsewhere.",
    )


def ratio_divergence_function() -> Function:
    """φ of a ratio: f s − tail where the ratio is within √2 of 1, f being x as given."""
    near = op("fma", "f", "s", op("neg", "tail"))
    far = op("sub", op("fma", "k", sp.log(2), "x"), op("fma", 2.0, "s", "tail"))
    close = op("le", op("abs", "k"), 0.0)
    return Function(
        "ratio_divergence",
        ("x", "ratio"),
        (
            *split("ratio"),
            Let("f", chosen(close, "x", "f")),
            *artanh(),
            Return((chosen(close, near, far),)),
        ),
        "phi(x) = x - log(ratio) for x = ratio - 1, both given: a small ratio keeps the digits that 1 + x loses.",
    )


def asymptotic(order: int) -> list[sp.Rational]:
    """Coefficients of u = 1/x² in x^(order+1) R^(order)(x) beyond R's own −½ ln x + ½ ln 2π: Bernoulli numbers."""
    x = sp.Symbol("x", positive=True)
    terms = [sp.bernoulli(2 * k) / (2 * k * (2 * k - 1) * x ** (2 * k - 1)) for k in range(1, SERIES_TERMS + 1)]
    return [sp.diff(t, x, order) * x ** (2 * k - 1 + order) for k, t in enumerate(terms, start=1)]


def after(x: str, k: float) -> Expr:
    """x + k."""
    return op("add", x, k) if k else part(x)


def steps(of: str, updates: Callable[[float], Iterable[tuple[str, Expr]]]) -> list[Stmt]:
    """The shifts: for k = 0, 1, … the updates (name, new value), which take effect where `of` + k < 10."""
    lines: list[Stmt] = []
    for k in range(ASYMPTOTIC_FROM):
        lines.append(Let("inside", op("lt", of, float(ASYMPTOTIC_FROM - k))))
        for name, value in updates(float(k)):
            lines.append(Let(name, chosen("inside", value, name)))
    return lines


def log_growth() -> Expr:
    """ln(y/x) from x = 2^-1000 on, and its value there below."""
    return call("ln", op("div", "y", chosen(op("lt", "x", TINY), TINY, "x")))


def counted(of: str) -> list[Stmt]:
    """n, how many steps there are."""
    return [Let("n", num(0)), *steps(of, lambda k: [("n", num(k + 1))])]


def shifted(divided: bool) -> list[Stmt]:
    """y = x + n ≥ 10, u = 1/y, w = u², and over the steps `product` = Π (x + k) with `top`/`product` = Σ 1/(x + k), or
    (`divided`) `product` = Π (x + k)/y."""

    def terms(k: float) -> Iterable[tuple[str, Expr]]:
        t = after("x", k)
        if not divided:
            yield "top", op("fma", "top", t, "product")
        yield "product", op("mul", "product", op("mul", t, "u") if divided else t)

    return [
        *counted("x"),
        Let("y", op("add", "x", "n")),
        Let("u", op("div", 1.0, "y")),
        Let("w", op("mul", "u", "u")),
        *([] if divided else [Let("top", num(0))]),
        Let("product", num(1)),
        *steps("x", terms),
    ]


def remainder_function() -> Function:
    """R(x) = R(y) + x ln(y/x) − n − ln Π (x + k)/y: Γ's recurrence."""
    main = op("fma", -0.5, call("ln", "y"), sp.log(2 * sp.pi) / 2)
    moved = op("fma", "x", log_growth(), op("neg", "n"))
    return Function(
        "stirling_remainder",
        ("x",),
        (
            *shifted(divided=True),
            *horner("p", asymptotic(0), "w"),
            Let("shift", op("sub", moved, call("ln", "product"))),
            Return((op("add", "shift", op("fma", "u", "p", main)),)),
        ),
        "R(x) = ln Gamma(x) - x ln x + x, x > 0; R(x) = R(y) + x ln(y/x) - n - ln of the product of (x + k)/y, k < n, "
        "y = x + n, below 10.",
    )


def slope_function() -> Function:
    """R′(x) = R′(y) + ln(y/x) − Σ 1/(x + k)."""
    main = op("fma", "w", "p", op("mul", -0.5, "u"))
    moved = op("sub", log_growth(), op("div", "top", "product"))
    return Function(
        "stirling_remainder_1",
        ("x",),
        (
            *shifted(divided=False),
            *horner("p", asymptotic(1), "w"),
            Let("moved", moved),
            Return((op("add", main, "moved"),)),
        ),
        "R'(x) = digamma(x) - ln x, x > 0; R'(x) = R'(x + n) - sum of 1/(x + k) for k < n + ln((x + n)/x) below 10.",
    )


def digamma_function() -> Function:
    """ψ by its own shift, which needs one logarithm where R′ and ln need two."""
    main = op("fma", "w", "p", op("mul", -0.5, "u"))
    value = op("add", op("sub", call("ln", "y"), op("div", "top", "product")), main)
    return Function(
        "digamma",
        ("x",),
        (*shifted(divided=False), *horner("p", asymptotic(1), "w"), Return((value,))),
        "digamma(x), x > 0; digamma(x) = digamma(x + n) - sum of 1/(x + k) for k < n below 10.",
    )


def curvature_function() -> Function:
    """R″(x) = R″(y) + Σ 1/((x + k)²(x + k + 1))."""

    def terms(k: float) -> Iterable[tuple[str, Expr]]:
        t = after("x", k)
        cube = op("mul", op("mul", t, t), op("add", "x", k + 1))
        yield "top", op("fma", "top", cube, "product")
        yield "product", op("mul", "product", cube)

    return Function(
        "stirling_remainder_2",
        ("x",),
        (
            *counted("x"),
            Let("top", num(0)),
            Let("product", num(1)),
            *steps("x", terms),
            Let("u", op("div", 1.0, op("add", "x", "n"))),
            Let("w", op("mul", "u", "u")),
            *horner("p", asymptotic(2), "w"),
            Return((op("fma", "w", op("fma", "u", "p", 0.5), op("div", "top", "product")),)),
        ),
        "R''(x) = trigamma(x) - 1/x, x > 0; R''(x) = R''(x + 1) + 1/(x^2 (x + 1)) below 10.",
    )


def bregman_series() -> list[Stmt]:
    """`series` = Σ_m c_m Σ_{i<m} (m − i) u^(m−i) v^i over the odd powers m of the asymptotic series."""
    first, *rest = asymptotic(0)[:DIVERGENCE_TERMS]
    lines: list[Stmt] = [Let(name, part("u")) for name in ("power", "geometric", "weighted")]
    lines.append(Let("series", op("mul", first, "u")))
    for c in rest:
        for _ in range(2):
            lines.append(Let("power", op("mul", "power", "u")))
            lines.append(Let("geometric", op("fma", "v", "geometric", "power")))
            lines.append(Let("weighted", op("fma", "u", "weighted", "geometric")))
        lines.append(Let("series", op("fma", c, "weighted", "series")))
    return lines


def divergence_function() -> Function:
    """R(p) − R(q) − R′(q)(p − q), as the module's docstring has it."""

    def terms(k: float) -> Iterable[tuple[str, Expr]]:
        t = op("mul", after("q", k), "u")
        r = op("mul", after("p", k), "v")
        c = op("mul", op("sub", "n", k) if k else "n", "unit")
        yield "second", op("fma", "second", t, op("mul", c, "change"))
        yield "change", op("fma", "change", r, op("mul", c, "below"))
        yield "first", op("fma", "first", t, op("mul", c, "below"))
        yield "below", op("mul", "below", t)
        yield "above", op("mul", "above", r)

    sums = ("first", "second", "change")
    ends = op("div", op("mul", "q", "u"), op("mul", "p", "v"))
    return Function(
        "stirling_bregman",
        ("p", "q"),
        (
            Let("h", op("sub", "p", "q")),
            Let("least", chosen(op("lt", "p", "q"), "p", "q")),
            *counted("least"),
            Let("base", op("add", "q", "n")),
            Let("top", op("add", "p", "n")),
            Let("u", op("div", 1.0, "base")),
            Let("v", op("div", 1.0, "top")),
            Let("g", op("div", "h", "base")),
            Let("unit", op("mul", op("mul", "h", "v"), "u")),
            Let("ratio", op("mul", "top", "u")),
            *[Let(name, num(0)) for name in sums],
            Let("below", num(1)),
            Let("above", num(1)),
            *steps("least", terms),
            Let("change", op("div", "change", "below")),
            Let("over", op("div", 1.0, "below")),
            *[Let(name, op("mul", name, "over")) for name in sums[:2]],
            Let("close", op("lt", op("abs", op("sub", "change", 0.5)), 1.3)),
            Let("total", op("fma", "g", "first", op("neg", "second"))),
            Let("total", op("add", _phi("change", op("add", "change", 1.0)), "total")),
            Let("apart", op("fma", "ratio", "first", op("neg", call("ln", op("mul", "above", "over"))))),
            Let("total", chosen("close", "total", "apart")),
            Let("moved", op("div", op("mul", "n", "g"), "p")),
            Let("total", op("fma", op("neg", "p"), _phi(op("neg", "moved"), ends), "total")),
            Let("total", op("fma", 0.5, _phi("g", "ratio"), "total")),
            *bregman_series(),
            Return((op("fma", op("mul", "g", op("mul", "h", "v")), "series", "total"),)),
        ),
        "R(p) - R(q) - R'(q) (p - q) >= 0, shifted to arguments from 10 on; every term is of second order in p - q.",
    )


def _phi(x: Any, ratio: Any) -> Expr:
    return call("ratio_divergence", x, ratio)


@cache
def library() -> dict[str, Function]:
    """The functions of this module, callees before callers."""
    found = [
        ln_function(),
        ratio_divergence_function(),
        remainder_function(),
        slope_function(),
        curvature_function(),
        digamma_function(),
        divergence_function(),
    ]
    return {f.name: f for f in found}
