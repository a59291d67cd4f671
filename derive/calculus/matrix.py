"""The full Gaussian without indices: what follows from A(λ) on MatrixSymbols, by the rules of traces.py.

Nothing here is typed twice: expectation parameters, inverse map, natural gradient, entropy and KL are derived, and the
claims compare each with the elementwise calculus at d = 1, 2, 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from .family import DIMENSION as d, Family
from .traces import Square, Whitened, complete_square, gradient, normal, whiten


@dataclass(frozen=True)
class Divergence:
    """KL(q‖p) as a sum of non-negative terms: Σφ over the whitened change of precision, and the square of the gap
    between the means; `mean` names S_q⁻¹ξ_q."""

    whitened: Whitened
    square: Square
    mean: tuple[Any, Any]

    @property
    def scalar(self) -> sp.Expr:
        """What it stands for, in ξ_q, S_q, ξ_p, S_p."""
        return (self.whitened.scalar + self.square.scalar).xreplace(dict([self.mean]))


@dataclass(frozen=True)
class MatrixCalculus:
    """What follows from A(λ) for a family with one vector slot and one matrix slot."""

    family: Family

    @cached_property
    def log_partition(self) -> sp.Expr:
        """A(λ) in normal form."""
        return normal(self.family.log_partition)

    @cached_property
    def expectation(self) -> tuple[Any, Any]:
        """μ(λ) = ∇A(λ)."""
        xi, s = (slot.symbol for slot in self.family.natural)
        return gradient(self.log_partition, xi), gradient(self.log_partition, s)

    @cached_property
    def entropy(self) -> sp.Expr:
        """H = A(λ) − ⟨λ, μ⟩ − log b, b constant."""
        return normal(
            self.log_partition - self._inner(self.expectation, self.natural()) - sp.log(self.family.base_measure)
        )

    @cached_property
    def kl(self) -> Divergence:
        """A(λ_p) − A(λ_q) − ⟨μ_q, λ_p − λ_q⟩ with ξ_q = S_q m_q: first the square in m_q, then the determinants."""
        xi_q, s_q = self.natural("_q")
        square, rest = complete_square(self.kl_of_means, self.mean)
        whitened, left = whiten(rest)
        if left != 0:
            raise NotImplementedError(f"no stable form for the remainder {left} of {self.kl_of_means}")
        return Divergence(whitened, square, (self.mean, s_q.I * xi_q))

    @cached_property
    def kl_of_means(self) -> sp.Expr:
        """KL(q‖p) as it follows from A, with ξ_q = S_q m_q."""
        xi_q, s_q = self.natural("_q")
        return normal(self.kl_of_naturals.xreplace({xi_q: s_q * self.mean}))

    @property
    def mean(self) -> sp.MatrixSymbol:
        """m_q."""
        return sp.MatrixSymbol("m_q", d, 1)

    @cached_property
    def kl_of_naturals(self) -> sp.Expr:
        """KL(q‖p) as it follows from A, in normal form."""
        q, p = self.natural("_q"), self.natural("_p")
        a_q, a_p = (self._at(self.log_partition, x) for x in ("_q", "_p"))
        mu_q = tuple(self._at(m, "_q") for m in self.expectation)
        return normal(a_p - a_q - self._inner(mu_q, tuple(b - a for a, b in zip(q, p, strict=True))))

    def natural(self, suffix: str = "") -> tuple[Any, Any]:
        """The slots of λ, of a member of the family whose symbols have a suffix."""
        xi, s = (slot.symbol for slot in self.family.natural)
        return self._at(xi, suffix), self._at(s, suffix)

    def _at(self, expr: Any, suffix: str) -> Any:
        symbols = [slot.symbol for slot in self.family.natural]
        return expr.xreplace({v: sp.MatrixSymbol(v.name + suffix, *v.shape) for v in symbols})

    @staticmethod
    def _inner(left: tuple[Any, Any], right: tuple[Any, Any]) -> sp.Expr:
        """Σ_slots tr(λᵀμ)."""
        return sum((sp.Trace(a.T * b) for a, b in zip(left, right, strict=True)), sp.S.Zero)

    @cached_property
    def expectation_in_standard(self) -> tuple[Any, Any]:
        """μ with S⁻¹ξ written as the mean: (m, −½S⁻¹ − ½mmᵀ)."""
        (xi, s), (m, _) = ([slot.symbol for slot in slots] for slots in (self.family.natural, self.family.standard))
        mean, second = self.expectation
        table = {s.I * xi: m, sp.MatMul(xi.T, s.I): m.T}

        def rewrite(e: Any) -> Any:
            terms = sp.Add.make_args(e) if not isinstance(e, sp.MatAdd) else e.args
            return sp.MatAdd(*[_replace_product(t, xi, s, m) for t in terms]).doit()

        return mean.xreplace(table).doit(), rewrite(second)

    @cached_property
    def natural_of_expectation(self) -> tuple[Any, Any]:
        """(V⁻¹μ₁, V⁻¹) where V = S⁻¹ solves the second expectation equation, linear in S⁻¹."""
        (m, s), (mu1, mu2) = (
            [slot.symbol for slot in slots] for slots in (self.family.standard, self.family.expectation)
        )
        second = self.expectation_in_standard[1]
        unknown = sp.MatrixSymbol("V", d, d)
        linear = second.xreplace({s.I: unknown})
        terms = linear.args if isinstance(linear, sp.MatAdd) else (linear,)
        (slope,) = [t.as_coeff_mmul()[0] for t in terms if t.has(unknown)]
        rest = sp.MatAdd(*[t for t in terms if not t.has(unknown)]).xreplace({m: mu1})
        covariance = ((mu2 - rest) / slope).doit()
        precision = sp.Inverse(sp.MatrixSymbol("V", d, d))
        return covariance, (precision * mu1, precision)

    @cached_property
    def natural_gradient(self) -> tuple[Any, Any]:
        """(g − Hm, −H): Bonnet and Price through m = μ₁ and Σ = V(μ)."""
        (m, _), (mu1, mu2) = (
            [slot.symbol for slot in slots] for slots in (self.family.standard, self.family.expectation)
        )
        g, h = sp.MatrixSymbol("g", d, 1), sp.MatrixSymbol("H", d, d)
        covariance, _ = self.natural_of_expectation
        loss = normal(sp.Trace(g.T * mu1) + sp.Trace(h * covariance) / 2)
        return tuple(gradient(loss, v).xreplace({mu1: m}).doit() for v in (mu1, mu2))


def _replace_product(term: Any, xi: Any, s: Any, m: Any) -> Any:
    """S⁻¹ξξᵀS⁻¹ → mmᵀ inside one term."""
    coefficient, rest = term.as_coeff_mmul() if hasattr(term, "as_coeff_mmul") else (sp.S.One, term)
    if rest == sp.MatMul(s.I, xi, xi.T, s.I):
        return coefficient * m * m.T
    return term
