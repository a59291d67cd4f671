"""Optimizer IR → the Python face of an optimizer's kernels, the same on every device: records and public functions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ...ir import nodes as ir
from ..docs import STREAM_TEXT, sweep_docstring, sweep_signature
from .kernels import wrapped


def tested(sweep: ir.Sweep) -> tuple[ir.Operand, ...]:
    """The operands whose domain a pass tests: those that may be one number, or that no result answers for."""
    answered = {r.replaces for r in sweep.results if r.domain == "positive"}
    return tuple(o for o in sweep.operands if o.scalar or (o.domain == "positive" and o.argument not in answered))


def _rows(name: str, items: list[str]) -> list[str]:
    """A field of a record that is a tuple, as formatters write it."""
    if len(items) < 2:
        return [f"    {name}=({''.join(f'{i},' for i in items)}),"]
    return [f"    {name}=(", *[f"        {i}," for i in items], "    ),"]


def record(sweep: ir.Sweep, uniforms: Sequence[str], fields: Sequence[str]) -> str:
    """The record that a runtime drives; `fields` are the device's own."""
    scalars = ", ".join(s.variable for s in sweep.scalars)
    head = f"    uniforms=lambda {scalars or '*_'}: ("
    lines = [f"_{sweep.name.upper()} = SweepKernel(", f'    name="{sweep.name}",']
    lines += _rows("operands", [f'("{o.argument}", "{o.domain}", {o.scalar})' for o in sweep.operands])
    lines += _rows("normals", [f'("{n.argument}", "{n.step}", {n.kept})' for n in sweep.normals])
    lines += _rows("scalars", [f'("{s.argument}", "{s.domain}")' for s in sweep.scalars])
    if len(uniforms) < 2:
        lines.append(f"{head}{''.join(f'{u},' for u in uniforms)}),")
    else:
        lines += [head, *[f"        {u}," for u in uniforms], "    ),"]
    lines += _rows("results", [f'("{r.name}", "{r.domain}", "{r.replaces}")' for r in sweep.results])
    return "\n".join([*lines, *[f"    {f}," for f in fields], ")"])


def public_function(sweep: ir.Sweep, stream: bool = False) -> str:
    """The typed, documented function a person calls; a device's has the keyword `stream`."""
    parameters, values = sweep_signature(sweep)
    if stream:
        parameters, values = [*parameters, "stream: Any = None"], [*values, "stream"]
    head = wrapped(f"def {sweep.name}", parameters, " -> tuple[Any, ...]:")
    doc = textwrap.indent(sweep_docstring(sweep, on_device=stream), "    ")
    return f"{head}\n{doc}\n{wrapped(f'return _{sweep.name.upper()}', values, '', '    ')}"


def noise_function(g: ir.Generator, stream: bool = False) -> str:
    """The public function that draws normals alone."""
    widths = f"{len(g.single.results) * g.lanes} float32 or {len(g.double.results) * g.lanes} float64"
    parameter, value = (", stream: Any = None", ", stream") if stream else ("", "")
    told = "".join(f"    {line}\n" for line in STREAM_TEXT) if stream else ""
    return f'''def noise(seed: Any, step: Any, *, out: Any{parameter}) -> Any:
    """Standard normals at (seed, step, coordinate), written to out and returned.

    Formula: {g.formula}

    seed, step: integers of 64 bits, or one per row. out: (P,) or (K, ...), float32 or float64, C-contiguous; the
    leading axis of more than one are rows, each with coordinates from 0. A normal depends on seed, step and coordinate
    alone: not on the number of rows, coordinates or threads. Coordinates are drawn in tiles of
    {widths}: number j of the tile's block l is coordinate {g.lanes} j + l.
{told}    Source: {g.source}.
    """
    return _NOISE(seed, step, out{value})'''
