"""Expectations by integration over θ, independent of A(λ): what ∇A = E[T] and normalisation are proved against.

Gaussian integrals of polynomials are reduced one coordinate at a time with the moments of ∫ xⁿ exp(−½sx² + tx) dx,
which SymPy integrates; other families are integrated, or summed over a discrete support, by mpmath at 50 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mpmath as mp
import sympy as sp

from ..calculus.elementwise import Calculus, inner
from .claim import DIGITS, ClaimError

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


def gaussian_integral(polynomial: sp.Expr, exponent: sp.Expr, variables: list[sp.Symbol]) -> sp.Expr:
    """∫ polynomial · exp(exponent) over all variables, the exponent quadratic in them."""
    total: sp.Expr = sp.expand(polynomial)
    for x in variables:
        quadratic = sp.Poly(exponent, x)
        s, t = -2 * quadratic.coeff_monomial(x**2), quadratic.coeff_monomial(x)
        # exp(t²/2s) leaves the moment and joins the exponent, so that the next coordinate is quadratic again.
        total = sum(c * reduced_moment(n).xreplace({_s: s, _t: t}) for (n,), c in sp.Poly(total, x).terms())
        exponent = sp.cancel(quadratic.coeff_monomial(1) + t**2 / (2 * s))
    return total * sp.exp(exponent)


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
    total = gaussian_integral(sp.S.One, rest, list(c.at.theta))
    mean = gaussian_integral(polynomial.xreplace(point or {}), rest, list(c.at.theta)) / total
    return total * sp.exp(constant), mean


class Density:
    """A member of a factorising family at one point of λ and the fixed parameters, integrated or summed at 50 digits.

    A continuous θ is θ(u), u on the whole line, and tanh-sinh panels halve towards the mode; a discrete one is summed
    from the mode outwards.
    """

    def __init__(self, c: Calculus, point: dict[sp.Symbol, mp.mpf]) -> None:
        (self.theta,) = c.at.theta
        self.c, self.names = c, sorted(point, key=lambda s: s.name)
        self.values = [point[s] for s in self.names]
        self.low, self.high = (self._bound(b, point) for b in c.at.support)
        log_density = log_unnormalised(c) - c.at.log_partition
        if c.family.is_discrete:
            self.height = self._function(log_density)
            self.terms = self._support()
            return
        self.places, slope = self._chart()
        self.height = self._function(self._charted(log_density) + slope)
        self.edges = self._edges()

    @staticmethod
    def _bound(bound: sp.Expr, point: dict[sp.Symbol, mp.mpf]) -> mp.mpf:
        return mp.mpf(str(sp.sympify(bound).xreplace({s: sp.Float(v, DIGITS) for s, v in point.items()})))

    def _function(self, expr: sp.Expr) -> Callable[[mp.mpf], mp.mpf]:
        function = sp.lambdify([self.theta, *self.names], expr, "mpmath")
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
        """Ends of panels: towards the mode, and at kinks."""
        mode = max((mp.mpf(k) / 2 for k in range(-60, 61)), key=self.height)
        kinks = [k for k in self._kinks() if not self.places]
        mode = max([mode, *kinks], key=self.height)
        steps = []
        for side in (-1, 1):
            step = mp.mpf(1)
            while self.height(mode + side * step) > self.height(mode) - NEGLIGIBLE:
                step *= 2
                if step > WIDEST:
                    raise ClaimError("the density does not decay: no normalisation exists")
            steps.append([mode + side * step / 2**k for k in range(6)])
        return [*steps[0], mode, *reversed(steps[1])]

    def _kinks(self) -> list[mp.mpf]:
        """Where a |·| of the density changes its sign."""
        table = {s: sp.Float(v, DIGITS) for s, v in zip(self.names, self.values, strict=True)}
        inner = [f.args[0] for f in log_unnormalised(self.c).atoms(sp.Abs)]
        return [mp.mpf(str(r.xreplace(table))) for e in inner for r in sp.solve(e, self.theta)]

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

    def expectation(self, function: sp.Expr) -> mp.mpf:
        """E_q[function(θ)]."""
        if self.c.family.is_discrete:
            weight = self._function(function)
            return mp.fsum(weight(at) * mp.exp(self.height(at)) for at in self.terms)
        weight = self._function(self._charted(function))
        return mp.quad(lambda u: weight(u) * mp.exp(self.height(u)), self.edges)
