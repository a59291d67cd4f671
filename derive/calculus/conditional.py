"""A coordinate of two variables, the first Gaussian given the second: its conditional, and the second's marginal.

Integrals over θ, draws and moments then need one variable alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from .family import Family, FamilyError


@dataclass(frozen=True)
class Conditional:
    """x given τ is N(mean, 1/precision); log q(τ) is the marginal log-density, all in τ and λ."""

    variable: sp.Symbol
    given: sp.Symbol
    mean: sp.Expr
    precision: sp.Expr
    log_marginal: sp.Expr


def conditional(family: Family, log_density: sp.Expr) -> Conditional | None:
    """The conditional of two variables with this joint log-density; None of one variable.

    Raises `FamilyError` unless the log-density is quadratic in the first variable on the whole line.
    """
    if len(family.variables) == 1:
        return None
    x, *given = family.variables
    expanded = sp.expand(log_density)
    if len(given) != 1 or family.bounds[0] != (-sp.oo, sp.oo) or not _is_quadratic(expanded, x):
        names = ", ".join(map(str, family.variables))
        raise FamilyError(
            f"{family.name}.theta: expected one variable, or two of which the first is Gaussian given the second, got "
            f"{names}: integrals over other variables belong in derive/calculus/conditional.py"
        )
    constant, linear, square = (expanded.coeff(x, k) for k in range(3))
    precision = sp.factor(-2 * square)
    mean = sp.cancel(linear / precision)
    integral = sp.log(2 * sp.pi) / 2 - sp.expand_log(sp.log(precision), force=True) / 2
    log_marginal = constant + sp.cancel(linear**2 / (2 * precision)) + integral
    return Conditional(x, given[0], mean, precision, sp.expand(sp.expand_log(log_marginal)))


def _is_quadratic(expr: sp.Expr, x: sp.Symbol) -> bool:
    return bool(expr.is_polynomial(x) and sp.degree(expr, x) == 2)
