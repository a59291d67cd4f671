"""Rewrites that keep derived expressions exact in floating point; each is an identity that claims.py checks.

Two rules suffice for divergences. Stirling: ln Γ, ψ, ψ₁ through R, R′, R″, so that the large terms cancel symbolically.
Ratio: if the logarithms that remain combine to −c·log(ratio), then −c·log(ratio) = c·φ(ratio − 1) − c·(ratio − 1) with
φ(x) = x − log(1 + x), and the second part cancels against the algebraic terms.
"""

from __future__ import annotations

import sympy as sp

from .special import by_stirling, ratio_divergence, stirling_bregman, stirling_remainder, stirling_remainder_1


def entropy(expr: sp.Expr) -> sp.Expr:
    """An entropy with the terms that grow with the parameters cancelled symbolically."""
    return sp.expand(sp.expand_log(by_stirling(expr)))


def divergence(expr: sp.Expr) -> sp.Expr:
    """KL(q‖p) as a sum of non-negative terms without cancellation near q = p."""
    expanded = sp.expand(sp.expand_log(by_stirling(sp.expand(expr)), force=True))
    expanded = sp.expand(sp.expand_log(expanded, force=True))
    logs = sorted(expanded.atoms(sp.log), key=sp.default_sort_key)
    rest = expanded.subs(dict.fromkeys(logs, 0))
    if not logs:
        return sp.factor(rest)
    coefficients = {log: sp.factor(expanded.coeff(log)) for log in logs}
    c = next(v for v in coefficients.values() if not v.could_extract_minus_sign())
    ratio = sp.Mul(*[log.args[0] ** sp.cancel(-v / c) for log, v in coefficients.items()])
    numerator, denominator = ratio.as_numer_denom()
    first = c * ratio_divergence((numerator - denominator) / denominator, ratio)
    remainder = rest - c * (numerator - denominator) / denominator
    return first + _bregman(sp.expand(remainder))


def _bregman(expr: sp.Expr) -> sp.Expr:
    """R(p) − R(q) − R′(q)(p − q) recognised as one function; anything else factored."""
    remainders = sorted(expr.atoms(stirling_remainder), key=sp.default_sort_key)
    if not remainders:
        return sp.factor(sp.together(expr))
    (p,) = [r.args[0] for r in remainders if expr.coeff(r) == 1]
    (q,) = [r.args[0] for r in remainders if expr.coeff(r) == -1]
    difference = sp.expand(expr - stirling_remainder(p) + stirling_remainder(q) + stirling_remainder_1(q) * (p - q))
    if difference != 0:
        raise NotImplementedError(f"no stable form for the remainder {difference}")
    return stirling_bregman(p, q)


def natural_gradient(expr: sp.Expr) -> sp.Expr:
    """A natural gradient through R″: a ψ₁(a) − 1 cancels for large a, a R″(a) does not."""
    return sp.factor(sp.cancel(sp.together(sp.expand(by_stirling(expr)))))


def log_density(expr: sp.Expr) -> sp.Expr:
    """A log-density whose algebraic part is one product: −S(θ − m)²/2 where ξθ − Sθ²/2 − ξ²/(2S) cancels."""
    terms = sp.Add.make_args(sp.expand(expr))
    algebraic = [t for t in terms if t.free_symbols and not t.has(sp.log, sp.loggamma)]
    return sp.Add(*[t for t in terms if t not in algebraic]) + sp.factor(sp.Add(*algebraic))
