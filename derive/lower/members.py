"""Maps and sums over the members of one factorising family: stages, conditions of the domain, results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from ..calculus import bregman, domain, special, tails
from ..calculus.elementwise import Calculus, calculus
from ..calculus.family import Family, Slot
from ..ir.nodes import (
    Expr,
    Function,
    Joint,
    Let,
    Map,
    Op,
    Operand,
    Reduction,
    Scalar,
    Stmt,
    Var,
    reads,
)
from .expressions import Lowering, Quotients, hoist, lower, uniform_ir
from .lines import cut


def operands(
    slots: Sequence[Slot], prefix: str = "", symbols: Sequence[sp.Symbol] | None = None
) -> tuple[Operand, ...]:
    """Input arrays for the slots of one argument; `prefix` names a tuple argument."""
    symbols = symbols or [s.symbol for s in slots]
    return tuple(
        Operand(f"{prefix}.{s.name}" if prefix else s.name, str(v), s.domain)
        for s, v in zip(slots, symbols, strict=True)
    )


def text(exprs: Sequence[sp.Expr]) -> str:
    """A one-line formula for a docstring."""
    return ", ".join(str(e) for e in exprs)


def inline_single_uses(body: list[Stmt], results: list[Expr]) -> tuple[list[Stmt], list[Expr]]:
    """Statements that only name one result are folded into it."""
    for statement in list(body):
        if not isinstance(statement, Let):
            continue
        name = Var(statement.name)
        uses = sum(list(reads(s)).count(statement.name) for s in body) + sum(
            list(reads(r)).count(statement.name) for r in results
        )
        if uses == 1 and name in results:
            results = [statement.value if r == name else r for r in results]
            body.remove(statement)
    return body, results


def own_logarithms(node: Expr) -> Expr:
    """An expression with logarithms by `ln`: a loop that calls none of the library's functions vectorises."""
    if not isinstance(node, Op):
        return node
    args = tuple(own_logarithms(a) for a in node.args)
    return Op("call", args, "ln") if node.op == "log" else replace(node, args=args)


def in_double(body: Sequence[Stmt], results: Sequence[Expr]) -> tuple[list[Stmt], list[Expr]]:
    """Straight-line code that is computed in float64: with logarithms by `ln`, which is of that type alone."""
    lines = [replace(s, value=own_logarithms(s.value)) if isinstance(s, Let) else s for s in body]
    return lines, [own_logarithms(r) for r in results]


def is_product(expr: sp.Expr) -> bool:
    """Whether an expression is a product of two or more symbols."""
    return bool(expr.is_Mul and all(a.is_Symbol for a in expr.args))


def is_transcendental(expr: sp.Expr) -> bool:
    """Whether an expression takes a logarithm, an exponential, a special function or a power that is no root."""
    functions = (sp.log, sp.exp, sp.loggamma, sp.polygamma, special.Named, *special.DEFINITIONS)
    powers = (p for p in expr.atoms(sp.Pow) if not (p.exp.is_Rational and p.exp.q <= 2))
    return any(f.free_symbols for f in expr.atoms(*functions)) or any(p.base.free_symbols for p in powers)


def renamed(symbol: sp.Symbol, suffix: str) -> sp.Symbol:
    """A symbol of a second member."""
    return sp.Symbol(f"{symbol.name}{suffix}", **symbol.assumptions0)


def unguarded(expr: sp.Expr) -> sp.Expr:
    """An expression as it is on the domain."""
    return expr.replace(domain.guarded, domain.guarded.definition)


class Lowered:
    """Lowers maps and sums in the parameters of one factorising family."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.calculus: Calculus = calculus(family)
        self.fixed = tuple(Scalar(s.name, str(s.symbol), s.domain) for s in family.fixed)
        self.functions: dict[str, Function] = special.library() | tails.library() | bregman.library() | domain.library()
        self.conditions = self.calculus.conditions

    def map(
        self,
        name: str,
        inputs: tuple[Operand, ...],
        stages: Sequence[tuple[Sequence[sp.Symbol], Sequence[sp.Expr]]],
        source: str,
        promote: bool = False,
    ) -> Map:
        """An elementwise kernel computed in stages: all but the last name intermediate values, the last gives the
        results. `promote` has it compute in float64; what takes a logarithm does in any case."""
        symbols = {s.symbol for s in self.family.fixed}
        body: list[Stmt] = []
        uniforms: dict[sp.Symbol, sp.Expr] = {}
        results: list[Expr] = []
        quotients: Quotients = {}
        prepared = []
        products: dict[sp.Symbol, sp.Expr] = {}
        for names, exprs in stages:
            hoisted = []
            for e in exprs:
                h, uniforms = hoist(tails.stable(e), symbols, uniforms)
                hoisted.append(h.xreplace(products))
            # a product gets no name: a sum takes it in as a fused multiply-add, whoever compiles it
            products |= {n: h for n, h in zip(names, hoisted, strict=False) if is_product(h)}
            kept = [(n, h) for n, h in zip(names, hoisted, strict=False) if n not in products]
            prepared.append(([n for n, _ in kept], [h for _, h in kept] if names else hoisted))
        # what is left after the uniforms, which are formed in float64 in any case
        left = [h for _, part in prepared for h in part]
        promote |= any(is_transcendental(h) for h in left)
        passing = (domain.guarded, bregman.positive_part)  # an infinite argument shows in them
        found = (f for h in left for f in h.atoms(sp.exp, special.Named) if not isinstance(f, passing))
        saturates = any(f.free_symbols for f in found)
        own = {s.symbol for s in self.family.standard} if self.conditions else set()
        for names, hoisted in prepared:
            # m = ξ/S as a quotient: of a product with 1/S a compiler might make one with what m is subtracted from
            share = promote and not (names and own.issuperset(names))
            statements, values = lower(
                list(hoisted), f"t{len(body)}", share=share, accurate=bool(self.conditions), quotients=quotients
            )
            body += statements
            parts = [h.as_numer_denom() for h in hoisted]
            quotients |= {n: nd for n, nd in zip(names, parts, strict=False) if all(x.is_Symbol for x in nd)}
            if names:
                body += [Let(str(n), v) for n, v in zip(names, values, strict=True) if v != Var(str(n))]
            else:
                results = values
        used = self.used_scalars(uniforms)
        body, results = inline_single_uses(body, results)
        body, results = cut(*(in_double(body, results) if promote else (body, results)), promote)
        return Map(
            name,
            inputs,
            used,
            uniform_ir(uniforms),
            tuple(body),
            tuple(results),
            text([unguarded(e) for e in stages[-1][1]]),
            source,
            promote,
            saturates=saturates,
            joint=self.joint(inputs),
        )

    def used_scalars(self, uniforms: dict[sp.Symbol, sp.Expr]) -> tuple[Scalar, ...]:
        """The fixed parameters that a function takes: all of them, so that one call fits every function of the family;
        of a Gaussian's natural gradient, which is one for all Gaussians, those that it reads."""
        if not self.calculus.is_gaussian:
            return self.fixed
        free = {str(s) for e in uniforms.values() for s in e.free_symbols}
        return tuple(s for s in self.fixed if s.variable in free)

    def reduction(
        self, name: str, inputs: tuple[Operand, ...], expr: sp.Expr, source: str, suffixes: Sequence[str] = ("",)
    ) -> Reduction:
        """A sum of one term per coordinate, of members whose symbols end in `suffixes`; where the domain is coupled it
        is computed in their standard parameters."""
        body: list[Stmt] = []
        guarded = expr
        for suffix in suffixes if self.conditions else ():
            guarded = self.guarded(guarded, suffix)
            names, exprs = self.standard_stage(*(s.symbol for s in self.family.standard))
            member = {renamed(n, suffix): e.xreplace(self.renaming(suffix)) for n, e in zip(names, exprs, strict=True)}
            member = {n: e for n, e in member.items() if guarded.has(n)}
            named, values = lower(list(member.values()), f"s{suffix}", share=False, accurate=True)
            body += named
            body += [Let(str(n), v) for n, v in zip(member, values, strict=True) if v != Var(str(n))]
        hoisted, uniforms = hoist(tails.stable(guarded), {s.symbol for s in self.family.fixed})
        statements, (term,) = cut(*in_double(*lower([hoisted], accurate=True)), True)
        return Reduction(
            name,
            inputs,
            self.used_scalars(uniforms),
            uniform_ir(uniforms),
            (*body, *statements),
            term,
            str(expr),
            source,
            joint=self.joint(inputs),
        )

    def renaming(self, suffix: str) -> dict[sp.Symbol, sp.Symbol]:
        """The natural parameters' symbols → those of a second member."""
        return {s.symbol: renamed(s.symbol, suffix) for s in self.family.natural}

    def guarded(self, expr: sp.Expr, suffix: str = "") -> sp.Expr:
        """An expression in the standard parameters that is no number outside of the domain."""
        for condition in self.conditions:
            symbol = condition.slot.symbol
            expr = domain.guarded(expr, condition.positive_standard.xreplace({symbol: renamed(symbol, suffix)}))
        return expr

    def joint(self, inputs: Sequence[Operand]) -> tuple[Joint, ...]:
        """What must be positive of each member that a kernel's operands give slot by slot, beside the slots' signs."""
        found = []
        names = {s.symbol: sp.Symbol(s.name) for s in self.family.natural}
        for suffix, argument in {"": "natural", "_q": "natural_q", "_p": "natural_p"}.items():
            table = self.renaming(suffix)
            if {str(v) for v in table.values()} <= {o.variable for o in inputs}:
                for condition in self.conditions:
                    shown = sp.expand(condition.positive.xreplace(names))
                    value = Lowering(fuse=False).expr(condition.positive.xreplace(table))
                    found.append(Joint(argument, str(shown), value))
        return tuple(found)

    def first_guarded(self, exprs: list[sp.Expr]) -> list[sp.Expr]:
        """Results of which one is no number outside of the domain."""
        return [self.guarded(exprs[0]), *exprs[1:]]

    def standard_stage(self, *used: sp.Basic) -> tuple[tuple[sp.Symbol, ...], list[sp.Expr]]:
        """The stage that names the standard parameters that expressions use."""
        slots = zip(self.family.standard, self.calculus.standard_of_natural, strict=True)
        read = {s.symbol: m[0, 0] for s, m in slots if any(e.has(s.symbol) for e in used)}
        return tuple(read), list(read.values())

    def staged(self, exprs: list[sp.Expr]) -> list[tuple[Sequence[sp.Symbol], Sequence[sp.Expr]]]:
        """The stages of results in the standard parameters, no numbers outside of the domain."""
        guarded = self.first_guarded(exprs)
        return [self.standard_stage(*guarded), ((), guarded)]
