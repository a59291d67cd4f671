"""Kernels of coordinates → inline C functions: a map in float and double, a sum as one term in double."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...ir import nodes as ir
from . import interface as ci
from .printer import TYPE, Printer, assigned_names, cast, comment, define

INCLUDES = '#include "badmm/special.h"'
MATRIX_NOTE = (
    "Its functions take whole matrices: badmm/arrays/{}.h; the lines of a round, entry by entry: badmm/round.h."
)


def parts(module: ir.Module) -> Iterator[str]:
    """The functions of a family or a likelihood."""
    for kernel, signatures in ci.kernel_signatures(module):
        yield kernel_text(kernel, signatures)


def family_notes(module: ir.FamilyModule | ir.RoundModule) -> list[str]:
    """What the functions of a family or of a round do not do."""
    if isinstance(module, ir.FamilyModule) and module.has_matrices:
        return [MATRIX_NOTE.format(module.name)]
    return [
        "Functions ending in _f32 and _f64 compute one coordinate; those ending in _term give one term of a sum.",
        "Nothing is checked: badmm_outside_f32 and badmm_outside_f64 (badmm/special.h) test a value's domain.",
    ]


def loss_notes(_module: ir.LossModule) -> list[str]:
    """What a likelihood's functions do not do."""
    return [
        "Functions ending in _f32 and _f64 compute one row; supports are not tested, and a loss that overflows is",
        "infinite. expected_loss is exact, or a trapezoidal rule with a relative error below 1e-13.",
    ]


def unused(kernel: ir.Elementwise, results: Sequence[ir.Expr], names: Mapping[str, str]) -> str:
    """A line that says which parameters are deliberately not read."""
    nodes: list[ir.Expr | ir.Stmt] = [*kernel.body, *results, *(value for _, value in kernel.uniforms)]
    read = {name for node in nodes for name in ir.reads(node)}
    given = [*(o.variable for o in kernel.operands), *(s.variable for s in kernel.scalars)]
    idle = [names[v] for v in given if v not in read]
    return "".join(f"    {ignored(name)}\n" for name in idle)


def ignored(name: str) -> str:
    """A statement that says that a parameter is deliberately not read."""
    return f"{cast('void', name)};"


def renamed(kernel: ir.Elementwise) -> dict[str, str]:
    """IR variables → parameter names; a local value that is named as a parameter is gets a name of its own."""
    names = {o.variable: ci.parameter_name(o) for o in kernel.operands}
    names |= {n.variable: n.argument for n in (kernel.normals if isinstance(kernel, ir.Sweep) else ())}
    names |= {s.variable: s.argument for s in kernel.scalars}
    local = {*assigned_names(kernel.body), *(u for u, _ in kernel.uniforms)}
    if local & {*names}:
        raise ValueError(f"{kernel.name}: an input is assigned: {sorted(local & {*names})}")
    return names | {name: f"new_{name}" for name in sorted(local & {*names.values()})}


def body(kernel: ir.Elementwise, results: Sequence[ir.Expr], precision: str) -> tuple[list[str], list[str]]:
    """(lines, result expressions); uniforms are formed in double and rounded once."""
    names = renamed(kernel)
    double, own = Printer("f64", names), Printer(precision, names)
    lines = unused(kernel, results, names).splitlines()
    for name, value in kernel.uniforms:
        text = double.expr(value)
        if precision == "f32":
            text = cast("float", text)
        lines.append(f"    const {TYPE[precision]} {names.get(name, name)} = {text};")
    lines += own.statements(kernel.body, "    ", set(), assigned_names(kernel.body))
    return lines, [own.expr(r) for r in results]


def map_function(kernel: ir.Map, signature: ci.Signature, precision: str, double: ci.Signature) -> str:
    """A map in one precision; one that is computed in double calls its double form."""
    if kernel.promote and precision == "f32":
        return promoted(kernel, signature, double)
    lines, results = body(kernel, kernel.results, precision)
    return returning(signature, lines, results)


def returning(signature: ci.Signature, lines: Sequence[str], results: Sequence[str]) -> str:
    """A function that returns its one result, or stores its several ones."""
    outs = [p.name for p in signature.parameters if p.is_result]
    if not outs:
        return define(signature, [*lines, f"    return {results[0]};"])
    return define(signature, [*lines, *(f"    *{o} = {r};" for o, r in zip(outs, results, strict=True))])


def promoted(kernel: ir.Map, signature: ci.Signature, double: ci.Signature) -> str:
    """The float form of a map that computes in double: widen, call, round."""
    inputs = [p.name for p in signature.parameters if not p.is_result]
    outs = [p.name for p in signature.parameters if p.is_result]
    if not outs:
        call = f"{double.name}({', '.join(inputs)})"
        return define(signature, [f"    return {cast('float', call)};"])
    wide = [f"result_{k}" for k in range(len(outs))]
    call = f"    {double.name}({', '.join([*inputs, *(f'&{w}' for w in wide)])});"
    stores = [f"    *{o} = {cast('float', w)};" for o, w in zip(outs, wide, strict=True)]
    return define(signature, [f"    double {', '.join(wide)};", call, *stores])


def kernel_text(kernel: ir.Coordinatewise, signatures: Sequence[ci.Signature]) -> str:
    """Comment and functions of one kernel."""
    parts = [comment(ci.comment_lines(kernel))]
    if isinstance(kernel, ir.Map):
        pairs = zip(signatures, ci.PRECISIONS, strict=True)
        parts.append("\n\n".join(map_function(kernel, s, p, signatures[0]) for s, p in pairs))
    else:
        lines, (term,) = body(kernel, (kernel.term,), "f64")
        parts.append(define(signatures[0], [*lines, f"    return {term};"]))
    return "\n".join(parts)
