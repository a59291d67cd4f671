"""The lines of a round as kernels: one slot, the same for every family."""

from __future__ import annotations

import sympy as sp

from ..ir.names import renamed
from ..ir.nodes import ClientSum, Kernel, Let, Map, Operand, Scalar, Var
from ..updates import admm
from .expressions import hoist, lower, uniform_ir

PAPER = "Möllenhoff et al., arXiv:2506.13150"


def then(first: Map, second: Map, value: str, name: str, result_names: tuple[str, ...]) -> Map:
    """Two maps of one result in one pass: `second` reads the first's result as its operand `value`. Nothing is
    rearranged, so that the results are those of the two calls in turn, bit for bit."""
    assert not first.body and not second.body and first.slotwise and second.slotwise
    new = f"{value}_new"
    count = len(first.uniforms)
    names = {value: new, **{u: f"u{count + k}" for k, (u, _) in enumerate(second.uniforms)}}
    uniforms = [*first.uniforms, *((names[u], e) for u, e in second.uniforms)]
    inputs = [*first.operands, *(o for o in second.operands if o.variable != value and o not in first.operands)]
    return Map(
        name,
        tuple(inputs),
        (*first.scalars, *second.scalars),
        tuple(uniforms),
        (Let(new, first.results[0]),),
        (Var(new), renamed(second.results[0], names)),
        f"{new} = {first.formula}, then {second.formula.replace(value, new)}",
        f"{first.source}, then {second.source.removeprefix(f'{PAPER}, ')}",
        slotwise=True,
        result_names=result_names,
    )


def admm_kernels() -> list[Kernel]:
    """The lines of a round, for one slot; the same for every family."""
    real = "real"

    def build(
        name: str,
        expr: sp.Expr,
        arrays: dict[str, sp.Symbol],
        scalars: tuple[Scalar, ...],
        symbols: set[sp.Symbol],
        source: str,
    ) -> Kernel:
        hoisted, table = hoist(expr, symbols)
        statements, (value,) = lower([hoisted], share=False)
        inputs = tuple(Operand(argument, str(symbol), real) for argument, symbol in arrays.items())
        uniforms = uniform_ir(table)
        if name == "server_total":
            return ClientSum(
                name, inputs, scalars, uniforms, tuple(statements), value, f"sum over clients of {expr}", source
            )
        return Map(name, inputs, scalars, uniforms, tuple(statements), (value,), str(expr), source, slotwise=True)

    rho, damping, alpha = (
        Scalar("rho", "rho", "positive"),
        Scalar("damping", "gamma", "fraction"),
        Scalar("alpha", "alpha", "fraction"),
    )
    clients = Scalar("num_clients", "K", "count")
    a = admm
    server = {"natural_client": a.lam_k, "dual": a.eta}
    kernels: list[Kernel] = [
        build(
            "client_map",
            a.client_map(),
            {"natural_global": a.lam_g, "dual": a.eta, "gradient": a.grad},
            (rho,),
            {a.rho},
            f"{PAPER}, client line",
        ),
        build(
            "dual_update",
            a.dual_update(),
            {"dual": a.eta, "natural_global": a.lam_g, "natural_client": a.lam_k},
            (rho, damping),
            {a.rho, a.gamma},
            f"{PAPER}, dual line",
        ),
        build(
            "server_contribution",
            a.server_contribution(),
            server,
            (alpha, clients),
            {a.alpha, a.K},
            f"{PAPER}, server line as a sum",
        ),
        build(
            "server_total",
            a.server_contribution(),
            server,
            (alpha, clients),
            {a.alpha, a.K},
            f"{PAPER}, server line as a sum",
        ),
        build(
            "server_update",
            a.server_update(),
            {"natural_prior": a.lam_0, "total": a.total},
            (alpha,),
            {a.alpha},
            f"{PAPER}, server line",
        ),
    ]
    dual, contribution = (next(k for k in kernels if k.name == n) for n in ("dual_update", "server_contribution"))
    assert isinstance(dual, Map) and isinstance(contribution, Map)
    return [*kernels, then(dual, contribution, str(a.eta), "round_update", ("dual", "contribution"))]
