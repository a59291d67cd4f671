"""What a family's namespace contains: each public function with its derived expression, lowered to one IR kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sympy as sp

from ..calculus import bregman, special, tails
from ..calculus.elementwise import Calculus, CoupledRoot, ScalarRoot, calculus
from ..calculus.family import Domain, Family, Slot
from ..ir.nodes import (
    Expr,
    FamilyKernel,
    FamilyModule,
    Function,
    Let,
    Map,
    Op,
    Operand,
    Reduction,
    Scalar,
    Stmt,
    Var,
    calls,
    reads,
)
from .admm import round_module
from .expressions import Quotients, hoist, lower, uniform_ir
from .lines import cut
from .matrix import matrix_kernels
from .newton import coupled_newton, newton

RULE = "Khan & Rue, arXiv:2107.04562"


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


def is_product(expr: sp.Expr) -> bool:
    """Whether an expression is a product of two or more symbols."""
    return bool(expr.is_Mul and all(a.is_Symbol for a in expr.args))


def is_transcendental(expr: sp.Expr) -> bool:
    """Whether an expression takes a logarithm, an exponential, a special function or a power that is no root."""
    functions = (sp.log, sp.exp, sp.loggamma, sp.polygamma, special.Named, *special.DEFINITIONS)
    powers = (p for p in expr.atoms(sp.Pow) if not (p.exp.is_Rational and p.exp.q <= 2))
    return any(f.free_symbols for f in expr.atoms(*functions)) or any(p.base.free_symbols for p in powers)


class Builder:
    """Lowers the calculus of one factorising family."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.calculus: Calculus = calculus(family)
        self.fixed = tuple(Scalar(s.name, str(s.symbol), s.domain) for s in family.fixed)
        self.functions: dict[str, Function] = special.library() | tails.library() | bregman.library()

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
        saturates = any(f.free_symbols for h in left for f in h.atoms(sp.exp, special.Named))
        for names, hoisted in prepared:
            statements, values = lower(list(hoisted), prefix=f"t{len(body)}", share=promote, quotients=quotients)
            body += statements
            parts = [h.as_numer_denom() for h in hoisted]
            quotients |= {n: nd for n, nd in zip(names, parts, strict=False) if all(x.is_Symbol for x in nd)}
            if names:
                body += [Let(str(n), v) for n, v in zip(names, values, strict=True) if v != Var(str(n))]
            else:
                results = values
        used = self.used_scalars(uniforms)
        body, results = cut(*inline_single_uses(body, results), promote)
        return Map(
            name,
            inputs,
            used,
            uniform_ir(uniforms),
            tuple(body),
            tuple(results),
            text(stages[-1][1]),
            source,
            promote,
            saturates=saturates,
        )

    @property
    def natural_domains(self) -> tuple[str, ...]:
        """Where an inverse map's results must lie."""
        return tuple(s.domain for s in self.family.natural)

    def used_scalars(self, uniforms: dict[sp.Symbol, sp.Expr]) -> tuple[Scalar, ...]:
        """The fixed parameters that a function takes: all of them, so that one call fits every function of the family;
        of a Gaussian's natural gradient, which is one for all Gaussians, those that it reads."""
        if not self.calculus.is_gaussian:
            return self.fixed
        free = {str(s) for e in uniforms.values() for s in e.free_symbols}
        return tuple(s for s in self.fixed if s.variable in free)

    def reduction(self, name: str, inputs: tuple[Operand, ...], expr: sp.Expr, source: str) -> Reduction:
        """A sum of one term per coordinate."""
        hoisted, uniforms = hoist(tails.stable(expr), {s.symbol for s in self.family.fixed})
        statements, (term,) = cut(*lower([hoisted], accurate=True), True)
        return Reduction(
            name,
            inputs,
            self.used_scalars(uniforms),
            uniform_ir(uniforms),
            tuple(statements),
            term,
            str(expr),
            source,
        )

    def conversions(self) -> list[FamilyKernel]:
        """The four maps between natural, standard and expectation parameters."""
        c, f = self.calculus, self.family
        standard, natural, expectation = (
            tuple(s.symbol for s in slots) for slots in (f.standard, f.natural, f.expectation)
        )
        forward = [m[0, 0] for m in c.at.natural_of_standard]
        back = [m[0, 0] for m in c.standard_of_natural]
        mean = [m[0, 0] for m in c.expectation_of_standard]
        return [
            self.map("natural_from_standard", operands(f.standard), [((), forward)], f"{RULE}, section 2"),
            self.map("standard_from_natural", operands(f.natural), [((), back)], f"{RULE}, section 2"),
            self.map(
                "expectation_from_natural",
                operands(f.natural),
                [(standard, back), ((), mean)],
                f"{RULE}, section 2: mu = grad A",
            ),
            self.inverse(natural, expectation),
        ]

    def inverse(self, natural: tuple[sp.Symbol, ...], expectation: tuple[sp.Symbol, ...]) -> Map:
        """λ(μ): the closed form, or a Newton iteration for the one equation that elimination leaves."""
        root, name, source = (
            self.calculus.natural_of_expectation,
            "natural_from_expectation",
            f"{RULE}, section 2: inverse of grad A",
        )
        inputs = operands(self.family.expectation)
        if isinstance(root, CoupledRoot):
            return self.coupled_inverse(root, expectation, inputs, source)
        if not isinstance(root, ScalarRoot):
            closed = self.map(name, inputs, [((), [m[0, 0] for m in root])], source)
            return replace(closed, result_domains=self.natural_domains)
        solver, gap = newton(root)
        self.functions[solver.name] = solver
        statements, (value,) = lower([gap], share=False)
        first = str(root.unknown)
        body = [*statements, Let("gap", value), Let(first, Op("call", (Var("gap"),), solver.name))]
        rest = {str(k): lower([v], share=False)[1][0] for k, v in root.others.items()}
        results = tuple(Var(first) if str(n) == first else rest[str(n)] for n in natural)
        formula = f"{first} from {root.residual} = 0 by Newton, then {text(list(root.others.values()))}"
        return Map(
            name, inputs, self.used_scalars({}), (), tuple(body), results, formula, source, True, False,
            self.natural_domains,
        )  # fmt: skip

    def coupled_inverse(
        self, root: CoupledRoot, expectation: tuple[sp.Symbol, ...], inputs: tuple[Operand, ...], source: str
    ) -> Map:
        """λ(μ) by Newton's method in all slots at once."""
        body = coupled_newton(root, expectation)
        results = tuple(Var(str(s)) for s in root.unknowns)
        equations = ", ".join(f"{m} = {s}" for m, s in zip(root.mean, expectation, strict=True))
        formula = f"{', '.join(map(str, root.unknowns))} from {equations} by Newton"
        return Map(
            "natural_from_expectation", inputs, self.used_scalars({}), (), body, results, formula, source, True, False,
            self.natural_domains,
        )  # fmt: skip

    def gradient(self) -> Map:
        """∇_μ L from what a client computes."""
        c, f = self.calculus, self.family
        given = [Operand(name, str(m[0, 0]), "real") for name, m in c.loss_derivatives.items()]
        exprs = c.stable_gradient
        if c.is_gaussian:
            read = set().union(*(e.free_symbols for e in exprs))
            given = [o for o in given if sp.Symbol(o.variable, real=True) in read]
            inputs, source = (
                [*operands(f.standard[:1]), *given],
                "Bonnet and Price; Khan & Rue, arXiv:2107.04562, equations 9-11",
            )
        else:
            inputs, source = [*operands(f.standard), *given], f"{RULE}, equation 5: F^-1 grad = grad in mu"
        return self.map("natural_gradient", tuple(inputs), [((), exprs)], source)

    def density(self) -> Map:
        """log q(θ), for plots, sampling and moments without a closed form."""
        f = self.family
        low, high = f.support
        domain: Domain = "real" if f.is_discrete else "positive" if low == 0 else "negative" if high == 0 else "real"
        inputs = (Operand("theta", str(f.theta), domain), *operands(f.natural))
        density = self.calculus.stable_log_density
        stages = [self.standard_stage(density), ((), [density])]
        # near the mode its terms are differences of rounded means: float32 has too few digits for them
        return self.map("log_density", inputs, stages, f"{RULE}, section 2", promote=True)

    def standard_stage(self, *used: sp.Basic) -> tuple[tuple[sp.Symbol, ...], list[sp.Expr]]:
        """The stage that names the standard parameters that expressions use."""
        slots = zip(self.family.standard, self.calculus.standard_of_natural, strict=True)
        read = {s.symbol: m[0, 0] for s, m in slots if any(e.has(s.symbol) for e in used)}
        return tuple(read), list(read.values())

    def whitening(self) -> Map:
        """A change of λ in the units of the Fisher metric."""
        c, f = self.calculus, self.family
        size = len(f.natural)
        factor = c.fisher_factor
        lower = [(i, j) for j in range(size) for i in range(j, size)]
        names = {ij: sp.Symbol(f"l_{ij[0] + 1}{ij[1] + 1}", positive=ij[0] == ij[1] or None, real=True) for ij in lower}
        change = c.change
        rows = [sum((names[i, j] * change[i] for i in range(j, size)), sp.S.Zero) for j in range(size)]
        moved = tuple(Operand(f"direction.{s.name}", str(d), "real") for s, d in zip(f.natural, change, strict=True))
        stages = [
            self.standard_stage(factor),
            (tuple(names[ij] for ij in lower), [factor[ij] for ij in lower]),
            ((), rows),
        ]
        source = f"{RULE}, section 2: F = grad^2 A; L its Cholesky factor"
        return self.map("whiten", (*operands(f.natural, "natural"), *moved), stages, source)

    def reductions(self) -> list[FamilyKernel]:
        """A, entropy and KL, in their stable forms."""
        c, f = self.calculus, self.family
        q, p, _ = c.kl
        pair = operands(f.natural, "natural_q", [m[0, 0] for m in q]) + operands(
            f.natural, "natural_p", [m[0, 0] for m in p]
        )
        sums = [
            ("log_partition", operands(f.natural), c.at.log_partition, f"{RULE}, section 2"),
            ("entropy", operands(f.natural), c.stable_entropy, "H = A - <lambda, mu> - E[log b]"),
            ("kl", pair, c.stable_kl, "KL = A(p) - A(q) - <mu_q, p - q>, stable form"),
        ]
        return [self.reduction(name, inputs, expr, source) for name, inputs, expr, source in sums if expr is not None]


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
    split = [sp.sympify(t).as_coeff_mmul() if family.is_matrix else t.as_coeff_Mul() for t in family.statistics]
    return (
        *domains.items(),
        ("SUPPORT", tuple(_bound(family, bound) for bound in family.support)),
        ("DISCRETE", family.is_discrete),
        ("STATISTICS", tuple((str(function), float(factor)) for factor, function in split)),
        ("LOSS_DERIVATIVES", tuple(calculus(family).loss_derivatives)),
    )


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
            builder.density(),
            builder.whitening(),
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
