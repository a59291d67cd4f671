"""Claims about special functions: their identities, and that each lowered algorithm equals its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import mpmath as mp
import sympy as sp

from ..calculus import special, tails
from ..ir.evaluate import Evaluator
from .claim import DIGITS, Claim, ClaimError, zero, zero_at_rationals
from .lowered import TRUNCATION

x = sp.Symbol("x", positive=True)
LITERALS = mp.mpf(10) ** -14  # relative: literals are float64
POSITIVE_ONLY = ("log_one_minus_exp", "bernoulli", "bernoulli_slope")
CROSSING_ZERO = ("ln", "lgamma", "digamma", "stirling_remainder")


def recurrences() -> str:
    """R(x) = R(x+1) + (x+1) log(1+1/x) − 1, and its first two derivatives, from Γ(x+1) = xΓ(x)."""
    r = special.stirling_remainder(x) - special.stirling_remainder(x + 1) - ((x + 1) * sp.log(1 + 1 / x) - 1)
    left = sp.expand_func(special.define(r))
    left = left.replace(sp.loggamma, lambda a: sp.log(sp.gamma(a))).rewrite(sp.gamma)
    zero(sp.expand_log(sp.simplify(sp.expand_func(left)), force=True), what="R")
    phi = 1 / x - sp.log(1 + 1 / x)
    first = special.define(special.stirling_remainder_1(x) - special.stirling_remainder_1(x + 1) + phi)
    second = special.define(
        special.stirling_remainder_2(x) - special.stirling_remainder_2(x + 1) - 1 / (x**2 * (x + 1))
    )
    return zero(sp.expand_func(first), sp.expand_func(second), what="R', R''")


def log_ratio() -> str:
    """φ(x) = x s − 2 (atanh s − s) with s = x/(2 + x)."""
    s = x / (2 + x)
    form = x * s - 2 * (sp.log((1 + s) / (1 - s)) / 2 - s)
    return zero(sp.expand_log(sp.simplify(form - (x - sp.log(1 + x))), force=True))


def shifted_divergence() -> str:
    """The shift of R's divergence by three steps, its recurrences as they are computed, and the divergence of a power.

    With B(p, q) of ln Γ for B(p, q) of R + p ln(p/q) − (p − q), a step of Γ's recurrence has φ(h/(q + k)).
    """
    n = 3
    p, q = sp.symbols("p q", positive=True)
    h, top, base = p - q, p + n, q + n
    g, e, u, v = h / base, h / top, 1 / base, 1 / top
    total, second, change = sp.S.Zero, sp.S.Zero, sp.S.Zero
    for k in range(n):
        t, r, c = (q + k) * u, (p + k) * v, (n - k) * h * u * v
        total += c / t
        second, change = (second * t + c * change, change * r + c * sp.prod([(q + j) * u for j in range(k)]))
    below = sp.prod([(q + k) * u for k in range(n)])
    ratio = sp.prod([(p + k) * v for k in range(n)]) / below
    rational = change / below + g * total - second / below + n * g
    powers = [
        v**m - u**m + m * u ** (m + 1) * h - g * e * sum((m - i) * u ** (m - i) * v**i for i in range(m))
        for m in range(1, 6)
    ]
    # logarithms of the shifted form, and those of the divergences of ln Γ and of x ln x
    shifted = p * sp.log((q * u) / (p * v)) - sp.log(ratio)
    moved = top * sp.log(top / base) - p * sp.log(p / q) - sum(sp.log((p + k) / (q + k)) for k in range(n))
    zero(shifted - moved, what="the logarithms")
    return zero_at_rationals(
        change / below + 1 - ratio,
        (change - second) / below - total,
        1 - n * g / p - (q * u) / (p * v),
        rational - sum(h / (q + k) for k in range(n)),
        *powers,
    )


@cache
def defined(name: str) -> Callable[..., mp.mpf]:
    """A special function from mpmath, by its definition."""
    direct = {"ln": mp.log, "digamma": mp.digamma, "trigamma": partial(mp.psi, 1)}
    if name in direct:
        return direct[name]
    (function,) = (k for k, v in special.FUNCTION_NAMES.items() if v == name)
    symbols = sp.symbols("x y", positive=True)[: next(iter(function.nargs))]
    found: Callable[..., mp.mpf] = sp.lambdify(symbols, special.define(function(*symbols)), "mpmath")
    return found


def series(name: str) -> str:
    """A lowered special function, run in exact arithmetic, equals its definition: relative error, absolute near a
    zero."""
    library = special.library()
    evaluator = Evaluator(tuple(library.values()))
    with mp.workdps(2 * DIGITS):
        points = [mp.mpf(10) ** (mp.mpf(k) / 4) for k in range(-16, 33)]
        ratios = [1 + sign * mp.mpf(10) ** -k for k in range(1, 12) for sign in (1, -1)] + [mp.mpf(3), mp.mpf("0.2")]
        pairs = {
            "stirling_bregman": [(r * q, q) for q in points[::4] for r in ratios],
            "ratio_divergence": [(r - 1, r) for r in ratios],
        }
        for args in pairs.get(name, [(p,) for p in points]):
            expected = defined(name)(*args)
            floor = mp.mpf(1) if name in CROSSING_ZERO else mp.mpf(0)
            miss = abs(evaluator.call(name, list(args)) - expected) / max(abs(expected), floor)
            if miss > TRUNCATION:
                raise ClaimError(f"{name} misses its definition by {mp.nstr(miss, 5)} at {mp.nstr(args[0], 8)}")
    return f"mpmath, {2 * DIGITS} digits, relative 1e-14, arguments 1e-4 to 1e8"


def tails_series(function: Any) -> str:
    """A function of losses, run as lowered, equals its definition on both tails; a relative error."""
    evaluator, name = Evaluator(tuple(tails.library().values())), function.__name__
    points = [s * mp.mpf(10) ** (mp.mpf(k) / 2) for k in range(-12, 4) for s in (1, -1)]
    if name in POSITIVE_ONLY:
        points = [abs(p) for p in points[::2]]
    plain = sp.lambdify(sp.Symbol("v"), function.definition(sp.Symbol("v")), "mpmath")
    with mp.workdps(20 * DIGITS):
        for p in points:
            expected = plain(p)
            if expected == 0:  # below the last of the digits
                continue
            with mp.workdps(DIGITS):
                miss = abs(evaluator.call(name, [p]) / expected - 1)
                if miss > LITERALS * max(1, p**2):
                    raise ClaimError(f"{name} misses its definition by {mp.nstr(miss, 5)} at {mp.nstr(p, 8)}")
    return f"mpmath, {20 * DIGITS} digits, relative 1e-14 (times x^2 where it falls as exp(-x^2/2)), |x| to 30"


def tails_derivatives() -> str:
    """Every derivative that `tails` states is the derivative of the definition."""
    u = sp.Symbol("u", positive=True)
    for function in special.Tailed.__subclasses__():
        try:
            stated = function(u).diff(u)
        except sp.ArgumentIndexError:
            continue
        if stated.has(sp.Derivative):
            continue
        gap = special.define(stated) - sp.diff(function.definition(u), u)
        for point in (sp.Rational(1, 7), sp.Rational(3, 2), sp.Integer(4)):
            if abs(sp.N(gap.subs(u, point), DIGITS)) > sp.Float(10) ** -40:
                raise ClaimError(f"{function.__name__}: its stated derivative is another's, at {point}")
    return f"{DIGITS} digits at 3 points"


def tail_claims() -> Iterator[Claim]:
    """Claims about the functions of losses."""
    source = "derive/calculus/tails.py"
    statement = r"\text{the stated derivatives are those of the definitions}"
    yield Claim("derivatives of losses' functions", "special", statement, tails_derivatives, source)
    for function in special.Tailed.__subclasses__():
        shown = rf"\text{{{function.__name__}: the lowered algorithm equals its definition}}".replace("_", r"\_")
        yield Claim(f"lowered {function.__name__}", "special", shown, partial(tails_series, function), source)


def claims() -> Iterator[Claim]:
    """Claims about special functions."""
    source = "derive/calculus/special.py"
    yield Claim(
        "recurrences of R",
        "special",
        r"R(x)=R(x+1)+(x+1)\log(1+\tfrac1x)-1 \text{ and derivatives}",
        recurrences,
        source,
    )
    yield Claim(
        "form of phi", "special", r"x-\log(1+x)=xs-2(\mathrm{artanh}\,s-s),\ s=\tfrac{x}{2+x}", log_ratio, source
    )
    statement = (
        r"B_R(p,q)=\phi(x)+ge\sum c_k-\bigl(x-e\sum c_k\bigr)-p\,\phi(-\tfrac{ng}{p})"
        r"+\tfrac12\phi(g)+B_{series}(p+n,q+n),\ "
        r"1+x=\prod\tfrac{(p+k)(q+n)}{(q+k)(p+n)}"
    )
    yield Claim("shifted divergence of R", "special", statement, shifted_divergence, "derive/calculus/stirling.py")
    for name in (
        "ln",
        "x_minus_log1p",
        "ratio_divergence",
        "stirling_bregman",
        "stirling_remainder",
        "stirling_remainder_1",
        "stirling_remainder_2",
        "lgamma",
        "digamma",
        "trigamma",
    ):
        yield Claim(
            f"lowered {name}",
            "special",
            rf"\text{{{name}: the lowered algorithm equals its definition}}".replace("_", r"\_"),
            partial(series, name),
            source,
        )
