"""Sweeps → functors around functions of the C header, each in a loop of badmm_kernels/gpu/sweep.cuh."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ...ir import nodes as ir
from ..c.interface import PRECISIONS, normals_signature, sweep_signature
from ..python.sweeps import tested as operands_tested
from .functors import BOUNDS, HEAVY_BOUNDS, WIDTHS, entry, mask, method, values

INCLUDE, NOTE = "sweep.cuh", ", which may draw normals"


def coordinates(module: ir.OptimizerModule) -> Iterator[str]:
    """The generator's functor, and those of the sweeps."""
    yield _generator(module)
    yield from (_coordinate(s, module) for s in module.kernels)


def entries(module: ir.OptimizerModule) -> Iterator[str]:
    """The kernels."""
    yield _noise()
    yield from (_entries(s) for s in module.kernels)


def _generator(optimizer: ir.OptimizerModule) -> str:
    """The normals of one block, which every sweep inherits."""
    lines = [f"    static constexpr int LANES = {optimizer.generator.lanes};"]
    for precision in PRECISIONS:
        kind, count = WIDTHS[precision]
        words = ", ".join(f"badmm::Word {p}" for p in optimizer.generator.params)
        call = f"{normals_signature(optimizer, precision).name}({', '.join(optimizer.generator.params)}, numbers);"
        head = f"    __device__ static void draw({words}, {values(kind, 'numbers', count, constant=False)})"
        lines.append(f"{head}\n    {{\n        {call}\n    }}")
    return "\n".join([f"// {optimizer.generator.formula}", "struct normals {", *lines, "};"])


def tested(sweep: ir.Sweep) -> list[tuple[int, str]]:
    """(value number, domain) of what a pass tests: results, and the operands that no result answers for."""
    found = [(k, o.domain) for k, o in enumerate(sweep.operands) if o in operands_tested(sweep)]
    first = len(sweep.operands) + len(sweep.normals)
    return [*found, *((first + k, r.domain) for k, r in enumerate(sweep.results))]


def _coordinate(sweep: ir.Sweep, optimizer: ir.OptimizerModule) -> str:
    """The functor of one coordinate."""
    sizes = {
        "IN": len(sweep.operands),
        "NORMALS": len(sweep.normals),
        "OUT": len(sweep.results),
        "SCALAR": len(sweep.scalars),
    }
    masks = {
        "POSITIVE": mask([k for k, domain in tested(sweep) if domain == "positive"]),
        "NEGATIVE": mask([]),
        "CHECKED": mask([k for k, domain in tested(sweep) if domain != "positive"]),
    }
    lines = [
        f"    static constexpr int {', '.join(f'{n} = {v}' for n, v in sizes.items())};",
        f"    static constexpr unsigned {', '.join(f'{n} = {v}' for n, v in masks.items())};",
        *(_at(sweep, optimizer, p) for p in PRECISIONS),
    ]
    comment = textwrap.fill(sweep.formula, 116, initial_indent="// ", subsequent_indent="// ")
    return "\n".join([comment, f"struct {sweep.name} : normals {{", *lines, "};"])


def _at(sweep: ir.Sweep, optimizer: ir.OptimizerModule, precision: str) -> str:
    kind, count = WIDTHS[precision][0], len(sweep.results)
    inputs = [f"x[{k}]" for k in range(len(sweep.operands) + len(sweep.normals))]
    inputs += [f"s[{k}]" for k in range(len(sweep.scalars))]
    name = sweep_signature(optimizer, sweep, precision).name
    if count == 1:
        body = f"y[0] = {name}({', '.join(inputs)});"
    else:
        body = f"{name}({', '.join([*inputs, *(f'&y[{k}]' for k in range(count))])});"
    parameters = [
        values(kind, "x", len(sweep.operands) + len(sweep.normals)),
        values(kind, "y", count, constant=False),
    ]
    return method("void", "at", parameters, body, bool(sweep.scalars))


def _entries(sweep: ir.Sweep) -> str:
    lines = []
    for precision in PRECISIONS:
        kind, wide = WIDTHS[precision]
        for width in (wide, 1):
            loop = f"badmm::sweep<{kind}, {width}, coordinate::{sweep.name}>"
            lines.append(entry(f"{sweep.name}_{precision}x{width}", loop, HEAVY_BOUNDS, "badmm::Sweep"))
    return "\n".join(lines)


def _noise() -> str:
    names = [(f"noise_{p}x1", f"badmm::noise<{WIDTHS[p][0]}, coordinate::normals>") for p in PRECISIONS]
    return "\n".join(entry(name, loop, BOUNDS, "badmm::Sweep") for name, loop in names)
