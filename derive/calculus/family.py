"""The `Family` record: what one file under families/ states, and nothing that can be derived from it.

An exponential family is q_λ(θ) = b(θ) exp(⟨λ, T(θ)⟩ − A(λ)). A family file states T, A, b, the domain, the standard
parameters and where it is taken from. Scalar families describe one coordinate (q factorises over coordinates); matrix
families use MatrixSymbols of symbolic size `d` and are instantiated at d = 1, 2, 3 for elementwise proofs.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import sympy as sp

Domain = Literal["real", "positive", "negative", "spd", "symmetric", "count"]
DIMENSION = sp.Symbol("d", integer=True, positive=True)


class FamilyError(ValueError):
    """A family file states something inconsistent."""


@dataclass(frozen=True)
class Slot:
    """One component of a parameter: its public argument name, its symbol and the set it lives in."""

    name: str
    symbol: Any
    domain: Domain

    @property
    def is_matrix(self) -> bool:
        """Whether the slot is a d×d symmetric matrix."""
        return isinstance(self.symbol, sp.MatrixSymbol) and self.symbol.cols != 1


@dataclass(frozen=True)
class ScalarForm:
    """A family written out in scalar coordinates: one coordinate, or a matrix family at a fixed dimension."""

    dimension: int
    theta: sp.Matrix
    support: tuple[tuple[sp.Expr, sp.Expr], ...]
    natural: tuple[sp.Matrix, ...]
    standard: tuple[sp.Matrix, ...]
    expectation: tuple[sp.Matrix, ...]
    natural_of_standard: tuple[sp.Matrix, ...]
    statistics: tuple[sp.Matrix, ...]
    base_measure: sp.Expr
    log_partition: sp.Expr


@dataclass(frozen=True)
class Family:
    """T(θ), A(λ), b(θ), domains, standard parameters and citation of one exponential family.

    `fixed` are parameters that do not vary within the family (the isotropic Gaussian's precision). `support` bounds θ;
    a θ that is an integer symbol takes the whole numbers of the closed interval. A θ of two variables is a tuple, with
    a support each; the first is Gaussian given the second. `domain` are functions of λ that are positive on the domain,
    where the slots' own domains do not say it all. `moments` states expectations that log b(θ) needs and T does not
    have, as (function of θ, its expectation in λ); they are proved by integration.
    """

    name: str
    title: str
    citation: str
    theta: Any
    support: tuple[Any, ...]
    statistics: tuple[Any, ...]
    base_measure: sp.Expr
    natural: tuple[Slot, ...]
    log_partition: sp.Expr
    standard: tuple[Slot, ...]
    natural_of_standard: tuple[Any, ...]
    expectation: tuple[Slot, ...]
    fixed: tuple[Slot, ...] = ()
    domain: tuple[sp.Expr, ...] = ()
    moments: tuple[tuple[sp.Expr, sp.Expr], ...] = ()
    module: str = ""

    def __post_init__(self) -> None:
        if not self.citation.strip():
            raise FamilyError(f"{self.name}.citation: expected where the family is taken from, got none")
        for kind in ("natural", "standard", "expectation"):
            names = [slot.name for slot in getattr(self, kind)]
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise FamilyError(f"{self.name}.{kind}: expected names that differ, got {twice[0]!r} twice")
        slots = len(self.natural)
        for field in ("statistics", "natural_of_standard", "expectation"):
            if len(getattr(self, field)) != slots:
                got = len(getattr(self, field))
                raise FamilyError(f"{self.name}.{field}: expected {slots} slots, one for each of natural's, got {got}")
        allowed = {s.symbol for s in self.natural + self.fixed} | {DIMENSION}
        for name, values in (("log_partition", (self.log_partition,)), ("domain", self.domain)):
            stray = set().union(*(sp.sympify(v).free_symbols for v in values)) - allowed
            if stray:
                listed = sorted(map(str, stray))
                raise FamilyError(f"{self.name}.{name}: expected only natural and fixed parameters, got {listed}")
        for name, value in zip(("statistics", "base_measure"), (self.statistics, (self.base_measure,)), strict=True):
            free = set().union(*(sp.sympify(v).free_symbols for v in value))
            stray = free - {s.symbol for s in self.fixed} - {DIMENSION, *self.variables}
            if stray:
                listed = sorted(map(str, stray))
                raise FamilyError(f"{self.name}.{name}: expected a function of theta alone, got {listed}")

    @property
    def is_matrix(self) -> bool:
        """Whether the family couples coordinates (a slot is a matrix)."""
        return any(slot.is_matrix for slot in self.natural)

    @property
    def variables(self) -> tuple[Any, ...]:
        """The variables of θ: one symbol, or two that are drawn together."""
        return self.theta if isinstance(self.theta, tuple) else (self.theta,)

    @property
    def bounds(self) -> tuple[tuple[Any, Any], ...]:
        """The support of every variable."""
        return self.support if isinstance(self.theta, tuple) else (self.support,)

    @property
    def is_discrete(self) -> bool:
        """Whether θ is a whole number: expectations are sums."""
        return bool(self.variables[-1].is_integer)

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the family file: what a generated file says it was made from."""
        source = Path(importlib.import_module(self.module).__file__ or "").read_bytes()
        return hashlib.sha256(source).hexdigest()[:16]

    def coordinates(self, dimension: int = 1) -> ScalarForm:
        """The family in scalar coordinates; `dimension` is d for a matrix family and must be 1 otherwise."""
        if not self.is_matrix:
            if dimension != 1:
                raise FamilyError(f"dimension: expected 1 for the factorising family {self.name}, got {dimension}")
            return self._scalar_coordinates()
        replace: dict[Any, Any] = {self.theta: _entries(self.theta, dimension, real=True)}
        for slot in self.natural + self.standard + self.expectation:
            if slot.symbol not in replace:
                replace[slot.symbol] = _entries(
                    slot.symbol, dimension, real=True, positive=(dimension == 1 and slot.domain == "spd") or None
                )
        replace[DIMENSION] = sp.Integer(dimension)

        def explicit(expr: Any) -> Any:
            value = sp.sympify(expr).xreplace(replace).doit()
            return sp.Matrix(value) if getattr(value, "is_Matrix", False) else value

        return ScalarForm(
            dimension=dimension,
            theta=sp.Matrix(replace[self.theta]),
            support=self.bounds,
            natural=tuple(sp.Matrix(replace[s.symbol]) for s in self.natural),
            standard=tuple(sp.Matrix(replace[s.symbol]) for s in self.standard),
            expectation=tuple(sp.Matrix(replace[s.symbol]) for s in self.expectation),
            natural_of_standard=tuple(explicit(e) for e in self.natural_of_standard),
            statistics=tuple(explicit(e) for e in self.statistics),
            base_measure=explicit(self.base_measure),
            log_partition=_compact(explicit(self.log_partition)),
        )

    def _scalar_coordinates(self) -> ScalarForm:
        def one(value: Any) -> sp.Matrix:
            return sp.Matrix([[value]])

        return ScalarForm(
            dimension=1,
            theta=sp.Matrix(self.variables),
            support=self.bounds,
            natural=tuple(one(s.symbol) for s in self.natural),
            standard=tuple(one(s.symbol) for s in self.standard),
            expectation=tuple(one(s.symbol) for s in self.expectation),
            natural_of_standard=tuple(one(e) for e in self.natural_of_standard),
            statistics=tuple(one(e) for e in self.statistics),
            base_measure=self.base_measure,
            log_partition=self.log_partition,
        )


def _entries(symbol: sp.MatrixSymbol, d: int, **assumptions: Any) -> sp.ImmutableMatrix:
    """The d×1 or symmetric d×d matrix of scalar symbols that stands for a MatrixSymbol at dimension d."""
    assumptions = {k: v for k, v in assumptions.items() if v is not None}
    if symbol.cols == 1:
        return sp.ImmutableMatrix(d, 1, lambda i, _: sp.Symbol(f"{symbol.name}{i + 1}", real=True))
    return sp.ImmutableMatrix(
        d, d, lambda i, j: sp.Symbol(f"{symbol.name}{min(i, j) + 1}{max(i, j) + 1}", **assumptions)
    )


def _compact(expr: sp.Expr) -> sp.Expr:
    """A sum with its rational part over one denominator: small enough to differentiate at d = 3."""
    logs, rational = expr.expand().as_independent(*expr.atoms(sp.log), as_Add=True)[::-1]
    return logs + sp.cancel(rational)
