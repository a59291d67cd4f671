"""Claims about the rules of calculus/traces.py: each matrix identity written out in scalar coordinates."""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from ..calculus.elementwise import Calculus
from ..calculus.slots import gradient
from .claim import zero_at_rationals

Prover = Callable[[Calculus], str]


def generic(name: str, rows: int, cols: int) -> sp.Matrix:
    """A matrix of real symbols."""
    return sp.Matrix(rows, cols, lambda i, j: sp.Symbol(f"{name}{i + 1}{j + 1}", real=True))


def symmetric(name: str, d: int) -> sp.Matrix:
    """A symmetric matrix of real symbols."""
    return sp.Matrix(d, d, lambda i, j: sp.Symbol(f"{name}{min(i, j) + 1}{max(i, j) + 1}", real=True))


def traces(c: Calculus) -> str:
    """tr(AB) = tr(BA), tr(A) = tr(Aᵀ), tr(S S⁻¹) = d."""
    s = c.at.natural[1]
    a, b = (generic(n, s.rows, s.rows) for n in "AB")
    gaps = ((a * b).trace() - (b * a).trace(), a.trace() - a.T.trace(), (s * s.inv()).trace() - s.rows)
    return zero_at_rationals(*gaps, positive_definite=[s], what="a rule of the trace")


def jacobi(c: Calculus) -> str:
    """∇_S log det S = S⁻¹, the rule SymPy lacks."""
    s = c.at.natural[1]
    (left,) = gradient(sp.log(s.det()), (s,))
    return zero_at_rationals(left - s.inv(), positive_definite=[s], what="Jacobi's rule")


def quotient(c: Calculus) -> str:
    """∇_S tr(A S⁻¹ B) = −(S⁻¹ B A S⁻¹)ᵀ, symmetrised, and ∇_S tr(A S) = Aᵀ, symmetrised."""
    s = c.at.natural[1]
    a, b = (generic(n, s.rows, s.rows) for n in "AB")
    (left,) = gradient((a * s.inv() * b).trace(), (s,))
    right = -(s.inv() * b * a * s.inv()).T
    (plain,) = gradient((a * s).trace(), (s,))
    return zero_at_rationals(
        left - (right + right.T) / 2, plain - (a + a.T) / 2, positive_definite=[s], what="the derivative of a trace"
    )


def square(c: Calculus) -> str:
    """xᵀPx − 2xᵀb = rᵀP⁻¹r − bᵀP⁻¹b with r = Px − b, and r = (Sx − b) + (P − S)x."""
    p = c.at.natural[1]
    x, b = (generic(n, p.rows, 1) for n in "xb")
    s, r = symmetric("T", p.rows), p * x - b
    left = (x.T * p * x - 2 * x.T * b)[0, 0]
    right = (r.T * p.inv() * r - b.T * p.inv() * b)[0, 0]
    return zero_at_rationals(left - right, (s * x - b) + (p - s) * x - r, positive_definite=[p], what="the square")


def whitening(c: Calculus) -> str:
    """With S = LLᵀ and M = L⁻¹DL⁻ᵀ: Σe = tr M = tr(S⁻¹D) and Π(1 + e) = det(I + M) = det(S + D)/det S."""
    d = c.at.natural[1].rows
    lower = sp.Matrix(d, d, lambda i, j: sp.Symbol(f"L{i + 1}{j + 1}", positive=True) if j <= i else 0)
    change = symmetric("D", d)
    base, whitened = lower * lower.T, lower.inv() * change * lower.inv().T
    return zero_at_rationals(
        whitened.trace() - (base.inv() * change).trace(),
        (sp.eye(d) + whitened).det() * base.det() - (base + change).det(),
        what="the whitened change",
    )


RULES: tuple[tuple[str, str, Prover], ...] = (
    ("trace", r"\mathrm{tr}(AB)=\mathrm{tr}(BA),\ \mathrm{tr}A=\mathrm{tr}A^\top,\ \mathrm{tr}(SS^{-1})=d", traces),
    ("Jacobi's rule", r"\nabla_S \log\det S = S^{-1}", jacobi),
    ("derivative of a trace", r"\nabla_S\,\mathrm{tr}(AS^{-1}B)=-(S^{-1}BAS^{-1})^\top", quotient),
    ("completed square", r"x^\top Px-2x^\top b=r^\top P^{-1}r-b^\top P^{-1}b,\ r=Px-b", square),
    (
        "whitening",
        r"\mathrm{tr}(S^{-1}D)-\log\tfrac{\det(S+D)}{\det S}=\sum_i\phi(e_i),\ e=\mathrm{eig}(L^{-1}DL^{-\top})",
        whitening,
    ),
)
