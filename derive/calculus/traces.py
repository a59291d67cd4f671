"""Scalars of vectors and symmetric matrices in a normal form: sums of traces of products, log-determinants and d.

SymPy simplifies traces of elementwise matrices only. The rules used here are few, and the claims prove each of them
elementwise at d = 1, 2, 3:

    trace            tr is linear, tr(AB) = tr(BA), tr(A) = tr(Aᵀ), S S⁻¹ = I, tr(I) = d
    log det          ∇_S log det S = S⁻¹ (Jacobi), which SymPy 1.14 differentiates to 0
    quotient         ∇_S tr(A S⁻¹ B) = −(S⁻¹ B A S⁻¹)ᵀ
    square           c xᵀPx − 2c xᵀb = c (rᵀP⁻¹r − bᵀP⁻¹b) with r = Px − b
    whitening        tr(S⁻¹D) − log det(S + D) + log det S = Σφ(e) with φ(x) = x − log(1 + x), e the eigenvalues of
                     L⁻¹DL⁻ᵀ, S = LLᵀ: non-negative terms without cancellation near D = 0
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sympy as sp

from .family import DIMENSION

Word = tuple[Any, ...]  # factors of a product: symmetric symbols, their inverses, vectors and their transposes


def log_det(matrix: Any) -> sp.Expr:
    """log det of a symmetric positive definite matrix."""
    return sp.log(sp.Determinant(matrix))


def transposed(factor: Any) -> Any:
    """A factor's transpose; square symbols and their inverses are symmetric."""
    if isinstance(factor, sp.Transpose):
        return factor.arg
    return factor if factor.rows == factor.cols else sp.Transpose(factor)


def words(expr: Any) -> Iterator[tuple[sp.Expr, Word]]:
    """(coefficient, factors) of every product of an expanded matrix expression."""
    if isinstance(expr, sp.MatAdd):
        for term in expr.args:
            yield from words(term)
    elif isinstance(expr, sp.MatMul):
        coefficient, factors = expr.as_coeff_matrices()
        products: list[tuple[sp.Expr, Word]] = [(coefficient, ())]
        for factor in factors:
            products = [(c * k, left + right) for c, left in products for k, right in words(factor)]
        yield from products
    elif isinstance(expr, sp.Transpose) and not isinstance(expr.arg, sp.MatrixSymbol):
        for coefficient, word in words(expr.arg):
            yield coefficient, tuple(transposed(f) for f in reversed(word))
    elif isinstance(expr, sp.Transpose):
        yield sp.S.One, (transposed(expr.arg),)
    elif isinstance(expr, sp.Inverse):
        ((_, (symbol,)),) = words(expr.arg)  # SymPy writes the transpose of an inverse as the inverse of a transpose
        yield sp.S.One, (sp.Inverse(symbol),)
    elif isinstance(expr, sp.Identity):
        yield sp.S.One, ()
    elif not isinstance(expr, sp.ZeroMatrix):
        yield sp.S.One, (expr,)


def _cancelled(word: Word) -> Word:
    """A cyclic word without neighbours S S⁻¹."""
    for k, factor in enumerate(word):
        other = word[(k + 1) % len(word)]
        if len(word) > 1 and (factor == sp.Inverse(other) or other == sp.Inverse(factor)):
            return _cancelled(tuple(f for j, f in enumerate(word) if j not in (k, (k + 1) % len(word))))
    return word


def trace(word: Word) -> sp.Expr:
    """The trace of a product, d of the empty one; the same for all rotations and for the transpose."""
    word = _cancelled(word)
    if not word:
        return DIMENSION
    mirrored = tuple(transposed(f) for f in reversed(word))
    turns = [w[k:] + w[:k] for w in (word, mirrored) for k in range(len(word))]
    return sp.Trace(sp.MatMul(*min(turns, key=lambda w: [(f.rows != 1, str(f)) for f in w])))


def normal(scalar: sp.Expr) -> sp.Expr:
    """The normal form: equal scalars, as far as the rules of the trace go, are the same expression."""
    total = sp.S.Zero
    for term in sp.Add.make_args(sp.expand(scalar)):
        factors = sp.Mul.make_args(term)
        traces = [f for f in factors if isinstance(f, sp.Trace)]
        if not traces:
            total += term
            continue
        (found,) = traces
        rest = sp.Mul(*[f for f in factors if f is not found])
        total += sum((rest * c * trace(word) for c, word in words(found.arg)), sp.S.Zero)
    return sp.expand(sp.expand_log(total))


def gradient(scalar: sp.Expr, variable: sp.MatrixSymbol) -> Any:
    """∇ of a scalar in normal form with respect to a vector or a symmetric matrix."""
    total: Any = sp.ZeroMatrix(variable.rows, variable.cols)
    for term in sp.Add.make_args(scalar):
        coefficient, rest = term.as_coeff_Mul()
        if rest == log_det(variable):
            total += coefficient * variable.I
        elif isinstance(rest, sp.Trace):
            for part in _derivatives(next(words(rest.arg))[1], variable):
                total += coefficient * part
        elif rest.has(variable):
            raise NotImplementedError(f"no rule for the derivative of {rest}")
    return total.doit()


def _derivatives(word: Word, variable: sp.MatrixSymbol) -> Iterator[Any]:
    """∇ tr(word), one term for each factor that holds the variable: tr(AX) gives Aᵀ, tr(AX⁻¹) gives −(X⁻¹AX⁻¹)ᵀ."""
    for k, factor in enumerate(word):
        around = word[k + 1 :] + word[:k]
        mirrored = tuple(transposed(f) for f in reversed(around))
        if factor == variable:
            yield sp.MatMul(*mirrored)
        elif factor == sp.Transpose(variable):
            yield sp.MatMul(*around)
        elif factor == sp.Inverse(variable):
            yield -sp.MatMul(variable.I, *mirrored, variable.I)


@dataclass(frozen=True)
class Square:
    """weight · rᵀP⁻¹r with r = P x − b."""

    weight: sp.Expr
    matrix: Any
    vector: Any
    offset: Any

    @property
    def gap(self) -> Any:
        """r."""
        return self.matrix * self.vector - self.offset

    @property
    def scalar(self) -> sp.Expr:
        """What it stands for."""
        return self.weight * sp.Trace(self.gap.T * self.matrix.I * self.gap)


@dataclass(frozen=True)
class Whitened:
    """weight · Σφ(e), e the eigenvalues of L⁻¹DL⁻ᵀ with D = S′ − S and S = LLᵀ."""

    weight: sp.Expr
    base: Any
    moved: Any

    @property
    def scalar(self) -> sp.Expr:
        """What it stands for."""
        change = self.base.I * (self.moved - self.base)
        return self.weight * (sp.Trace(change) - log_det(self.moved) + log_det(self.base))


def complete_square(scalar: sp.Expr, vector: Any) -> tuple[Square, sp.Expr]:
    """(the square that takes up every term with the vector x, what is left without x)."""
    quadratic: list[tuple[sp.Expr, list[Any]]] = []
    linear: list[tuple[sp.Expr, list[Any]]] = []
    for term in sp.Add.make_args(scalar):
        if term.has(vector):
            coefficient, found = term.as_coeff_Mul()
            (_, word) = next(words(found.arg))
            inside = [f for f in word if f not in (vector, sp.Transpose(vector))]
            (quadratic if len(word) - len(inside) == 2 else linear).append((coefficient, inside))
    (weight, (matrix,)) = quadratic[0]
    if len(quadratic) != 1 or any(len(inside) != 1 for _, inside in linear):
        raise NotImplementedError(f"no square of {vector} in {scalar}")
    columns = [(c, f.arg if isinstance(f, sp.Transpose) else f) for c, (f,) in linear]
    offset = sp.MatAdd(*[-c / (2 * weight) * f for c, f in columns]).doit()
    square = Square(weight, matrix, vector, offset)
    return square, normal(scalar - square.scalar)


def whiten(scalar: sp.Expr) -> tuple[Whitened, sp.Expr]:
    """(the divergence that takes up two log-determinants of opposite weights, what is left)."""
    dets = {t.as_coeff_Mul()[1]: t.as_coeff_Mul()[0] for t in sp.Add.make_args(scalar) if t.has(sp.Determinant)}
    if len(dets) != 2 or sum(dets.values()) != 0:
        raise NotImplementedError(f"no ratio of two determinants in {scalar}")
    (base,), (moved,) = ([f.args[0].arg for f, c in dets.items() if (c > 0) == sign] for sign in (True, False))
    found = Whitened(dets[log_det(base)], base, moved)
    return found, normal(scalar - found.scalar)
