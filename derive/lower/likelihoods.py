"""What a likelihood's namespace contains, as IR: the loss and its derivatives at a predictor, their expectations, and
what of the loss does not depend on the predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sympy as sp

from ..calculus import special, tails
from ..calculus.likelihood import Likelihood
from ..calculus.losses import Loss, Profile, center, loss_of, spread, x
from ..ir.nodes import (
    Expectation,
    Expr,
    Function,
    Let,
    Lit,
    LossModule,
    Map,
    Op,
    Operand,
    Quadrature,
    Scalar,
    Stmt,
    Var,
    calls,
)
from .expressions import hoist, lower, uniform_ir
from .quadrature import statements

DERIVATIVES = ("value", "slope", "curvature")
SMALLEST = 1e-300  # variance of a predictor that is known: its square root is no zero to divide by
WEIGHT, OFFSET = Operand("weight", "weight", "real"), Operand("offset", "offset", "real")
SOURCE = "derive/calculus/losses.py"
TRAPEZOID = "Trefethen & Weideman, SIAM Review 2014: the trapezoidal rule"


class Builder:
    """Lowers one likelihood; `uniforms` gathers what depends on parameters alone, of one kernel at a time."""

    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood, self.loss = likelihood, loss_of(likelihood)
        self.responses = tuple(Operand(r.name, str(r.symbol), "real") for r in likelihood.responses)
        self.scalars = tuple(Scalar(p.name, str(p.symbol), "positive") for p in likelihood.parameters)
        self.library = special.library() | tails.library()
        self.uniforms: dict[sp.Symbol, sp.Expr] = {}

    def lowered(self, exprs: Sequence[sp.Expr], prefix: str) -> tuple[list[Stmt], list[Expr]]:
        """Statements and results; a term that a label silences is 0 whatever else stands in it."""
        parameters = {p.symbol for p in self.likelihood.parameters}
        named: list[sp.Expr] = []
        for e in exprs:
            hoisted, self.uniforms = hoist(sp.sympify(e), parameters, self.uniforms)
            named.append(hoisted)
        sums = [self._terms(e) for e in named]
        flat = [part for terms in sums for pair in terms for part in pair]
        body, values = lower(flat, prefix=prefix)
        results, at = [], 0
        for terms in sums:
            total: Expr | None = None
            for switch, _ in terms:
                factor, rest = values[at], values[at + 1]
                at += 2
                term = rest
                if switch != 1:
                    off = Op("le", (Op("abs", (factor,)), Lit("0.0")))
                    term = Op("select", (off, Lit("0.0"), Op("mul", (factor, rest))))
                total = term if total is None else Op("add", (total, term))
            results.append(total or Lit("0.0"))
        return list(body), results

    def _terms(self, expr: sp.Expr) -> list[tuple[sp.Expr, sp.Expr]]:
        """(switch, rest) of an expression's terms: switch · rest with a switch that a label can turn off, or 1."""
        labels, plain, switched = set(self.loss.binary), sp.S.Zero, []
        for term in sp.Add.make_args(expr):
            switch = sp.Mul(*[f for f in sp.Mul.make_args(term) if f.free_symbols and f.free_symbols <= labels])
            if switch != 1 and term.has(sp.exp, special.Tailed):
                switched.append((switch, term / switch))
            else:
                plain += term
        return [*([(sp.S.One, plain)] if plain != 0 else []), *switched]

    def map(
        self, name: str, inputs: tuple[Operand, ...], body: list[Stmt], results: list[Expr], formula: str, source: str
    ) -> Map:
        """A kernel of one row, in float64 whatever the arrays' type.

        Every input is a predictor's or its variance; the first takes an offset. A row of weight 0 adds nothing even
        where its loss overflows.
        """
        uniforms, self.uniforms = uniform_ir(self.uniforms), {}
        names = DERIVATIVES[: len(results)]
        weight = Var(WEIGHT.variable)
        heavy = Op("lt", (Lit("0.0"), weight))
        results = [Op("select", (heavy, Op("mul", (weight, r)), Lit("0.0"))) for r in results]
        rows = (*self.responses, WEIGHT)
        if inputs:
            first = inputs[0]
            given = replace(first, variable=f"{first.variable}_given")
            body = [Let(first.variable, Op("add", (Var(given.variable), Var(OFFSET.variable)))), *body]
            inputs, rows = (given, *inputs[1:]), (*rows, OFFSET)
        return Map(name, (*inputs, *rows), self.scalars if uniforms else (), uniforms, tuple(body),
                   tuple(results), formula, source, True, result_names=names)  # fmt: skip

    @property
    def signs(self) -> list[Stmt]:
        """The signs of labels, formed from the labels."""
        return [Let(str(s), lower([e], share=False)[1][0]) for s, e in self.loss.signs.items()]

    def at(self) -> Map:
        """f, f′, f″ at a predictor, without f's constant."""
        exprs = [self.loss.stable(k) for k in range(3)]
        body, results = self.lowered(exprs, "t")
        formula = ", ".join(str(self.loss.restored(e)) for e in exprs)
        inputs = (Operand("predictor", str(self.likelihood.predictor), "real"),)
        return self.map("loss", inputs, self.signs + body, results, formula, SOURCE)

    def constant(self) -> Map:
        """What of f does not depend on a."""
        body, results = self.lowered([self.loss.constant], "t")
        return self.map("constant", (), body, results, str(self.loss.constant), SOURCE)

    def expectation(self) -> Expectation:
        """E[f], E[f′], E[f″] for a ~ N(center, variance), without f's constant."""
        loss, variance = self.loss, Var("variance")
        known = Op("lt", (variance, Lit(repr(SMALLEST))))
        floored = Op("select", (known, Lit(repr(SMALLEST)), variance))
        before: list[Stmt] = [*self.signs, Let(str(spread), Op("sqrt", (floored,)))]
        results, quadratures = list(loss.closed_expectations), []
        for number, profile in enumerate(loss.profiles):
            stage, q = self._quadrature(number, profile)
            before += stage
            quadratures.append(q)
            factor, scale = sp.Symbol(q.coefficient, real=True), sp.Symbol(f"q{number}_scale", real=True)
            for k, name in enumerate(q.results):
                results[k] += factor * scale**k * sp.Symbol(name, real=True)
        after, values = self.lowered(results, "r")
        written_out = [s for k, q in enumerate(quadratures) for s in statements(q, f"q{k}_")]
        inputs = (Operand("center", str(center), "real"), Operand("variance", "variance", "real"))
        described = ", ".join(f"E[{d}]" for d in ("f", "f'", "f''"))
        source = TRAPEZOID if quadratures else SOURCE
        whole = self.map("expected_loss", inputs, [*before, *written_out, *after], values,
                         f"{described} for a ~ N(center, variance)", source)  # fmt: skip
        before = [whole.body[0], *before]
        return Expectation(**vars(whole), before=tuple(before), quadratures=tuple(quadratures), after=tuple(after))

    def _quadrature(self, number: int, profile: Profile) -> tuple[list[Stmt], Quadrature]:
        """The statements that form a profile's coefficient, centre and spread, and its rule."""
        prefix = f"q{number}_"
        scale = sp.Symbol(f"{prefix}scale", real=True)
        body, (c, s) = self.lowered([profile.coefficient, profile.scale], f"{prefix}c")
        more, (m,) = self.lowered([scale * center + profile.shift], f"{prefix}m")
        stage = [*body, Let(f"{prefix}coefficient", c), Let(str(scale), s), *more, Let(f"{prefix}center", m)]
        width = Op("mul", (Op("abs", (Var(str(scale)),)), Var(str(spread))))
        stage.append(Let(f"{prefix}spread", width))
        shape, values = lower(list(profile.derivatives), prefix="g")
        place, distance = profile.singularity
        names = tuple(f"{prefix}{d}" for d in DERIVATIVES)
        first, second, third = values
        q = Quadrature(f"{prefix}center", f"{prefix}spread", f"{prefix}coefficient", (names[0], names[1], names[2]),
                       str(x), tuple(shape), (first, second, third), place, distance)  # fmt: skip
        return stage, q

    def functions(self, kernels: Sequence[Map]) -> tuple[Function, ...]:
        """The scalar functions that the kernels call, callees first."""
        nodes: list[Any] = [n for k in kernels for n in (*k.body, *k.results, *(e for _, e in k.uniforms))]
        wanted: dict[str, Function] = {}

        def visit(name: str) -> None:
            if name not in wanted:
                for statement in self.library[name].body:
                    for callee in calls(statement):
                        visit(callee)
                wanted[name] = self.library[name]

        for name in sorted({name for node in nodes for name in calls(node)}):
            visit(name)
        return tuple(wanted.values())


def is_convex(loss: Loss) -> bool:
    """Whether f″ ≥ 0 at every predictor, response and parameter of a grid; a claim compares it with the kernels."""
    from itertools import product

    values: dict[str, tuple[float, ...]] = {"binary": (0, 1), "count": (0, 1, 7), "real": (-1.3, 2.0),
                                            "positive": (0.3, 2.5)}  # fmt: skip
    own = loss.likelihood
    axes = [values[r.support] for r in own.responses] + [(0.4, 3.0)] * len(own.parameters)
    symbols = [own.predictor, *(r.symbol for r in own.responses), *(p.symbol for p in own.parameters)]
    second = tails.numeric(loss.restored(loss.stable(2)), symbols)
    points = [k / 2 for k in range(-24, 25)]
    return all(second(a, *rest) >= -1e-12 for rest in product(*axes) for a in points)


def build_loss(likelihood: Likelihood) -> LossModule:
    """All kernels of one likelihood as IR."""
    builder = Builder(likelihood)
    kernels = (builder.at(), builder.constant(), builder.expectation())
    names = {p.symbol: sp.Symbol(p.name, positive=True) for p in likelihood.parameters}
    left, right = (_number(end.subs(names)) for end in builder.loss.growth)
    facts = (("CONVEX", is_convex(builder.loss)), ("GROWTH", (left, right)))
    return LossModule(
        likelihood.name,
        likelihood.title,
        likelihood.citation,
        likelihood.digest,
        builder.functions(kernels),
        kernels,
        tuple((r.name, r.support) for r in likelihood.responses),
        tuple((p.name, p.meaning) for p in likelihood.parameters),
        facts,
    )


def _number(end: sp.Expr) -> str:
    """A limit as a Python expression of the parameters."""
    return "inf" if end == sp.oo else str(end)
