"""The mathematics of likelihoods: from f(a; y, …) to derivatives, Gaussian expectations, growth and convexity.

f is split into terms. A term that is a polynomial or an exponential of a, or piecewise polynomial, has expectations in
closed form, which SymPy integrates. Every other term is written as c·g(αa + β), g a function of one number alone, the
same for all rows: E[g] is left to the trapezoidal rule, whose step follows from the singularity of g that is nearest
to the real axis. Derivatives of E[f] in the mean of a are E[f′] and E[f″].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from .likelihood import Likelihood, LikelihoodError
from .special import define
from .tails import numeric, stable

x = sp.Symbol("x", real=True)
center = sp.Symbol("center", real=True)
spread = sp.Symbol("spread", positive=True)
_z = sp.Symbol("z_", real=True)
SEARCH = [complex(re, im) for re in range(-6, 7) for im in range(1, 5)]
FAR = mp.mpf(1000)  # where a second derivative has reached its limit


@dataclass(frozen=True)
class Profile:
    """c·g(αa + β): coefficient c, scale α and shift β depend on responses and parameters, g on one number `x` alone."""

    coefficient: sp.Expr
    shape: sp.Expr
    scale: sp.Expr
    shift: sp.Expr

    @property
    def derivatives(self) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
        """g, g′, g″ in x."""
        return self.shape, sp.diff(self.shape, x), sp.diff(self.shape, x, 2)

    @property
    def singularity(self) -> tuple[float, float]:
        """(real part, distance) of the singularity of g that is nearest to the real axis."""
        return nearest_singularity(self.shape)

    def at(self, order: int, argument: sp.Expr) -> sp.Expr:
        """The term's derivative of an order in a, g's argument given."""
        return self.coefficient * self.scale**order * self.derivatives[order].subs(x, argument)


@cache
def nearest_singularity(shape: sp.Expr) -> tuple[float, float]:
    """Zeros in the complex plane of what g divides by or takes the logarithm of, by Newton from a grid of starts.

    Six digits: more would differ between platforms, and a step needs none of them.
    """
    plain = define(shape)
    inner = {u.args[0] for u in plain.atoms(sp.log)} | {p.base for p in plain.atoms(sp.Pow) if p.exp.is_negative}
    found = []
    for u in sorted((u for u in inner if u.has(x)), key=sp.default_sort_key):
        f, slope = (sp.lambdify(x, e, ["scipy", "numpy"]) for e in (u, sp.diff(u, x)))
        for start in SEARCH:
            root = _newton(f, slope, start)
            if root is not None and root.imag > 1e-6:
                found.append((round(root.imag, 6), round(root.real, 6) + 0.0))
    if not found:
        raise LikelihoodError(f"no singularity of {shape} found: state its term so that SymPy integrates it, or extend "
                              "the search in derive/calculus/losses.py")  # fmt: skip
    distance, place = min(found, key=lambda pair: (pair[0], abs(pair[1])))
    return place, distance


def _newton(f: Any, slope: Any, start: complex) -> complex | None:
    at = start
    with np.errstate(all="ignore"):
        for _ in range(60):
            step = complex(f(at) / slope(at))
            at -= step
            if not abs(at) <= 12:
                return None
            if abs(step) < 1e-12 * (1 + abs(at)):
                return at
    return None


class Loss:
    """Everything that follows from one likelihood."""

    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood = likelihood
        self.a = likelihood.predictor
        self._split()

    @cached_property
    def derivatives(self) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
        """f, f′, f″ as stated and differentiated, however they cancel: what every other form is proved against."""
        f = self.likelihood.loss
        return f, derivative(f, self.a, 1), derivative(f, self.a, 2)

    @property
    def binary(self) -> list[sp.Symbol]:
        """The responses that are 0 or 1."""
        return [r.symbol for r in self.likelihood.responses if r.support == "binary"]

    def _split(self) -> None:
        """f = constant + closed terms + profiles."""
        f = self.likelihood.loss
        reflected = self._reflected()
        f = f if reflected is None else reflected
        # products of sums are multiplied out, what a function takes is left as it is
        terms = [t for part in sp.Add.make_args(stable(f)) for t in sp.Add.make_args(part.expand(deep=False))]
        constant: list[sp.Expr] = []
        closed: list[sp.Expr] = []
        open_terms: list[sp.Expr] = []
        for term in terms:
            where = constant if not term.has(self.a) else closed if self._is_closed(term) else open_terms
            where.append(term)
        collected: dict[sp.Expr, sp.Expr] = {}
        for term in open_terms:
            coefficient, shape = term.as_independent(self.a, as_Add=False)
            collected[shape] = collected.get(shape, sp.S.Zero) + coefficient
        self.constant = sp.Add(*constant)
        self.closed = self._collected_exponentials(closed)
        self.profiles = [self._profile(sp.factor(c), shape) for shape, c in collected.items()]

    def _reflected(self) -> sp.Expr | None:
        """f(a; 0) at (1 − 2y)a where a label y of 1 is one of 0 seen from the other side: neither tail then cancels."""
        if len(self.binary) != 1:
            return None
        (y,) = self.binary
        f = self.likelihood.loss
        zero, one = f.subs(y, 0), f.subs(y, 1)
        if not _vanishes(one - zero.subs(self.a, -self.a)):
            return None
        u = sp.Symbol("u", real=True)
        sign = sp.Symbol(f"sign_{y}", real=True)
        self.signs = {sign: 1 - 2 * y}
        return stable(zero.subs(self.a, u)).subs(u, sign * self.a)

    signs: dict[sp.Symbol, sp.Expr] = {}

    def _is_closed(self, term: sp.Expr) -> bool:
        _, rest = term.as_independent(self.a, as_Add=False)
        if rest.is_polynomial(self.a):
            return sp.degree(rest, self.a) <= 2
        if isinstance(rest, sp.exp):
            return bool(sp.Poly(rest.args[0], self.a).degree() <= 1) if rest.args[0].is_polynomial(self.a) else False
        return isinstance(rest, sp.Piecewise)

    def _collected_exponentials(self, terms: list[sp.Expr]) -> sp.Expr:
        """The closed terms, coefficients of one function of a in one factor: (1 − y)eᵃ, so that a label can silence
        it."""
        table: dict[sp.Expr, sp.Expr] = {}
        for term in terms:
            c, rest = term.as_independent(self.a, as_Add=False)
            table[rest] = table.get(rest, sp.S.Zero) + c
        return sp.Add(*[sp.factor(c) * rest for rest, c in table.items()])

    def _profile(self, coefficient: sp.Expr, shape: sp.Expr) -> Profile:
        """g and the affine map to its argument, from the one linear form of a that the term holds."""
        form, inner = _linear_form(shape, self.a)
        stray = sorted(map(str, (inner.free_symbols - {x})))
        if form is None or inner.has(self.a) or stray:
            what = f"{stray[0]} in " if stray else ""
            raise LikelihoodError(
                f"likelihoods/{self.likelihood.name}.py: loss: expected a term that depends on {self.a} through one "
                f"linear form alone, got {what}{shape}: add a rule to _linear_form of derive/calculus/losses.py"
            )
        poly = sp.Poly(form, self.a)
        return Profile(coefficient, inner, poly.coeff_monomial(self.a), poly.coeff_monomial(1))

    def restored(self, expr: sp.Expr) -> sp.Expr:
        """An expression with the sign of a label as it is formed from the label."""
        return expr.subs(self.signs)

    def stable(self, order: int) -> sp.Expr:
        """f, f′ or f″ in functions that keep their digits on both tails, without f's constant."""
        total = derivative(self.closed, self.a, order)
        for p in self.profiles:
            total += p.at(order, p.scale * self.a + p.shift)
        return total

    @cached_property
    def closed_expectations(self) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
        """E of the closed terms and of their derivatives, a ~ N(center, spread²): E[f′] = ∂E[f]/∂center."""
        orders = [sp.Add.make_args(derivative(self.closed, self.a, k)) for k in range(3)]
        # of a piecewise term the expected derivative itself: that of its expectation cancels for a small spread
        value, slope, curvature = (sp.Add(*[self._expected(t) for t in terms]) for terms in orders)
        return value, slope, curvature

    def _expected(self, term: sp.Expr) -> sp.Expr:
        c, rest = term.as_independent(self.a, as_Add=False)
        if rest == 1:
            return c
        if isinstance(rest, sp.Piecewise):
            return c * _expected_pieces(rest, self.a)
        if isinstance(rest, sp.exp):
            poly = sp.Poly(rest.args[0], self.a)
            slope, shift = poly.coeff_monomial(self.a), poly.coeff_monomial(1)
            return c * sp.exp(slope * center + slope**2 * spread**2 / 2 + shift)
        return c * (rest.subs(self.a, center) + sp.diff(rest, self.a, 2) * spread**2 / 2)

    @cached_property
    def growth(self) -> tuple[sp.Expr, sp.Expr]:
        """(f″(−∞), f″(∞)), the least over the values of binary responses."""
        labels = [dict.fromkeys(self.binary, label) for label in ((0, 1) if self.binary else (0,))]
        ends = []
        for end in (-sp.oo, sp.oo):
            found = []
            for case in labels:
                total = sp.limit(_beyond(derivative(self.closed, self.a, 2)).subs(case), self.a, end)
                for p in self.profiles:
                    scale = self.restored(p.scale).subs(case)
                    limit = curvature_limit(p.shape, -1 if (end * scale).could_extract_minus_sign() else 1)
                    total += self.restored(p.coefficient).subs(case) * scale**2 * limit if limit else 0
                found.append(total)
            ends.append(sp.Min(*found))
        return ends[0], ends[1]


@cache
def curvature_limit(shape: sp.Expr, side: int) -> sp.Rational:
    """g″(±∞), from its value far out."""
    with mp.workdps(30):
        second = numeric(sp.diff(shape, x, 2), [x])
        values = [second(side * FAR * k) for k in (1, 2)]
    near = [int(mp.nint(1000 * v)) for v in values]
    return sp.Rational(near[0], 1000) if near[0] == near[1] else sp.oo


def derivative(expr: sp.Expr, a: sp.Symbol, order: int) -> sp.Expr:
    """The derivative of an order in a; of a piecewise term piece by piece, of |r| with the sign of r."""
    if not expr.has(sp.Piecewise):
        return sp.diff(expr, a, order)

    def once(piece: sp.Expr) -> sp.Expr:
        return sp.diff(piece, a).replace(sp.DiracDelta, lambda *_: sp.S.Zero)

    for _ in range(order):
        parts = []
        for term in sp.Add.make_args(expr):
            c, rest = term.as_independent(a, as_Add=False)
            if isinstance(rest, sp.Piecewise):
                rest = sp.Piecewise(*[(once(piece), condition) for piece, condition in rest.args])
                parts.append(c * rest)
            else:
                parts.append(sp.diff(term, a))
        expr = sp.Add(*parts)
    return expr


def _beyond(expr: sp.Expr) -> sp.Expr:
    """An expression with every piecewise term as it is far out."""
    return expr.replace(sp.Piecewise, lambda *parts: parts[-1][0])


def _vanishes(expr: sp.Expr) -> bool:
    """Whether an expression is 0 to 30 digits at several points."""
    symbols = sorted(expr.free_symbols, key=lambda s: s.name)
    f = sp.lambdify(symbols, define(expr), "mpmath")
    with mp.workdps(40):
        points = [[mp.mpf(7 * k + 3 * j + 2) / 11 for j in range(len(symbols))] for k in range(5)]
        return all(abs(f(*point)) < mp.mpf(10) ** -30 for point in points)


def _linear_form(expr: sp.Expr, a: sp.Symbol) -> tuple[sp.Expr | None, sp.Expr]:
    """(the linear form of a, the expression with `x` in its place); None where there are several."""
    forms: list[sp.Expr] = []

    def leaf(e: sp.Expr) -> sp.Expr:
        number, form = sp.factor_terms(e).as_coeff_Mul()
        if form not in forms and -form not in forms:
            forms.append(form)
        return number * (x if form in forms else -x)

    def walk(e: sp.Expr) -> sp.Expr:
        if not e.has(a):
            return e
        if e.is_polynomial(a) and sp.degree(e, a) == 1:
            return leaf(sp.expand(e)) if not isinstance(e, sp.Mul) else leaf(e)
        if isinstance(e, sp.Mul):
            powers = [f for f in e.args if f.is_Pow and f.base.has(a) and f.exp.is_Integer and f.exp > 0]
            others = sp.Mul(*[f for f in e.args if f not in powers])
            if len(powers) == 1 and not others.has(a) and others.free_symbols:
                number, scale = others.as_coeff_Mul()
                base = sp.expand(powers[0].base) * scale ** (1 / powers[0].exp)
                return number * leaf(base) ** powers[0].exp
        return e.func(*[walk(part) for part in e.args])

    inner = walk(expr)
    return (forms[0] if len(forms) == 1 else None), inner


def _expected_pieces(pieces: sp.Piecewise, a: sp.Symbol) -> sp.Expr:
    """E of a piecewise polynomial whose pieces end where |r| = k, r linear in a: a sum of truncated moments."""
    (inside, condition), (outside, _) = pieces.args
    sides = (condition.lhs, condition.rhs) if condition.lhs.has(sp.Abs) else (condition.rhs, condition.lhs)
    scale, magnitude = sides[0].as_independent(a, as_Add=False)
    if not isinstance(magnitude, sp.Abs) or len(pieces.args) != 2:
        raise LikelihoodError(f"loss: expected two pieces, |r| <= k and beyond, got {pieces}: add a rule to "
                              "_expected_pieces of derive/calculus/losses.py")  # fmt: skip
    bound = sides[1] / scale
    poly = sp.Poly(magnitude.args[0], a)
    slope, shift = poly.coeff_monomial(a), poly.coeff_monomial(1)
    ends = sorted(
        (sp.expand((s * bound - shift) / slope) for s in (-1, 1)),
        key=lambda e: float(e.subs(dict.fromkeys(e.free_symbols, 1))),
    )
    low, high = ((end - center) / spread for end in ends)
    left, right = (_signed(outside, s) for s in _signs(slope))
    return _truncated(left, a, -sp.oo, low) + _truncated(inside, a, low, high) + _truncated(right, a, high, sp.oo)


def _signs(slope: sp.Expr) -> tuple[int, int]:
    """The sign of r to the left and to the right."""
    return (1, -1) if slope.could_extract_minus_sign() else (-1, 1)


def _signed(piece: sp.Expr, sign: int) -> sp.Expr:
    """A piece where r has this sign."""
    return piece.replace(sp.Abs, lambda r: sign * r).replace(sp.sign, lambda _: sp.Integer(sign))


def _truncated(piece: sp.Expr, a: sp.Symbol, low: sp.Expr, high: sp.Expr) -> sp.Expr:
    """∫ piece(center + spread z) φ(z) dz over [low, high], a polynomial of degree at most 2."""
    poly = sp.Poly(sp.expand(piece.subs(a, center + spread * _z)), _z)

    def primitive(n: int, end: sp.Expr) -> sp.Expr:
        if end in (sp.oo, -sp.oo):
            return sp.Rational(1, 2) * sp.sign(end) if n in (0, 2) else sp.S.Zero
        density, mass = sp.exp(-(end**2) / 2) / sp.sqrt(2 * sp.pi), sp.erf(end / sp.sqrt(2)) / 2
        return (mass, -density, mass - end * density)[n]

    return sum((c * (primitive(n, high) - primitive(n, low)) for (n,), c in poly.terms()), sp.S.Zero)


@cache
def loss_of(likelihood: Likelihood) -> Loss:
    """The derivation of a likelihood."""
    return Loss(likelihood)
