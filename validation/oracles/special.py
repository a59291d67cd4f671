"""Special functions that kernels export for a user's own compiled code, at 50 digits, and where they are hard.

A function's error is relative to its value; where the value passes through zero, to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from ..calls import Array
from ..points import generator

Arguments = tuple[float, ...]
Regions = Mapping[str, Sequence[Arguments]]


@dataclass(frozen=True)
class Special:
    """A function, its test points by region, its tolerance, and where its error is absolute."""

    value: Callable[..., Any]
    regions: Callable[[int], Regions]
    tolerance: float = 1e-14
    absolute: tuple[float, float] = (0.0, 0.0)  # of the first argument


def single(points: Array) -> list[Arguments]:
    """Points of one argument."""
    return [(x,) for x in points.tolist()]


def pairs(first: Array, second: Array) -> list[Arguments]:
    """Points of two arguments."""
    return list(zip(first.tolist(), second.tolist(), strict=True))


def positive(count: int) -> Regions:
    """Positive numbers of every size, around the zeros of lgamma and digamma, and where recurrences change length."""
    rng = generator("special", count)
    offsets = np.concatenate([sign * 2.0 ** -np.arange(1.0, 50.0) for sign in (-1.0, 1.0)])
    zeros = np.concatenate([centre + offsets for centre in (1.0, 2.0, 1.4616321449683622)])
    steps = np.arange(1.0, 40.5, 0.5)
    seams = np.concatenate([steps, np.nextafter(steps, 0.0), np.nextafter(steps, np.inf)])
    return {
        "1e-4 .. 1e8": single(10.0 ** rng.uniform(-4.0, 8.0, count)),
        "0.2 .. 40": single(rng.uniform(0.2, 40.0, count)),
        "around the zeros": single(zeros[zeros > 0.0]),
        "integers, half-integers and their neighbours": single(seams),
        "beyond, 1e-30 .. 1e30": single(10.0 ** rng.uniform(-30.0, 30.0, count // 2)),
    }


def above_minus_one(count: int) -> Regions:
    """x > -1: tiny ones of either sign, the seams at 0.4, and large ones."""
    rng = generator("above -1", count)
    tiny = 10.0 ** rng.uniform(-12.0, -1.0, count) * rng.choice((-1.0, 1.0), count)
    return {
        "tiny, of either sign": single(tiny),
        "-0.99 .. 2": single(rng.uniform(-0.99, 2.0, count)),
        "up to 1e12": single(10.0 ** rng.uniform(0.0, 12.0, count // 2)),
    }


def ratios(count: int) -> Regions:
    """(ratio - 1, ratio) with the difference formed exactly where it is small."""
    rng = generator("ratios", count)
    ratio = 10.0 ** rng.uniform(-8.0, 8.0, count)
    return {"ratios 1e-8 .. 1e8": pairs(ratio - 1.0, ratio)}


def neighbouring(count: int) -> Regions:
    """(p, q): near each other, where the difference cancels, and apart."""
    rng = generator("neighbouring", count)
    q = 10.0 ** rng.uniform(-4.0, 8.0, count)
    near = q * (1.0 + 10.0 ** rng.uniform(-8.0, -0.31, count) * rng.choice((-1.0, 1.0), count))
    return {
        "near each other": pairs(near, q),
        "apart": pairs(10.0 ** rng.uniform(-4.0, 8.0, count), 10.0 ** rng.uniform(-4.0, 8.0, count)),
    }


def gaps(count: int) -> Regions:
    """log x - digamma(x) of shapes 1e-4 .. 1e8."""
    rng = generator("gaps", count)
    return {"gaps 1e-8 .. 1e4": single(10.0 ** rng.uniform(-8.0, 4.0, max(count // 8, 8)))}


def either_side(count: int) -> Regions:
    """Numbers of either sign up to where one tail has vanished."""
    rng = generator("either side", count)
    return {
        "-40 .. 40": single(rng.uniform(-40.0, 40.0, count)),
        "tiny": single(10.0 ** rng.uniform(-12.0, 0.0, count) * rng.choice((-1.0, 1.0), count)),
        "as far as exp reaches": single(rng.uniform(-700.0, 700.0, count // 2)),
    }


def decaying(count: int) -> Regions:
    """Positive numbers, of which exp(-x) is left."""
    rng = generator("decaying", count)
    return {"1e-8 .. 500": single(10.0 ** rng.uniform(-8.0, np.log10(500.0), count))}


def shifted(lines: bool) -> Callable[[int], Regions]:
    """(p, q) near each other and apart: anywhere on the line, or positive."""

    def regions(count: int) -> Regions:
        rng = generator("shifted", count, lines)
        q = rng.uniform(-30.0, 30.0, count) if lines else 10.0 ** rng.uniform(-3.0, 1.5, count)
        size = 10.0 ** rng.uniform(-7.0, 0.0, count) * rng.choice((-1.0, 1.0), count)
        far = rng.uniform(-30.0, 30.0, count) if lines else 10.0 ** rng.uniform(-3.0, 1.5, count)
        return {"near each other": pairs(q + (size if lines else 0.9 * q * size), q), "apart": pairs(far, q)}

    return regions


def bregman(value: Callable[[Any], Any], slope: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """f(p) - f(q) - f'(q) (p - q)."""
    return lambda p, q: value(p) - value(q) - slope(q) * (p - q)


def softplus(x: Any) -> Any:
    """log(1 + e^x)."""
    return mpmath.log1p(mpmath.exp(x))


def logistic(x: Any) -> Any:
    """1/(1 + e^-x)."""
    return 1 / (1 + mpmath.exp(-x))


def escape(x: Any) -> Any:
    """-log(1 - e^-x)."""
    return -mpmath.log1p(-mpmath.exp(-x))


def remainder(x: Any, order: int = 0) -> Any:
    """R(x) = ln Gamma(x) - x ln x + x and its first two derivatives."""
    if order == 0:
        return mpmath.loggamma(x) - x * mpmath.log(x) + x
    return mpmath.digamma(x) - mpmath.log(x) if order == 1 else mpmath.psi(1, x) - 1 / x


def shape(gap: Any) -> Any:
    """The x with log x - digamma(x) = gap, between 1/(2 gap) and 1/gap (Alzer 1997)."""
    low, high = mpmath.log(mpmath.mpf("0.49") / gap), mpmath.log(mpmath.mpf("1.01") / gap)
    found = mpmath.findroot(
        lambda t: mpmath.log(t - mpmath.digamma(mpmath.exp(t))) - mpmath.log(gap), (low, high), solver="anderson"
    )
    return mpmath.exp(found)


SPECIAL: Mapping[str, Special] = {
    "lgamma": Special(mpmath.loggamma, positive, absolute=(0.5, 2.5)),
    "digamma": Special(mpmath.digamma, positive, absolute=(1.0, 2.0)),
    "trigamma": Special(lambda x: mpmath.psi(1, x), positive),
    "ln": Special(mpmath.log, positive, absolute=(0.9, 1.1)),
    "x_minus_log1p": Special(lambda x: x - mpmath.log1p(x), above_minus_one),
    "ratio_divergence": Special(lambda x, ratio: x - mpmath.log(ratio), ratios, tolerance=1e-13),
    "stirling_remainder": Special(remainder, positive, absolute=(0.0, np.inf)),
    "stirling_remainder_1": Special(lambda x: remainder(x, 1), positive),
    "stirling_remainder_2": Special(lambda x: remainder(x, 2), positive),
    "stirling_bregman": Special(
        lambda p, q: remainder(p) - remainder(q) - remainder(q, 1) * (p - q), neighbouring, tolerance=1e-13
    ),
    "shape_from_gap": Special(shape, gaps, tolerance=1e-13),
    "guarded": Special(lambda x, _condition: x, shifted(False)),
    "positive_part": Special(lambda x: max(x, mpmath.mpf(0)), either_side),
    "softplus": Special(softplus, either_side),
    "logistic": Special(logistic, either_side),
    "log_one_minus_exp": Special(lambda x: -escape(x), decaying),
    "exp_bregman": Special(bregman(mpmath.exp, mpmath.exp), shifted(True), tolerance=1e-13),
    "softplus_bregman": Special(bregman(softplus, logistic), shifted(True), tolerance=1e-13),
    "escape_bregman": Special(bregman(escape, lambda x: -1 / mpmath.expm1(x)), shifted(False), tolerance=1e-13),
}
