"""Rewrites that keep derived expressions exact in floating point; each is an identity that claims.py checks.

Tails: log(1 + eˣ), eˣ/(1 + eˣ) and the like through functions that keep their digits on both tails (calculus/tails).
Stirling: ln Γ, ψ, ψ₁ through R, R′, R″, so that the large terms of a divergence cancel symbolically. Ratio: the
logarithms that remain are grouped by the monomial they are multiplied by; each group is −c·log(ratio), which is
c·φ(ratio − 1) − c·(ratio − 1) with φ(x) = x − log(1 + x), and the second parts cancel against the algebraic terms.
Bregman: f(p) − f(q) − f′(q)(p − q) of a convex f of `bregman.BREGMAN` is one function. Square: what is left is factored
in the square roots of the parameters, and a difference of roots becomes a quotient of differences.
"""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from . import bregman, special, tails
from .special import by_stirling, ratio_divergence

Renaming = Mapping[sp.Symbol, sp.Symbol]


def entropy(expr: sp.Expr) -> sp.Expr:
    """An entropy with the terms that grow with the parameters cancelled symbolically."""
    return tails.stable(sp.expand(sp.expand_log(by_stirling(expr))))


def divergence(expr: sp.Expr, other: Renaming) -> sp.Expr:
    """KL(q‖p) as a sum of non-negative terms without cancellation near q = p; `other` maps q's symbols to p's."""
    expanded = sp.expand(sp.expand_log(by_stirling(tails.stable(sp.expand(expr))), force=True))
    expanded = sp.expand(sp.expand_log(expanded, force=True))
    logs = sorted(expanded.atoms(sp.log), key=sp.default_sort_key)
    rest = expanded.subs(dict.fromkeys(logs, 0))
    total = sp.S.Zero
    for monomial, powers in _grouped(expanded, logs).items():
        number = next(n for n in powers.values() if n > 0)
        c = number * monomial
        ratio = sp.Mul(*[log.args[0] ** (-n / number) for log, n in powers.items()])
        numerator, denominator = ratio.as_numer_denom()
        change = sp.expand(numerator - denominator) / denominator
        total += c * ratio_divergence(change, ratio)
        rest -= c * change
    found = total + _bregman(sp.expand(rest), other)
    taken = any(t.could_extract_minus_sign() and t.has(*bregman.BREGMAN) for t in sp.Add.make_args(found))
    return bregman.positive_part(found) if taken else found


def _grouped(expr: sp.Expr, logs: list[sp.Expr]) -> dict[sp.Expr, dict[sp.Expr, sp.Rational]]:
    """The numbers before log·monomial, by monomial and logarithm."""
    groups: dict[sp.Expr, dict[sp.Expr, sp.Rational]] = {}
    for log in logs:
        for term in sp.Add.make_args(sp.expand(expr.coeff(log))):
            number, monomial = term.as_coeff_Mul()
            groups.setdefault(monomial, {})[log] = number
    return groups


def _bregman(expr: sp.Expr, other: Renaming) -> sp.Expr:
    """Every f(p) − f(q) − f′(q)(p − q) as one function, and the rest factored."""
    found = sp.S.Zero
    for function, convex in bregman.BREGMAN.items():
        for value in sorted((v for v in expr.atoms(convex.value) if v.args[0].has(*other)), key=sp.default_sort_key):
            q = value.args[0]
            p = q.xreplace(dict(other))
            c = expr.coeff(convex.value(p))
            if c == 0 or c.has(*other, *other.values()):
                continue
            expr = sp.expand(expr - c * (convex.value(p) - convex.value(q) - convex.slope(q) * (p - q)))
            found += c * convex.sign * function(p, q)
    transcendental = (*special.FUNCTION_NAMES, special.Named, sp.exp, sp.log)
    if expr.has(*transcendental):
        expr = sp.simplify(special.define(expr))
    if expr.has(*transcendental):
        raise NotImplementedError(
            f"kl: no stable form for {expr}: add a convex function to BREGMAN of derive/calculus/bregman.py"
        )
    return found + _squares(expr)


def _squares(expr: sp.Expr) -> sp.Expr:
    """An algebraic expression factored in the square roots of its symbols: √x − √y = (x − y)/(√x + √y)."""
    under = {s for p in expr.atoms(sp.Pow) if p.exp.is_Rational and p.exp.q == 2 for s in p.base.free_symbols}
    if not under or not all(s.is_positive for s in under):
        return sp.factor(sp.together(expr))
    roots = {s: sp.Symbol(f"root_{s}", positive=True) for s in under}
    factored = sp.factor(sp.together(expr.xreplace({s: r**2 for s, r in roots.items()})))
    back = {r: sp.sqrt(s) for s, r in roots.items()}
    parts = []
    for factor in sp.Mul.make_args(factored):
        base, power = factor.as_base_exp()
        terms = [t.xreplace(back) for t in sp.Add.make_args(base)]
        if len(terms) == 2 and len({t.could_extract_minus_sign() for t in terms}) == 2:
            left, right = terms
            parts.append(((left**2 - right**2) / (left - right)) ** power)
        else:
            parts.append(factor.xreplace(back))
    return sp.Mul(*parts)


def natural_gradient(expr: sp.Expr) -> sp.Expr:
    """A natural gradient through R″: a ψ₁(a) − 1 cancels for large a, a R″(a) does not."""
    return tails.stable(sp.factor(by_stirling(expr)))


def log_density(expr: sp.Expr) -> sp.Expr:
    """A log-density whose algebraic part is one product: −S(θ − m)²/2 where ξθ − Sθ²/2 − ξ²/(2S) cancels."""
    terms = sp.Add.make_args(sp.expand(tails.stable(expr)))
    algebraic = [t for t in terms if t.free_symbols and not t.has(sp.log, sp.loggamma, sp.Abs, special.Named, sp.exp)]
    return sp.Add(*[t for t in terms if t not in algebraic]) + sp.factor(sp.Add(*algebraic))
