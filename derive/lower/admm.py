"""The lines of a round as kernels: one slot, the same for every family."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sympy as sp

from ..ir.names import renamed
from ..ir.nodes import ClientSum, Let, Map, Operand, RoundModule, Scalar, Var
from ..updates import admm
from .expressions import hoist, lower, uniform_ir

PAPER = "Möllenhoff et al., arXiv:2506.13150"
FOLDER, FILES = Path(__file__).resolve().parents[1], ("updates/admm.py",)
RHO = Scalar("rho", "rho", "positive")
DAMPING = Scalar("damping", "gamma", "fraction")
STEP = Scalar("damping", "gamma", "positive")
ALPHA = Scalar("alpha", "alpha", "fraction")
CLIENTS = Scalar("num_clients", "K", "count")


@dataclass(frozen=True)
class Line:
    """One derived line: its public arguments and what each of them is in the expression."""

    name: str
    expr: sp.Expr
    arrays: dict[str, sp.Symbol]
    scalars: tuple[Scalar, ...]
    source: str
    over_clients: bool = False

    def lowered(self) -> Map | ClientSum:
        """The kernel of one slot: functions of the scalars alone are formed once."""
        names = {s.variable for s in self.scalars}
        hoisted, table = hoist(self.expr, {s for s in self.expr.free_symbols if s.name in names})
        statements, (value,) = lower([hoisted], share=False)
        inputs = tuple(Operand(argument, str(symbol), "real") for argument, symbol in self.arrays.items())
        common = (self.name, inputs, self.scalars, uniform_ir(table), tuple(statements))
        if self.over_clients:
            return ClientSum(*common, value, str(self.expr), self.source)
        return Map(*common, (value,), str(self.expr), self.source, slotwise=True)


def lines() -> tuple[Line, ...]:
    """Every line of a round that is a kernel of its own."""
    a = admm
    client = {"natural_client": a.lam_k, "dual": a.eta}
    old = {"contribution_old": a.contribution_old}
    as_sum = f"{PAPER}, server line as a sum"
    return (
        Line(
            "client_map",
            a.client_map(),
            {"natural_global": a.lam_g, "dual": a.eta, "gradient": a.grad},
            (RHO,),
            f"{PAPER}, client line",
        ),
        Line("cavity", a.cavity(), {"natural_global": a.lam_g, "dual": a.eta}, (RHO,), f"{PAPER}, client line"),
        Line(
            "dual_update",
            a.dual_update(),
            {"dual": a.eta, "natural_global": a.lam_g, "natural_client": a.lam_k},
            (RHO, DAMPING),
            f"{PAPER}, dual line",
        ),
        Line(
            "bregman_dual_update",
            a.bregman_dual_update(),
            {"dual": a.eta, "expectation_global": a.mu_g, "expectation_client": a.mu_k},
            (RHO, STEP),
            "Wang & Banerjee, NeurIPS 2014, with the Lagrangian of arXiv:2506.13150",
        ),
        Line("server_contribution", a.server_contribution(), client, (ALPHA, CLIENTS), as_sum),
        Line("server_total", a.server_contribution(), client, (ALPHA, CLIENTS), as_sum, over_clients=True),
        Line("contribution_change", a.contribution_change(), client | old, (ALPHA, CLIENTS), as_sum),
        Line(
            "server_update",
            a.server_update(),
            {"natural_prior": a.lam_0, "total": a.total},
            (ALPHA,),
            f"{PAPER}, server line",
        ),
        Line(
            "primal_residual",
            a.primal_residual(),
            {"natural_client": a.lam_k, "natural_global": a.lam_g},
            (),
            f"{PAPER}, client line",
        ),
        Line(
            "dual_residual",
            a.dual_residual(),
            {"natural_global": a.lam_g, "natural_prior": a.lam_0, "dual_total": a.dual_total},
            (),
            f"{PAPER}, server line",
        ),
    )


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


@cache
def round_module() -> RoundModule:
    """The lines of a round, for one slot, and the dual line and the contribution in one pass."""
    kernels = {line.name: line.lowered() for line in lines()}
    dual, contribution = kernels["dual_update"], kernels["server_contribution"]
    assert isinstance(dual, Map) and isinstance(contribution, Map)
    fused = then(dual, contribution, str(admm.eta), "round_update", ("dual", "contribution"))
    digest = hashlib.sha256(b"".join((FOLDER / name).read_bytes() for name in FILES)).hexdigest()[:16]
    title = "the lines of Bayesian ADMM, for one slot of any family"
    return RoundModule("round", title, PAPER, digest, (), (*kernels.values(), fused), FILES)


def expected_results() -> dict[str, list[sp.Expr]]:
    """What each kernel of a round must give, by name: the derived lines, and the two of `round_update` in turn."""
    dual = admm.dual_update()
    fused = {"round_update": [dual, admm.server_contribution().subs(admm.eta, dual)]}
    return {line.name: [line.expr] for line in lines()} | fused
