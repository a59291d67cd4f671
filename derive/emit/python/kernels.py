"""IR → the Python face of a family's kernels, the same on every device: the record of a kernel, and the typed and
documented function that a person calls."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence

from ...ir import nodes as ir
from ..docs import docstring, record_name, result_groups, returns_float, signature

WIDTH = 120
DRIVERS: dict[type, str] = {
    ir.Map: "MapKernel",
    ir.Reduction: "ReductionKernel",
    ir.ClientSum: "ClientSumKernel",
    ir.MatrixMap: "MatrixKernel",
}


def wrapped(head: str, items: list[str], tail: str, indent: str = "") -> str:
    """head(items)tail on one line if it fits, else the items on a line of their own, else one per line: as formatters
    do."""
    flat = f"{indent}{head}({', '.join(items)}){tail}"
    if len(flat) <= WIDTH:
        return flat
    inner = f"{indent}    {', '.join(items)}"
    if len(inner) <= WIDTH and not any(i == "*" for i in items[-1:]):
        return f"{indent}{head}(\n{inner}\n{indent}){tail}"
    return "\n".join([f"{indent}{head}(", *[f"{indent}    {i}," for i in items], f"{indent}){tail}"])


def python_tuple(items: tuple[object, ...]) -> str:
    """A tuple of strings, numbers and tuples as formatters write it."""
    shown = [
        python_tuple(i) if isinstance(i, tuple) else json.dumps(i) if isinstance(i, str) else str(i) for i in items
    ]
    return f"({', '.join(shown)}{',' if len(shown) == 1 else ''})"


def constants(module: ir.FamilyModule) -> str:
    """What a namespace says of its family."""
    slots = {kind.upper(): names for kind, names in module.slots.items()}
    named = {"NAME": module.name, **slots, "FIXED": module.fixed, **dict(module.facts)}
    return "\n".join(f"{name} = {_literal(value)}" for name, value in named.items())


def _literal(value: object) -> str:
    """A string, a number or a tuple of them as formatters write it."""
    if isinstance(value, tuple):
        parts = [_literal(part) for part in value]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if isinstance(value, float) and math.isinf(value):
        return f'float("{value}")'
    return json.dumps(value) if isinstance(value, str) else repr(value)


def listed(names: Sequence[str]) -> str:
    """__all__."""
    rows = "\n".join(f'    "{n}",' for n in sorted(names))
    return f"__all__ = [\n{rows}\n]"


def imported_lines(module: ir.FamilyModule, device: str, also: Sequence[str] = ()) -> str:
    """The import of the records of a round's lines; `also` are names that the namespace passes on."""
    names = sorted([*(record_name(k) for k in module.lines), *(f"{n} as {n}" for n in also)])
    return imported(f"badmm_kernels.{device}.round", names)


def imported(module: str, names: Sequence[str]) -> str:
    """from module import names, as formatters write it."""
    flat = f"from {module} import {', '.join(names)}"
    return flat if len(flat) <= WIDTH else f"from {module} import (\n" + "".join(f"    {n},\n" for n in names) + ")"


def _operand_lines(kernel: ir.FamilyKernel) -> list[str]:
    rows = [f'("{o.argument}", "{o.domain}"),' for o in kernel.operands]
    if len(rows) == 1:
        return [f"    operands=({rows[0]}),"]
    return ["    operands=(", *[f"        {r}" for r in rows], "    ),"]


def driver(kernel: ir.FamilyKernel) -> str:
    """The class of the record by which a runtime drives a kernel."""
    return next(name for kind, name in DRIVERS.items() if isinstance(kernel, kind))


def record(kernel: ir.FamilyKernel, uniforms: Sequence[str], fields: Sequence[str]) -> str:
    """The record that a runtime drives: operands, scalars, uniforms, results, and `fields` of the device's own."""
    lines = [f"{record_name(kernel)} = {driver(kernel)}(", f'    name="{kernel.name}",']
    lines += _operand_lines(kernel)
    if not isinstance(kernel, ir.MatrixMap):
        scalars = tuple((s.argument, s.domain) for s in kernel.scalars)
        lines.append(f"    scalars={python_tuple(scalars)},")
        names = ", ".join(s.variable for s in kernel.scalars) if uniforms else "*_"
        lines.append(f"    uniforms=lambda {names}: ({', '.join(uniforms)}{',' if len(uniforms) == 1 else ''}),")
    lines += [f"    {f}," for f in fields]
    if isinstance(kernel, ir.Map):
        domains = kernel.result_domains or ("real",) * len(kernel.results)
        lines += [f"    results={python_tuple(domains)},", f"    depends={_depends(kernel)},"]
        lines += ["    promoted=True,"] if kernel.promote else []
    return "\n".join([*lines, ")"])


def _assignments(body: Sequence[ir.Stmt]) -> Iterator[ir.Let]:
    """Every assignment, those inside branches and loops among them."""
    for s in body:
        if isinstance(s, ir.Let):
            yield s
        elif isinstance(s, ir.If):
            yield from _assignments((*s.body, *s.orelse))
        elif isinstance(s, ir.Loop):
            yield from _assignments(s.body)


def _depends(kernel: ir.Map) -> str:
    """For each result the operands whose memory its output may be: those it is computed from, and those that nothing
    reads (the isotropic metric is the same at every mean)."""
    origin = {o.variable: {k} for k, o in enumerate(kernel.operands)}
    for _ in range(2):  # what a loop computes may come from its end
        for s in _assignments(kernel.body):
            origin[s.name] = origin.get(s.name, set()).union(*(origin.get(v, set()) for v in ir.reads(s)))
    read = {name for node in (*kernel.body, *kernel.results) for name in ir.reads(node)}
    unread = {k for k, o in enumerate(kernel.operands) if o.variable not in read and o.domain == "real"}
    sets = (unread.union(*(origin.get(v, set()) for v in ir.reads(r))) for r in kernel.results)
    return python_tuple(tuple(tuple(sorted(s)) for s in sets))


def public_function(kernel: ir.FamilyKernel, module: ir.FamilyModule, stream: bool = False) -> str:
    """The typed, documented function a person calls; a device's has the keyword `stream`."""
    parameters, method, values = signature(kernel, module)
    if stream:
        parameters, values = [*parameters, "stream: Any = None"], [*values, "stream"]
    result = "Any" if returns_float(kernel) else "tuple[Any, ...]"
    if result_groups(kernel) > 1:
        result = f"tuple[{result}, ...]"
    head = wrapped(f"def {kernel.name}", parameters, f" -> {result}:")
    doc = textwrap.indent(docstring(kernel, module, on_device=stream), "    ")
    return f"{head}\n{doc}\n{wrapped(f'return {record_name(kernel)}{method}', values, '', '    ')}"
