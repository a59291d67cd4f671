"""Standard normals by counter: Philox 4×32-10, then Box–Muller by polynomials, as straight-line IR.

The counter is (block, step) and the key the seed, each of 64 bits, low word first: (c₀, c₁, c₂, c₃) = (block mod 2³²,
block div 2³², step mod 2³², step div 2³²), (k₀, k₁) likewise. So a normal depends on its address (seed, step,
coordinate) alone. A block gives four words: two pairs of float32 normals, or one pair of float64 ones whose words are
the first and the last two words joined, the earlier one on top.

A pair comes from two integers a, b of W bits (W = 32 or 64): the radius from u = fl(fl(⌊a/2⌋)/2^(W−1) + 2^−W) in
[2^−W, 1], and the angle from b: its two upper bits turn and exchange, the others are an angle in [−1/8, 1/8) of a turn.
So |ε| <= √(2W log 2), 6.66 in float32 and 9.42 in float64. Everything is
+ − × √ fma, select and integer operations: bit-identical wherever it is compiled. Source: Salmon et al., *Parallel
random numbers: as easy as 1, 2, 3*, SC 2011; Box & Muller 1958.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import mpmath as mp

from ..ir.nodes import Draw, Expr, Generator, Int, Let, Lit, Op, Var

LANES = 32  # a warp: every number of its blocks is one line of 128 bytes
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class FloatFormat:
    """Widths, √2 as bits, and the terms of the three polynomials of one type."""

    width: int
    fraction: int
    root_two: int
    log_terms: int
    sine_terms: int
    cosine_terms: int

    @property
    def unit(self) -> mp.mpf:
        """Half the spacing of numbers above 1."""
        return mp.mpf(2) ** -(self.fraction + 1)


SINGLE = FloatFormat(32, 23, 0x3FB504F3, 10, 4, 5)
DOUBLE = FloatFormat(64, 52, 0x3FF6A09E667F3BCD, 22, 8, 9)


def log_quotient(f: mp.mpf) -> mp.mpf:
    """−2 log(1 + f)/f."""
    return -2 * mp.log1p(f) / f if f else mp.mpf(-2)


def sine_quotient(z: mp.mpf) -> mp.mpf:
    """sin(2πy)/y at z = y²."""
    y = mp.sqrt(z)
    return mp.sin(2 * mp.pi * y) / y if y else 2 * mp.pi


def cosine(z: mp.mpf) -> mp.mpf:
    """cos(2πy) at z = y²."""
    return mp.cos(2 * mp.pi * mp.sqrt(z))


INTERVALS: dict[Callable[[mp.mpf], mp.mpf], tuple[float, float]] = {
    log_quotient: (0.5**0.5 - 1, 2**0.5 - 1),
    sine_quotient: (0.0, 1 / 64),
    cosine: (0.0, 1 / 64),
}


@cache
def polynomial(function: Callable[[mp.mpf], mp.mpf], terms: int) -> tuple[float, ...]:
    """Coefficients, lowest first, of the Chebyshev interpolant on the function's interval."""
    with mp.workdps(50):
        return tuple(float(c) for c in reversed(mp.chebyfit(function, INTERVALS[function], terms)))


def rounded(value: mp.mpf | float, p: FloatFormat) -> mp.mpf:
    """The nearest number of the type, ties to even (of numbers in its normal range)."""
    if value == 0:
        return mp.mpf(0)
    mantissa, exponent = mp.frexp(mp.mpf(value))
    scaled = mp.ldexp(mantissa, p.fraction + 1)
    return mp.ldexp(mp.nint(scaled), int(exponent) - p.fraction - 1)


def op(name: str, *args: Expr) -> Op:
    """An operation."""
    return Op(name, args)


class StraightLine:
    """Straight-line code under construction; every value gets a name of its own."""

    def __init__(self) -> None:
        self.body: list[Let] = []

    def let(self, stem: str, value: Expr) -> Var:
        """Name a value."""
        name = f"{stem}_{sum(s.name.rpartition('_')[0] == stem for s in self.body)}"
        self.body.append(Let(name, value))
        return Var(name)

    def horner(self, stem: str, coefficients: tuple[float, ...], x: Expr) -> Expr:
        """Σ cᵢxⁱ by fused multiply-adds, coefficients lowest first."""
        *rest, value = [Lit(repr(c)) for c in coefficients]
        total: Expr = value
        for c in reversed(rest):
            total = self.let(stem, op("fma", total, x, c))
        return total


def word(value: int) -> Int:
    """A 64-bit literal."""
    return Int(value, "word")


def bits(value: int) -> Int:
    """A literal as wide as a real."""
    return Int(value, "bits")


def philox(lines: StraightLine, counter: tuple[Expr, ...], key: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Philox 4×32-10 of a counter of four and a key of two words, each below 2³².

    Between rounds the upper halves of the words hold anything: they are cut off where a word is multiplied, which a
    multiplication of 32 by 32 bits does by itself.
    """

    def cut(value: Expr) -> Op:
        return op("iand", value, word(LOW))

    c, k = list(counter), list(key)
    for number in range(ROUNDS):
        if number:
            k = [lines.let(f"k{i}", cut(op("iadd", k[i], word(WEYL[i])))) for i in (0, 1)]
        low = [lines.let(f"p{i}", op("imul", cut(c[2 * i]), word(MULTIPLIERS[i]))) for i in (0, 1)]
        high = [op("ishr", p, word(32)) for p in low]
        c = [
            lines.let("c0", op("ixor", op("ixor", high[1], c[1]), k[0])),
            low[1],
            lines.let("c2", op("ixor", op("ixor", high[0], c[3]), k[1])),
            low[0],
        ]
    return tuple(cut(x) for x in c)


def halves(lines: StraightLine, stem: str, value: Expr) -> tuple[Expr, Expr]:
    """The lower and the upper 32 bits of a word, as words."""
    return (
        lines.let(stem, op("iand", value, word(LOW))),
        lines.let(stem, op("ishr", value, word(32))),
    )


def squared_radius(lines: StraightLine, u: Expr, p: FloatFormat) -> Expr:
    """−2 log u for 0 < u <= 1: u = 2⁻ᵏ(1 + f) with 1 + f in (√½, √2], f exact."""
    b = lines.let("b", op("bits", u))
    k = lines.let("k", op("ishr", op("isub", bits(p.root_two), b), bits(p.fraction)))
    scaled = op("from_bits", op("iadd", b, op("ishl", k, bits(p.fraction))))
    f = lines.let("f", op("sub", scaled, Lit("1.0")))
    quotient = lines.horner("l", polynomial(log_quotient, p.log_terms), f)
    two_log_two = Lit(repr(float(2 * mp.log(2))))
    return lines.let("t", op("fma", f, quotient, op("mul", op("real", k), two_log_two)))


def circle(lines: StraightLine, y: Expr, p: FloatFormat) -> tuple[Expr, Expr]:
    """(sin 2πy, cos 2πy) for |y| <= 1/8."""
    z = lines.let("z", op("mul", y, y))
    s = lines.horner("s", polynomial(sine_quotient, p.sine_terms), z)
    c = lines.horner("c", polynomial(cosine, p.cosine_terms), z)
    return lines.let("sin", op("mul", y, s)), c


def power(exponent: int) -> Lit:
    """2 to an integer power."""
    return Lit(repr(2.0**exponent))


def pair(lines: StraightLine, a: Expr, b: Expr, p: FloatFormat) -> tuple[Expr, Expr]:
    """Two independent standard normals from two independent uniform integers of W bits (kind `bits`)."""
    w = p.width
    u = lines.let("u", op("fma", op("real", op("ishr", a, bits(1))), power(1 - w), power(-w)))
    r = lines.let("r", op("sqrt", squared_radius(lines, u, p)))
    y = lines.let("y", op("fma", op("real", op("ishl", b, bits(2))), power(-w - 2), power(-w - 1)))
    sine, cosine = circle(lines, y, p)
    turned = lines.let("turned", op("select", op("lt", op("real", b), Lit("0.0")), op("neg", cosine), cosine))
    other = lines.let("other", op("real", op("ishl", b, bits(1))))
    exchanged = op("lt", other, Lit("0.0"))
    return (
        lines.let("e", op("mul", r, op("select", exchanged, sine, turned))),
        lines.let("e", op("mul", r, op("select", exchanged, turned, sine))),
    )


def draw(p: FloatFormat) -> Draw:
    """The normals of one block: four of float32 or two of float64."""
    lines = StraightLine()
    seed, step, block = (halves(lines, n, Var(n)) for n in ("seed", "step", "block"))
    words = philox(lines, (*block, *step), seed)
    if p.width == 64:
        words = tuple(op("ixor", op("ishl", words[i], word(32)), words[i + 1]) for i in (0, 2))
    low = [lines.let("word", op("low", w)) for w in words]
    count = len(lines.body)
    normals = [e for i in range(0, len(low), 2) for e in pair(lines, low[i], low[i + 1], p)]
    return Draw(tuple(lines.body[:count]), tuple(lines.body[count:]), tuple(normals))


@cache
def generator() -> Generator:
    """The package's generator of normals."""
    return Generator(
        "normals",
        ("seed", "step", "block"),
        LANES,
        draw(SINGLE),
        draw(DOUBLE),
        "r cos(2 pi v), r sin(2 pi v) with r = sqrt(-2 log u), of uniform u and v",
        "Salmon et al., SC 2011 (Philox 4x32-10); Box & Muller 1958",
    )
