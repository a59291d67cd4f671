"""Exact directional derivatives of A at rational points: matrix identities at d = 3 without symbolic swell."""

from __future__ import annotations

from typing import Any

import sympy as sp

from ..calculus.elementwise import Calculus
from ..calculus.slots import Slots, entries


class DirectionalDerivatives:
    """Rational functions of two steps ε and δ around rational points: the exact directional derivatives of A."""

    def __init__(self, c: Calculus) -> None:
        self.field, self.epsilon, self.delta = sp.field("epsilon,delta", sp.QQ)
        self.c = c
        symbols = [c.at.natural[k][i, j] for k, i, j in entries(c.at.natural)]
        terms = [t.as_coeff_Mul() for t in sp.Add.make_args(c.at.log_partition)]
        self.logs = [(q, sp.lambdify(symbols, r.args[0])) for q, r in terms if isinstance(r, sp.log)]
        numerator, denominator = sp.fraction(
            sp.together(sum((q * r for q, r in terms if not isinstance(r, sp.log)), sp.S.Zero))
        )
        self.ratio = tuple(sp.lambdify(symbols, sp.expand(e)) for e in (numerator, denominator))

    def number(self, value: sp.Rational) -> Any:
        """A rational number as an element of the field."""
        return self.field(sp.QQ(int(value.p), int(value.q)))

    def move(self, base: Slots, *moves: tuple[Any, Slots]) -> list[Any]:
        """Independent entries of base + Σ step · direction."""
        return [
            self.number(base[k][i, j]) + sum(step * self.number(v[k][i, j]) for step, v in moves)
            for k, i, j in entries(base)
        ]

    def slope(self, at: list[Any], step: Any) -> Any:
        """∂A/∂step along moved entries; logarithms by their own derivative, the rest as one fraction."""
        numerator, denominator = (f(*at) for f in self.ratio)
        total = (numerator / denominator).diff(step)
        for coefficient, argument in self.logs:
            value = argument(*at)
            total += self.number(coefficient) * value.diff(step) / value
        return total

    def mean(self, at: list[Any], towards: list[Any]) -> Any:
        """⟨μ(λ), v⟩ = ∂A(λ + δv)/∂δ at δ = 0, both depending on ε."""
        return self.slope([a + self.delta * v for a, v in zip(at, towards, strict=True)], self.delta).subs(
            self.delta, 0
        )

    def first(self, value: Any) -> Any:
        """The value at ε = 0."""
        return value.subs(self.epsilon, 0)

    def kl_slope(self, q: Slots, p: Slots, v: Slots) -> Any:
        """d/dε KL(q + εv ‖ p) at 0, from KL = A(p) − A(q) − ⟨μ_q, p − q⟩."""
        moved = self.move(q, (self.epsilon, v))
        towards = [a - b for a, b in zip(self.move(p), moved, strict=True)]
        return self.first(-self.slope(moved, self.epsilon) - self.mean(moved, towards).diff(self.epsilon))

    def fisher(self, q: Slots, along: Slots, v: Slots) -> Any:
        """⟨v, F(q) along⟩ = ∂²A/∂ε∂δ."""
        return self.first(self.mean(self.move(q, (self.epsilon, along)), self.move(v)).diff(self.epsilon))
