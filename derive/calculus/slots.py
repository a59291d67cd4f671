"""Parameters as tuples of slots: the inner product, gradients, substitution.

⟨λ, μ⟩ = Σ_slots tr(λᵀμ), so an off-diagonal entry of a symmetric slot counts twice and a gradient with respect to it is
half the partial derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

Slots = tuple[sp.Matrix, ...]
Entry = tuple[int, int, int]


def inner(left: Sequence[sp.Matrix], right: Sequence[sp.Matrix]) -> sp.Expr:
    """⟨λ, μ⟩ = Σ_slots tr(λᵀμ)."""
    return sum(((a.T * b).trace() for a, b in zip(left, right, strict=True)), sp.S.Zero)


def entries(slots: Sequence[sp.Matrix]) -> list[Entry]:
    """(slot, i, j) of the independent entries: i ≤ j of a symmetric slot, all of a vector."""
    return [
        (k, i, j) for k, m in enumerate(slots) for i in range(m.rows) for j in range(m.cols) if m.cols == 1 or i <= j
    ]


def weight(slots: Sequence[sp.Matrix], entry: Entry) -> int:
    """How often an independent entry counts in the inner product: 2 off the diagonal of a symmetric slot."""
    k, i, j = entry
    return 2 if slots[k].cols > 1 and i != j else 1


def gradient(expr: sp.Expr, slots: Sequence[sp.Matrix]) -> Slots:
    """∇ of a scalar with respect to every slot, dual to `inner`."""

    def entry(k: int, i: int, j: int) -> sp.Expr:
        low, high = (i, j) if slots[k].cols == 1 else (min(i, j), max(i, j))
        return sp.diff(expr, slots[k][low, high]) / weight(slots, (k, low, high))

    return tuple(sp.Matrix(m.rows, m.cols, lambda i, j, k=k: entry(k, i, j)) for k, m in enumerate(slots))


def substitute(slots: Sequence[sp.Matrix], old: Sequence[sp.Matrix], new: Sequence[sp.Matrix]) -> Slots:
    """Slots with the entries of `old` replaced, all at once, by those of `new`."""
    table = {old[k][i, j]: new[k][i, j] for k, i, j in entries(old)}
    return tuple(sp.Matrix(m.rows, m.cols, [e.xreplace(table) for e in m]) for m in slots)


def fresh(slots: Sequence[sp.Matrix], suffix: str) -> Slots:
    """The same slots with every symbol renamed, assumptions kept: a second member of the family."""

    def rename(symbol: sp.Symbol) -> sp.Symbol:
        return sp.Symbol(symbol.name + suffix, **symbol.assumptions0)

    return tuple(m.applyfunc(rename) for m in slots)
