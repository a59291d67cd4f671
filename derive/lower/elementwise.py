"""The kernels of a factorising family: each public function with its derived expression, lowered to one IR kernel."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from ..calculus import domain
from ..calculus.elementwise import CoupledRoot, ScalarRoot
from ..calculus.family import Domain
from ..ir.nodes import (
    Expr,
    FamilyKernel,
    Let,
    Map,
    Op,
    Operand,
    Stmt,
    Var,
)
from .expressions import lower
from .members import Lowered, operands, text
from .newton import coupled_newton, newton

RULE = "Khan & Rue, arXiv:2107.04562"


class Builder(Lowered):
    """Lowers the calculus of one factorising family."""

    @property
    def natural_domains(self) -> tuple[str, ...]:
        """Where an inverse map's results must lie."""
        return tuple(s.domain for s in self.family.natural)

    def conversions(self) -> list[FamilyKernel]:
        """The four maps between natural, standard and expectation parameters."""
        c, f = self.calculus, self.family
        standard, expectation = (tuple(s.symbol for s in slots) for slots in (f.standard, f.expectation))
        forward = [m[0, 0] for m in c.at.natural_of_standard]
        back = [m[0, 0] for m in c.standard_of_natural]
        mean = self.first_guarded([m[0, 0] for m in c.expectation_of_standard])
        whole = [((), back)]
        if self.conditions:
            whole = [(standard, back), ((), self.first_guarded(list(standard)))]
        return [
            self.map("natural_from_standard", operands(f.standard), [((), forward)], f"{RULE}, section 2"),
            self.map("standard_from_natural", operands(f.natural), whole, f"{RULE}, section 2"),
            self.map(
                "expectation_from_natural",
                operands(f.natural),
                [(standard, back), ((), mean)],
                f"{RULE}, section 2: mu = grad A",
            ),
            self.inverse(expectation),
        ]

    def inverse(self, expectation: tuple[sp.Symbol, ...]) -> Map:
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
            exprs = [m[0, 0] for m in root]
            at = dict(zip((s.symbol for s in self.family.natural), exprs, strict=True))
            for condition in self.conditions:
                exprs[0] = domain.guarded(exprs[0], condition.positive.xreplace(at))
            closed = self.map(name, inputs, [((), exprs)], source)
            return replace(closed, result_domains=self.natural_domains)
        solver, gap = newton(root)
        self.functions[solver.name] = solver
        statements, (value,) = lower([gap], share=False)
        first = str(root.unknown)
        body: list[Stmt] = [*statements, Let("gap", value), Let(first, Op("call", (Var("gap"),), solver.name))]
        formula = f"{first} from {root.residual} = 0 by Newton, then {text(list(root.others.values()))}"
        return self.solved(body, root.others, inputs, formula, source)

    def coupled_inverse(
        self, root: CoupledRoot, expectation: tuple[sp.Symbol, ...], inputs: tuple[Operand, ...], source: str
    ) -> Map:
        """λ(μ) by Newton's method in all standard parameters at once."""
        equations = ", ".join(f"{m} = {s}" for m, s in zip(root.mean, expectation, strict=True))
        formula = f"{', '.join(map(str, root.unknowns))} from {equations} by Newton"
        return self.solved([*coupled_newton(root, expectation)], {}, inputs, formula, source)

    def solved(
        self,
        body: list[Stmt],
        others: dict[sp.Symbol, sp.Expr],
        inputs: tuple[Operand, ...],
        formula: str,
        source: str,
    ) -> Map:
        """λ(μ) from statements that name some standard parameters, and the others."""
        results: list[Expr] = []
        exprs = [m[0, 0] for m in self.calculus.at.natural_of_standard]
        combined = set().union(*(e.free_symbols for e in exprs if not e.is_Symbol)) & set(others)
        for symbol in sorted(combined, key=str):
            statements, (value,) = lower([others[symbol]], f"{symbol}_", share=False, accurate=True)
            body += [*statements, Let(str(symbol), value)]
        single = {symbol: e for symbol, e in others.items() if symbol not in combined}
        for e in self.first_guarded(exprs):
            statements, (value,) = lower([e.xreplace(single)], f"r{len(results)}_", share=False)
            body += statements
            results.append(value)
        return Map(
            "natural_from_expectation", inputs, self.used_scalars({}), (), tuple(body), tuple(results), formula,
            source, True, False, self.natural_domains,
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

    def densities(self) -> list[Map]:
        """log q(θ), for plots, sampling and moments without a closed form; of two variables also the conditional of
        the first and the marginal of the second."""
        c, f = self.calculus, self.family
        variables = [
            Operand(str(v), str(v), self.support_domain(*bounds))
            for v, bounds in zip(f.variables, f.bounds, strict=True)
        ]
        given = c.conditional
        wanted = {"log_density": (variables, [c.stable_log_density])}
        if given is not None:
            wanted["log_marginal"] = (variables[1:], [given.log_marginal])
            wanted["conditional"] = (variables[1:], [given.mean, given.precision])
        # near the mode its terms are differences of rounded means: float32 has too few digits for them
        names = {"conditional": ("mean", "precision")}
        return [
            replace(
                self.map(name, (*own, *operands(f.natural)), self.staged(exprs), f"{RULE}, section 2", promote=True),
                result_names=names.get(name, ()),
            )
            for name, (own, exprs) in wanted.items()
        ]

    def support_domain(self, low: sp.Expr, high: sp.Expr) -> Domain:
        """The domain that a kernel tests of a variable with this support."""
        return "real" if self.family.is_discrete else "positive" if low == 0 else "negative" if high == 0 else "real"

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
        rows = self.first_guarded(rows)
        stages = [
            self.standard_stage(factor, *rows),
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
        partition = c.log_partition_of_standard if self.conditions else c.at.log_partition
        sums = [
            ("log_partition", operands(f.natural), partition, f"{RULE}, section 2", ("",)),
            ("entropy", operands(f.natural), c.stable_entropy, "H = A - <lambda, mu> - E[log b]", ("",)),
            ("kl", pair, c.stable_kl, "KL = A(p) - A(q) - <mu_q, p - q>, stable form", ("_q", "_p")),
        ]
        return [self.reduction(*row) for row in sums if row[2] is not None]

    def of_inequalities(self) -> list[Map]:
        """Where inequalities are stated: how far along a ray they hold, and dλ for a change of the standard parameters,
        in which every vector of signs is a member."""
        f, eta = self.family, self.calculus.change
        if not f.domain:
            return []
        found = [domain.margin(f, k, eta) for k in range(len(f.domain))]
        results = [m.result for m in found]
        for condition in self.conditions:
            results[0] = domain.guarded(results[0], condition.positive)
        stages = [stage for m in found for stage in m.stages] + [((), results)]
        moved = tuple(Operand(f"direction.{s.name}", str(d), "real") for s, d in zip(f.natural, eta, strict=True))
        source = "Wainwright & Jordan, 2008, section 3.2: the domain of lambda is convex; here a cone"
        margin = self.map("margin", (*operands(f.natural, "natural"), *moved), stages, source, promote=True)
        names = tuple(f"of_inequality_{k + 1}" for k in range(len(found)))
        return [replace(margin, result_names=names), self.natural_change()]

    def natural_change(self) -> Map:
        """dλ for a change of the standard parameters."""
        c, f = self.calculus, self.family
        steps = [sp.Symbol(f"d_{slot.symbol}", real=True) for slot in f.standard]
        rows = list(c.jacobian(c.at.natural_of_standard, c.at.standard) * sp.Matrix(steps))
        along = tuple(Operand(f"change.{slot.name}", str(d), "real") for slot, d in zip(f.standard, steps, strict=True))
        return self.map("natural_change", (*operands(f.standard), *along), [((), rows)], f"{RULE}, section 2")
