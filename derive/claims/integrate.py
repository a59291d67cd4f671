"""Expectations by integration over θ, independent of A(λ): what ∇A = E[T] and normalisation are proved against.

Gaussian integrals of polynomials are reduced one coordinate at a time with the moments of ∫ xⁿ exp(−½sx² + tx) dx,
which SymPy integrates; other families are integrated by mpmath at 50 digits.
"""

from __future__ import annotations

from functools import cache

import mpmath as mp
import sympy as sp

from ..calculus.elementwise import Calculus, inner
from .claim import DIGITS, ClaimError

NEGLIGIBLE = 2.4 * DIGITS  # e^-120 is below the 50th digit
WIDEST = 2**20  # in log θ
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
    return sp.expand_log(sp.log(c.at.base_measure), force=True) + inner(c.at.natural, c.at.statistics)


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


def expectation_numeric(c: Calculus, function: sp.Expr, point: dict[sp.Symbol, mp.mpf]) -> mp.mpf:
    """E_q[function(θ)] at a parameter point by tanh-sinh quadrature in u = log θ (families on the positive axis)."""
    (theta,) = c.at.theta
    if c.at.support != (0, sp.oo):
        raise ClaimError(f"no quadrature for the support {c.at.support}")
    names = sorted(point, key=lambda s: s.name)
    values = [point[s] for s in names]
    log_density = sp.lambdify([theta, *names], log_unnormalised(c) - c.at.log_partition, "mpmath")
    weight = sp.lambdify([theta, *names], function, "mpmath")
    with mp.workdps(DIGITS):

        def height(u: mp.mpf) -> mp.mpf:
            return log_density(mp.exp(u), *values) + u

        mode = max((mp.mpf(k) / 2 for k in range(-60, 61)), key=height)
        steps = []
        for side in (-1, 1):
            step = mp.mpf(1)
            while height(mode + side * step) > height(mode) - NEGLIGIBLE:
                step *= 2
                if step > WIDEST:
                    raise ClaimError("the density does not decay: no normalisation exists")
            steps.append([mode + side * step / 2**k for k in range(6)])
        edges = [*steps[0], mode, *reversed(steps[1])]
        return mp.quad(lambda u: weight(mp.exp(u), *values) * mp.exp(height(u)), edges)
