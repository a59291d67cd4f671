"""The inverse map of a family without a closed form: a Newton iteration derived on a nearly linear objective."""

from __future__ import annotations

import sympy as sp

from ..calculus import special
from ..calculus.elementwise import CoupledRoot, ScalarRoot
from ..ir.nodes import Expr, Function, If, Let, Lit, Loop, Op, Return, Stmt, Var
from .expressions import lower


def newton(root: ScalarRoot) -> tuple[Function, sp.Expr]:
    """Newton for −R′(x) = gap, derived on 1/(−R′), nearly linear in x at both ends; (solver, the gap in μ).

    Start: R′(x) ≈ −(1 + 1/(6x + 1))/(2x) has the right first two terms as x → ∞ and the right one as x → 0; it makes
    −R′(x) = gap a quadratic equation (Minka, Estimating a gamma distribution, 2002, has the same start).
    """
    x, gap = root.unknown, sp.Symbol("gap", positive=True)
    reduced = sp.expand(special.by_stirling(root.residual))
    remainder = special.stirling_remainder_1(x)
    value = sp.expand(reduced - remainder)
    if value.has(x):
        raise NotImplementedError(f"expected the residual to depend on {x} through R' alone, got {reduced}")
    r1, r2 = sp.symbols("r1 r2", real=True)
    slope = sp.Function("slope")(x)
    objective = -1 / slope - 1 / gap
    step = (objective / sp.diff(objective, x)).subs(sp.Derivative(slope, x), r2).subs(slope, r1)
    quadratic = sp.numer(sp.together((1 + 1 / (6 * x + 1)) / (2 * x) - gap))
    start = sp.expand(max(sp.solve(quadratic, x), key=lambda s: float(s.subs(gap, 1))))
    (root_part,) = (e for e in sp.preorder_traversal(start) if e.is_Pow and e.exp == sp.S.Half)
    size, shift = start.coeff(root_part), sp.expand(start - start.coeff(root_part) * root_part)
    product = sp.cancel(sp.expand(shift**2 - size**2 * root_part**2))
    rationalised = sp.expand(12 * gap * product) / sp.expand(12 * gap * (shift - size * root_part))
    root_name = sp.Symbol("root", positive=True)
    forms = {"root": root_part, "start": start, "other": rationalised, "step": sp.factor(step)}
    lowered = {
        key: lower([e if key == "root" else e.subs(root_part, root_name)], share=False)[1][0]
        for key, e in forms.items()
    }
    body: tuple[Stmt, ...] = (
        If(Op("le", (Var("gap"), Lit("0.0"))), (Return((Var("gap"),)),)),
        Let("root", lowered["root"]),
        Let(str(x), lowered["start"]),
        If(Op("ge", (Var("gap"), Lit("3.0"))), (Let(str(x), lowered["other"]),)),
        Let("step", Var(str(x))),
        Loop(
            20,
            # the step just taken squares the error: below 2⁻²⁷ of x nothing is left for another
            Op("le", (Op("abs", (Var("step"),)), Op("mul", (Lit(repr(2.0**-27)), Var(str(x)))))),
            (
                Let("r1", Op("call", (Var(str(x)),), "stirling_remainder_1")),
                Let("r2", Op("call", (Var(str(x)),), "stirling_remainder_2")),
                Let("step", lowered["step"]),
                Let(str(x), Op("sub", (Var(str(x)), Var("step")))),
            ),
        ),
        Return((Var(str(x)),)),
    )
    doc = "Solves ln x - digamma(x) = gap by Newton on 1/(ln x - digamma(x)); returns gap where gap <= 0 (no solution)."
    return Function("shape_from_gap", ("gap",), body, doc), value


COUPLED_STEPS = 60
LARGEST_STEP = 1.5  # of a logarithm: from 1 to 1e8 in 13 steps


def coupled_newton(root: CoupledRoot, given: tuple[sp.Symbol, ...]) -> tuple[Stmt, ...]:
    """Newton for μ = given over positive parameters, in their logarithms; steps are bounded, so iterates are positive.

    A is convex, so F(λ)⁻¹(given − μ(λ)), whatever the parameters of its coordinates, ascends the concave
    ⟨λ, given⟩ − A(λ), whose maximum is the solution. The start is 1. Where there is no solution the iterates leave the
    number range.
    """
    unknowns = root.unknowns
    by = sp.symbols([f"miss_{k + 1}" for k in range(len(unknowns))], real=True)
    size = len(unknowns)
    every = [(i, j) for i in range(size) for j in range(size)]
    entries = [(i, j) for i, j in every if i <= j] if root.jacobian.is_symmetric() else every
    names = {(i, j): sp.Symbol(f"f_{i + 1}{j + 1}", real=True) for i, j in entries}
    slopes = sp.Matrix(size, size, lambda i, j: names.get((i, j), names.get((j, i))))
    solution = slopes.LUsolve(sp.Matrix(by)).applyfunc(sp.cancel)
    # logarithms as one of their ratio, which does not cancel
    gaps = [special.by_stirling(g - m) for g, m in zip(given, root.mean, strict=True)]
    values = {str(b): sp.logcombine(gap, force=True) for b, gap in zip(by, gaps, strict=True)}
    values |= {str(slopes[i, j]): special.by_stirling(root.jacobian[i, j]) for i, j in entries}
    values |= {f"step_{k + 1}": e / s for k, (e, s) in enumerate(zip(solution, unknowns, strict=True))}
    body: list[Stmt] = [Let("worst", Lit("1.0")), *[Let(str(s), Lit("1.0")) for s in unknowns]]
    body += [Let(name, Lit("0.0")) for name in (*values, "bounded")]
    inside: list[Stmt] = []
    for name, expr in values.items():
        statements, (value,) = lower([expr], prefix=f"{name}_", share=False)
        inside += [*statements, Let(name, value)]
    steps = [Var(f"step_{k + 1}") for k in range(len(unknowns))]
    largest: Expr = Op("abs", (steps[0],))
    for step in steps[1:]:
        largest = Op("select", (Op("lt", (largest, Op("abs", (step,)))), Op("abs", (step,)), largest))
    shorter = Op("div", (Lit(repr(LARGEST_STEP)), Var("worst")))
    whole = Op("le", (Var("worst"), Lit(repr(LARGEST_STEP))))
    inside += [Let("worst", largest), Let("bounded", Op("select", (whole, Lit("1.0"), shorter)))]
    for s, step in zip(unknowns, steps, strict=True):
        inside.append(Let(str(s), Op("mul", (Var(str(s)), Op("exp", (Op("mul", (step, Var("bounded"))),))))))
    settled = Op("le", (Var("worst"), Lit(repr(2.0**-27))))
    return (*body, Loop(COUPLED_STEPS, settled, tuple(inside)))
