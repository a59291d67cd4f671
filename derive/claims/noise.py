"""Claims about the normals: their polynomials meet their bounds, and the lowered pairs are Box–Muller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import mpmath as mp

from ..ir.evaluate import Evaluator, Word
from ..ir.nodes import Var
from ..lower import noise
from ..lower.noise import DOUBLE, INTERVALS, SINGLE, FloatFormat
from .claim import DIGITS, Claim, ClaimError

GRID = 2000


def polynomial_error(function: Callable[[mp.mpf], mp.mpf], terms: int, p: FloatFormat) -> mp.mpf:
    """Largest relative error of a polynomial with its coefficients rounded to the type, over its whole interval."""
    low, high = (mp.mpf(x) for x in INTERVALS[function])
    coefficients = [noise.rounded(c, p) for c in reversed(noise.polynomial(function, terms))]
    points = (low + (high - low) * k / GRID for k in range(GRID + 1))
    return max(abs(mp.polyval(coefficients, x) / function(x) - 1) for x in points)


def polynomials(p: FloatFormat) -> str:
    """Each polynomial is within one unit roundoff of its function."""
    with mp.workdps(DIGITS):
        bounds = [
            polynomial_error(f, n, p) / p.unit
            for f, n in (
                (noise.log_quotient, p.log_terms),
                (noise.sine_quotient, p.sine_terms),
                (noise.cosine, p.cosine_terms),
            )
        ]
        if max(bounds) > 1:
            raise ClaimError(f"a polynomial misses its function by {mp.nstr(max(bounds), 3)} units")
        listed = ", ".join(mp.nstr(b, 2) for b in bounds)
    return f"mpmath, {DIGITS} digits on {GRID} intervals: {listed} of a unit"


def box_muller(p: FloatFormat) -> str:
    """The lowered pair, run in exact arithmetic but for the roundings of u, is Box–Muller's of its integers."""
    evaluator, lines = Evaluator((), width=p.width), noise.StraightLine()
    pair = noise.pair(lines, Var("low"), Var("high"), p)
    top = 2**p.width
    words = [0, 1, 2, 3, top // 3, top // 2 - 1, top // 2, top - 2, top - 1, *(k * top // 97 for k in range(1, 97, 7))]
    with mp.workdps(DIGITS):
        for a in words:
            for b in words:
                env = {"low": Word(a, p.width), "high": Word(b, p.width)}
                evaluator.run(tuple(lines.body), env)
                for got, want in zip([evaluator.expr(e, env) for e in pair], exact_pair(a, b, p), strict=True):
                    if abs(got - want) > 4 * p.unit * abs(want):
                        raise ClaimError(f"the pair of ({a}, {b}) gives {mp.nstr(got, 20)}, not {mp.nstr(want, 20)}")
    return f"mpmath, {DIGITS} digits at {len(words)} x {len(words)} pairs of integers, their ends among them"


def even_angles(p: FloatFormat) -> str:
    """Integers spread evenly over their range give angles spread evenly over the circle, all of them different."""
    count, top = 64, 2**p.width
    with mp.workdps(DIGITS):
        pairs = [exact_pair(top // 2, k * top // count + top // (2 * count) - 1, p) for k in range(count)]
        turns = sorted(mp.atan2(y, x) / (2 * mp.pi) % 1 for x, y in pairs)
        gaps = [b - a for a, b in zip(turns, [*turns[1:], turns[0] + 1], strict=True)]
        worst = max(abs(gap * count - 1) for gap in gaps)
        if worst > mp.mpf(2) ** (8 - p.width):
            raise ClaimError(f"angles are uneven by {mp.nstr(worst, 5)}")
    return f"mpmath, {DIGITS} digits at {count} integers"


def exact_pair(a: int, b: int, p: FloatFormat) -> tuple[mp.mpf, mp.mpf]:
    """Box–Muller of u, rounded as the kernels do, and of the angle of b, within an eighth of a turn of an axis."""
    u = noise.rounded(noise.rounded(a >> 1, p) * mp.mpf(2) ** (1 - p.width) + mp.mpf(2) ** -p.width, p)
    r = mp.sqrt(-2 * mp.log(u))
    low = (b << 2) % 2**p.width
    signed = low - 2**p.width if low >> (p.width - 1) else low
    turn = (mp.mpf(signed) + 2) / mp.mpf(2) ** (p.width + 2)
    sine, cosine = mp.sin(2 * mp.pi * turn), mp.cos(2 * mp.pi * turn)
    cosine = -cosine if b >> (p.width - 1) else cosine
    return (r * sine, r * cosine) if b >> (p.width - 2) & 1 else (r * cosine, r * sine)


def claims(target: str) -> Iterator[Claim]:
    """Claims about the generator that is called `target`."""
    for name, p in (("float32", SINGLE), ("float64", DOUBLE)):
        bound = rf"\text{{{name}: relative error of the three polynomials}}\le2^{{-{p.fraction + 1}}}"
        yield Claim(f"normals: polynomials in {name}", "ivon", bound, partial(polynomials, p), "derive/lower/noise.py")
        statement = rf"\text{{{name}: the lowered pair is }}(r\cos\phi,r\sin\phi)\text{{ of its integers}}"
        prove = partial(box_muller, p)
        yield Claim(f"normals: pairs in {name}", "ivon", statement, prove, "derive/lower/noise.py", (target,))
        statement = rf"\text{{{name}: }}\phi\text{{ of uniform integers is uniform on the circle}}"
        yield Claim(f"normals: angles in {name}", "ivon", statement, partial(even_angles, p), "derive/lower/noise.py")
