"""The lines of a round → Numba source: scalar functions, loops and records; families have the public functions."""

from __future__ import annotations

from ...ir import nodes as ir
from ..docs import record_name
from . import maps

NOTE = maps.NOTE


def parts(module: ir.RoundModule) -> list[str]:
    """The scalar functions, loops and records."""
    return [part for kernel in module.kernels for part in maps.compiled(kernel)]


def imports(_module: ir.RoundModule, _body: str) -> list[str]:
    """What the runtime of families gives."""
    return ["from badmm_kernels.cpu.runtime import ClientSumKernel, MapKernel"]


def facts(_module: ir.RoundModule) -> str:
    """Nothing: a line is of no family."""
    return ""


def exported(module: ir.RoundModule) -> list[str]:
    """The records, and the scalar functions."""
    scalar = [name for k in module.kernels if isinstance(k, ir.Map) for name in maps.scalar_names(k)]
    return [*(record_name(k) for k in module.kernels), *scalar]
