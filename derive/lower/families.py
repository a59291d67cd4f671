"""What a family's namespace contains: each public function with its derived expression, lowered to one IR kernel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import sympy as sp

from ..calculus import special
from ..calculus.elementwise import calculus
from ..calculus.family import Family
from ..ir.nodes import (
    FamilyKernel,
    FamilyModule,
    Function,
    calls,
)
from .admm import round_module
from .elementwise import Builder
from .matrix import matrix_kernels


def needed(functions: dict[str, Function], roots: set[str], always: Sequence[str] = ()) -> tuple[Function, ...]:
    """The functions reachable from `roots`, callees first."""
    out: dict[str, Function] = {}

    def visit(name: str) -> None:
        if name in out:
            return
        for statement in functions[name].body:
            for callee in calls(statement):
                visit(callee)
        out[name] = functions[name]

    for name in [*[n for n in functions if n in roots], *[n for n in always if n in functions]]:
        visit(name)
    return tuple(out.values())


def _bound(family: Family, bound: Any) -> float | str:
    """A bound of the support: a number, or the name of the fixed parameter that it is."""
    names = {s.symbol: s.name for s in family.fixed}
    return names[bound] if bound in names else float(bound)


def facts(family: Family) -> tuple[tuple[str, Any], ...]:
    """What a family is beside its kernels: domains of its slots, support of θ, T(θ), and the derivatives of a loss that
    `natural_gradient` is derived from.

    A statistic is written as (function of θ, factor): −½θ² is ("theta**2", -0.5).
    """
    kinds = ("natural", "standard", "expectation", "fixed")
    domains = {f"{kind.upper()}_DOMAINS": tuple(s.domain for s in getattr(family, kind)) for kind in kinds}
    named = {s.symbol: sp.Symbol(s.name) for s in family.natural}
    split = [sp.sympify(t).as_coeff_mmul() if family.is_matrix else t.as_coeff_Mul() for t in family.statistics]
    return (
        *domains.items(),
        ("VARIABLES", tuple(map(str, family.variables))),
        ("SUPPORT", tuple(tuple(_bound(family, bound) for bound in bounds) for bounds in family.bounds)),
        ("DISCRETE", family.is_discrete),
        ("INEQUALITIES", tuple(str(sp.sympify(g).xreplace(named)) for g in family.domain)),
        ("STATISTICS", tuple((str(function), float(factor)) for factor, function in split)),
        ("LOSS_DERIVATIVES", tuple(calculus(family).loss_derivatives)),
    )


@cache
def build_module(family: Family) -> FamilyModule:
    """The kernels of one family as IR, and the lines of a round that it offers."""
    slots = {kind: tuple(s.name for s in getattr(family, kind)) for kind in ("natural", "standard", "expectation")}
    fixed = tuple(s.name for s in family.fixed)
    if family.is_matrix:
        functions = special.library()
        kernels: list[FamilyKernel] = [*matrix_kernels(family)]
    else:
        builder = Builder(family)
        functions = builder.functions
        kernels = [
            *builder.conversions(),
            builder.gradient(),
            *builder.densities(),
            builder.whitening(),
            *builder.of_inequalities(),
            *builder.reductions(),
        ]
    used: set[str] = set()
    for kernel in kernels:
        nodes = [
            *getattr(kernel, "body", ()),
            *kernel.results,
        ]
        used |= {name for node in nodes for name in calls(node)}
    polygamma = ("lgamma", "digamma", "trigamma") if used & {"lgamma", "digamma", "trigamma"} else ()
    return FamilyModule(
        family.name,
        family.title,
        family.citation,
        family.digest,
        needed(functions, used, polygamma),
        tuple(kernels),
        round_module().kernels,
        slots,
        fixed,
        facts(family),
    )
