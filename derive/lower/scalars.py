"""The constants of a round as functions of numbers: derived with the lines, lowered without fused operations."""

from __future__ import annotations

import sympy as sp

from ..ir.nodes import Function, Return
from ..updates import admm, ivon
from .expressions import Lowering


def scalar_functions() -> tuple[Function, ...]:
    """The server step of the paper and the effective sample size of an IVON client."""
    return (
        _function(
            "server_step",
            admm.server_step(),
            {admm.rho: "rho", admm.K: "num_clients"},
            "Server step α = 1/(1 + ρK), at which the server's proximal weight is the clients' penalty ρ.",
        ),
        _function(
            "effective_sample_size",
            ivon.effective_sample_size(),
            {ivon.N: "num_points", ivon.tau: "temperature", ivon.rho: "rho"},
            "Effective sample size ess = N/(τρ) of an IVON client with N points: S = ess s, and its cavity is "
            "(λ_g + η/ρ)/ess.",
        ),
    )


def _function(name: str, expr: sp.Expr, arguments: dict[sp.Symbol, str], doc: str) -> Function:
    named = expr.xreplace({symbol: sp.Symbol(argument, positive=True) for symbol, argument in arguments.items()})
    return Function(name, tuple(arguments.values()), (Return((Lowering(fuse=False).expr(named),)),), doc)
