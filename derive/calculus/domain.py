"""Domains that couple slots: what of λ must be positive beside the slots' own signs, and how far along a ray it is.

A family file states inequalities g(λ) > 0. What is asked for is found here: the standard parameters that are positive
or negative, and the arguments of the logarithms, roots and special functions of A, wherever their sign is not that of
the slots. Each must be a stated g times something positive, and each g must be positive at every member, so that the
stated domain is the image of the standard parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from ..ir.nodes import Function, Let, Lit, Op, Return, Var
from .bregman import positive_part
from .family import Family, FamilyError, Slot
from .special import Named


class guarded(Named):
    """x where a number that is positive on the domain is so; elsewhere no number."""

    nargs = 2

    @staticmethod
    def definition(x: sp.Expr, condition: sp.Expr) -> sp.Expr:
        return x


def library() -> dict[str, Function]:
    """The functions of this module."""
    inside = Op("lt", (Op("neg", (Var("condition"),)), Lit("0.0")))
    # not of constants alone, of which compilers warn
    small = Op("div", (Lit("0.1"), Op("fma", (Var("condition"), Var("condition"), Lit("1.0")))))
    infinite = Let("infinite", Op("div", (Lit("1e308"), small)))
    chosen = Op("select", (inside, Var("x"), Op("sub", (Var("infinite"), Var("infinite")))))
    doc = "x where the condition is positive, and no number elsewhere: outside of a domain that couples slots."
    return {"guarded": Function("guarded", ("x", "condition"), (infinite, Return((chosen,))), doc)}


@dataclass(frozen=True)
class Condition:
    """A standard parameter whose sign λ's slots do not say, and ± it, positive on the domain, in λ."""

    slot: Slot
    positive: sp.Expr

    @property
    def positive_standard(self) -> sp.Expr:
        """± the standard parameter itself."""
        return self.slot.symbol if self.slot.domain == "positive" else -self.slot.symbol


def conditions(family: Family, standard: Sequence[sp.Expr], natural: Sequence[sp.Expr]) -> tuple[Condition, ...]:
    """The standard parameters whose signs the stated inequalities say; `standard` are those of λ, `natural` is λ of
    them.

    Raises `FamilyError` for an inequality that is missing, and for one that does not hold at every member.
    """
    back = dict(zip((s.symbol for s in family.natural), natural, strict=True))
    for g in family.domain:
        held = sp.factor(sp.sympify(g).xreplace(back))
        if not held.is_positive:
            raise FamilyError(
                f"{family.name}.domain: expected {g} > 0 at every member, it is {held} in the standard parameters"
            )
    found = []
    for slot, expr in zip(family.standard, standard, strict=True):
        if slot.domain in ("positive", "negative"):
            sign = 1 if slot.domain == "positive" else -1
            if _unsaid(family, sign * expr, f"{slot.name} {'>' if sign > 0 else '<'} 0"):
                found.append(Condition(slot, sign * expr))
    for what, expr in _arguments(sp.sympify(family.log_partition)):
        _unsaid(family, expr, f"the {what} of {expr} in log_partition")
    return tuple(found)


def _unsaid(family: Family, expr: sp.Expr, what: str) -> bool:
    """Whether an expression is positive by a stated inequality alone; FamilyError where no one says so."""
    slots = {s.symbol for s in family.natural}
    if len(expr.free_symbols & slots) < 2 or expr.is_positive:
        return False
    if not any(sp.factor(expr / g).is_positive for g in family.domain):
        stated = ", ".join(f"{g} > 0" for g in family.domain) or "none"
        need = sp.fraction(sp.together(expr))[0]
        raise FamilyError(
            f"{family.name}.domain: expected an inequality that implies {what}, such as domain=({need},), got {stated}"
        )
    return True


def _arguments(expr: sp.Expr) -> Iterator[tuple[str, sp.Expr]]:
    """What A takes logarithms, roots and special functions of."""
    for call in sorted(expr.atoms(sp.log, sp.loggamma), key=sp.default_sort_key):
        yield ("logarithm" if call.func is sp.log else "log-gamma"), call.args[0]
    for power in sorted(expr.atoms(sp.Pow), key=sp.default_sort_key):
        if not power.exp.is_Integer:
            yield "root", power.base


@dataclass(frozen=True)
class Margin:
    """The infimum of the ρ with ρλ + η in the cone g > 0, in stages: names with their values, and last the result."""

    stages: tuple[tuple[tuple[sp.Symbol, ...], tuple[sp.Expr, ...]], ...]
    result: sp.Expr


def margin(family: Family, number: int, along: Sequence[sp.Symbol]) -> Margin:
    """The margin of a stated inequality at λ along η = `along`: the largest root of g(ρλ + η).

    g must be a quotient of a linear or quadratic form of λ and of slots. A linear form has the root −g(η)/g(λ), a
    quadratic one ρ₀ + √(−N(ρ₀λ + η)/N(λ)), ρ₀ where N(ρλ + η) turns: what is left under the root does not cancel where
    η is nearly a multiple of λ.
    """
    slots = [s.symbol for s in family.natural]
    form, _ = sp.fraction(sp.together(family.domain[number]))
    rho, scale = sp.Symbol("rho", real=True), sp.Symbol("scale", positive=True)
    scaled = _moved(form, slots, [scale * s for s in slots])
    degree = next((k for k in (1, 2) if sp.expand(scaled - scale**k * form) == 0), None)
    if degree is None:
        raise FamilyError(
            f"{family.name}.domain: expected a linear or a quadratic form, got {form} > 0: add the margin of another "
            "cone to derive/calculus/domain.py"
        )
    ray = sp.Poly(_moved(form, slots, [rho * s + d for s, d in zip(slots, along, strict=True)]), rho)
    if degree == 1:
        return Margin((), -ray.coeff_monomial(1) / form)
    turn = sp.Symbol(f"turn_{number + 1}", real=True)
    used = [(s, d) for s, d in zip(slots, along, strict=True) if s in form.free_symbols]
    moved = [sp.Symbol(f"moved_{number + 1}_{k + 1}", real=True) for k in range(len(used))]
    at = form.xreplace(dict(zip((s for s, _ in used), moved, strict=True)))
    return Margin(
        (
            ((turn,), (sp.factor(-ray.coeff_monomial(rho) / (2 * form)),)),
            (tuple(moved), tuple(turn * s + d for s, d in used)),
        ),
        turn + sp.sqrt(positive_part(-at / form)),
    )


def _moved(form: sp.Expr, slots: Sequence[sp.Symbol], values: Sequence[Any]) -> sp.Expr:
    """A form at other values of the slots, expanded."""
    return sp.expand(form.xreplace(dict(zip(slots, values, strict=True))))
