"""Expectations by integration over θ, independent of A(λ): what ∇A = E[T] and normalisation are proved against.

Gaussian integrals of polynomials are reduced one coordinate at a time with the moments of ∫ xⁿ exp(−½sx² + tx) dx,
which SymPy integrates; other families are integrated, or summed over a discrete support, by mpmath at 50 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from itertools import islice, pairwise

import mpmath as mp
import sympy as sp
from mpmath.calculus.quadrature import GaussLegendre

from ..calculus.elementwise import Calculus, calculus
from ..calculus.family import Family
from ..calculus.slots import inner
from ..calculus.special import define
from .claim import DIGITS, ClaimError, numeric
from .members import member_points

NEGLIGIBLE = 2.4 * DIGITS  # e^-120 is below the 50th digit
WIDEST = 2**20  # in log θ
LONGEST = 10**5  # terms of a sum
_s = sp.Symbol("s_", positive=True)
_t = sp.Symbol("t_", real=True)
_x = sp.Symbol("x_", real=True)


@cache
def moment(n: int) -> sp.Expr:
    """∫ xⁿ exp(−½sx² + tx) dx over ℝ, by SymPy."""
    return sp.simplify(sp.integrate(_x**n * sp.exp(-_s * _x**2 / 2 + _t * _x), (_x, -sp.oo, sp.oo)))


@cache
def reduced_moment(n: int) -> sp.Expr:
    """The moment without its factor exp(t²/2s)."""
    return sp.simplify(moment(n) / sp.exp(_t**2 / (2 * _s)))


def gaussian_integral(polynomial: sp.Expr, exponent: sp.Expr, variables: list[sp.Symbol]) -> tuple[sp.Expr, sp.Expr]:
    """(t, e) with ∫ polynomial · exp(exponent) = t exp(e) over all variables, the exponent quadratic in them; e is the
    same for every polynomial."""
    total: sp.Expr = sp.expand(polynomial)
    for x in variables:
        quadratic = sp.Poly(exponent, x)
        s, t = -2 * quadratic.coeff_monomial(x**2), quadratic.coeff_monomial(x)
        # exp(t²/2s) leaves the moment and joins the exponent, so that the next coordinate is quadratic again.
        total = sum(c * reduced_moment(n).xreplace({_s: s, _t: t}) for (n,), c in sp.Poly(total, x).terms())
        exponent = sp.cancel(quadratic.coeff_monomial(1) + t**2 / (2 * s))
    return total, exponent


def log_unnormalised(c: Calculus) -> sp.Expr:
    """log b(θ) + ⟨λ, T(θ)⟩."""
    return c.log_base_measure + inner(c.at.natural, c.at.statistics)


def is_quadratic(c: Calculus) -> bool:
    """Whether the density is the exponential of a quadratic: a Gaussian, integrable one coordinate at a time."""
    return c.is_gaussian and sp.expand(log_unnormalised(c)).is_polynomial(*c.at.theta)


def expectation_symbolic(
    c: Calculus, polynomial: sp.Expr, point: dict[sp.Symbol, sp.Expr] | None = None
) -> tuple[sp.Expr, sp.Expr]:
    """(∫ b e^⟨λ,T⟩, E_q[polynomial(θ)]) for a Gaussian, at λ or at a rational point of it."""
    exponent = sp.expand(log_unnormalised(c).xreplace(point or {}))
    constant, rest = exponent.as_independent(*c.at.theta)
    total, left = gaussian_integral(sp.S.One, rest, list(c.at.theta))
    moment, _ = gaussian_integral(polynomial.xreplace(point or {}), rest, list(c.at.theta))
    return total * sp.exp(left + constant), moment / total


class Density:
    """A member of a factorising family at one point of λ and the fixed parameters, integrated or summed at 50 digits.

    A continuous θ is θ(u), u on the whole line, and Gauss–Legendre panels narrow towards the mode; a discrete one is
    summed from its least value on. Tails that are heavy in θ are not in u. A variable before the last is Gaussian given
    that one, and integrated first, exactly.
    """

    def __init__(self, c: Calculus, point: dict[sp.Symbol, mp.mpf]) -> None:
        *self.first, self.theta = c.at.theta
        self.c, self.point, self.names = c, point, sorted(point, key=lambda s: s.name)
        self.values = [point[s] for s in self.names]
        self._known: dict[sp.Expr, mp.mpf] = {}
        self.low, self.high = (numeric(sp.sympify(b), point) for b in c.at.support[-1])
        log_density = log_unnormalised(c) - c.at.log_partition
        if self.first:
            log_density = log_marginal(c.family)
        if c.family.is_discrete:
            self.height = self._function(log_density)
            return
        self.places, slope = self._chart()
        self.height = self._function(self._charted(log_density) + slope)

    def _function(self, expr: sp.Expr) -> Callable[[mp.mpf], mp.mpf]:
        function = sp.lambdify([self.theta, *self.names], define(expr), "mpmath")
        return lambda u: function(u, *self.values)

    def _chart(self) -> tuple[dict[sp.Expr, sp.Expr], sp.Expr]:
        """(what θ, and 1 − θ of the unit interval, are in u, log |dθ/du|)."""
        u = self.theta
        if (self.low, self.high) == (0, mp.inf):
            return {u: sp.exp(u)}, u
        if (self.low, self.high) == (0, 1):
            inside, outside = 1 / (1 + sp.exp(-u)), 1 / (1 + sp.exp(u))
            return {1 - u: outside, u: inside}, sp.log(inside) + sp.log(outside)
        if (self.low, self.high) == (-mp.inf, mp.inf):
            return {}, sp.S.Zero
        raise ClaimError(
            f"no quadrature for the support {self.c.at.support}: add a chart to Density of derive/claims/integrate.py"
        )

    def _charted(self, expr: sp.Expr) -> sp.Expr:
        if (1 - self.theta) in self.places:
            other = sp.Symbol("other_", positive=True)  # its own symbol: 1 − θ must not lose its digits near 1
            expr = expr.subs(1 - self.theta, other)
            return expr.xreplace({self.theta: self.places[self.theta], other: self.places[1 - self.theta]})
        return expr.xreplace(self.places)

    def _edges(self) -> list[mp.mpf]:
        """Ends of panels, ascending: distances from the mode, or from a kink, grow by half until nothing is left."""
        kinks = [k for k in self._kinks() if not self.places]
        mode = max([*(mp.mpf(k) / 2 for k in range(-60, 61)), *kinks], key=self.height)
        sides = []
        for side in (-1, 1):
            steps = [mp.mpf(1) / 4]
            while self.height(mode + side * steps[-1]) > self.height(mode) - NEGLIGIBLE:
                steps.append(3 * steps[-1] / 2)
                if steps[-1] > WIDEST:
                    raise ClaimError("the density does not decay: no normalisation exists")
            sides.append([mode + side * step for step in steps])
        return [*reversed(sides[0]), mode, *sides[1]]

    def _kinks(self) -> list[mp.mpf]:
        """Where a |·| of the density changes its sign."""
        point = dict(zip(self.names, self.values, strict=True))
        inner = [f.args[0] for f in log_unnormalised(self.c).atoms(sp.Abs)]
        return [numeric(r, point) for e in inner for r in sp.solve(e, self.theta)]

    def _support(self) -> list[mp.mpf]:
        """The values of θ whose probabilities matter."""
        found: list[mp.mpf] = []
        at, best = self.low, -mp.inf
        while at <= self.high:
            height = self.height(at)
            best = max(best, height)
            if height < best - NEGLIGIBLE:
                break
            found.append(at)
            at += 1
            if len(found) > LONGEST:
                raise ClaimError("the probabilities do not decay: no normalisation exists")
        return found

    @cached_property
    def rule(self) -> list[tuple[mp.mpf, mp.mpf]]:
        """Nodes with their probabilities: what every expectation shares."""
        if self.c.family.is_discrete:
            return [(at, mp.exp(self.height(at))) for at in self._support()]
        found = []
        for low, high in pairwise(self._edges()):
            half = (high - low) / 2
            for node, weight in gauss_legendre():
                u = low + half * (1 + node)
                found.append((u, half * weight * mp.exp(self.height(u))))
        return found

    def expectation(self, function: sp.Expr) -> mp.mpf:
        """E_q[function(θ)]."""
        if function not in self._known:
            self._known[function] = self._expectation(function)
        return self._known[function]

    def _expectation(self, function: sp.Expr) -> mp.mpf:
        if self.first:
            function = given_last(self.c.family, function)
        value = self._function(function if self.c.family.is_discrete else self._charted(function))
        return mp.fsum(value(at) * mass for at, mass in self.rule)


def _integrated(family: Family, function: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """(t, e) with ∫ function · q = t exp(e) over all variables but the last."""
    c = calculus(family)
    exponent = sp.expand(log_unnormalised(c) - c.at.log_partition)
    return gaussian_integral(function, exponent, list(c.at.theta)[:-1])


@cache
def log_marginal(family: Family) -> sp.Expr:
    """log q of the last variable, the others integrated."""
    total, exponent = _integrated(family, sp.S.One)
    return sp.expand_log(sp.log(total), force=True) + exponent


@cache
def given_last(family: Family, function: sp.Expr) -> sp.Expr:
    """E_q[function | last variable]."""
    return sp.expand(_integrated(family, function)[0] / _integrated(family, sp.S.One)[0])


@cache
def gauss_legendre() -> list[tuple[mp.mpf, mp.mpf]]:
    """48 nodes on [−1, 1]."""
    return list(GaussLegendre(mp.mp).calc_nodes(5, mp.mp.prec))


@cache
def density(family: Family, number: int) -> Density:
    """A family at one of its test points; a sum has as many terms as there are values, so its points are nearer to
    1."""
    c = calculus(family)
    symbols = {m[0, 0] for m in c.at.natural} | {s.symbol for s in family.fixed}
    points = member_points(c, symbols, seed=1, decades=0.5 if family.is_discrete else 1.5)
    return Density(c, next(islice(points, number, None)))
