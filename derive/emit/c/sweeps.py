"""Optimizer IR → C: one header with the steps of one coordinate and the generator of their normals."""

from __future__ import annotations

from collections.abc import Iterator

from ...ir import nodes as ir
from ..docs import operand_text, sweep_scalar_text
from . import interface as ci
from .maps import body, returning
from .printer import TYPE, Printer, assigned_names, comment, define


def comments(optimizer: ir.OptimizerModule) -> dict[str, list[str]]:
    """What stands above each function: purpose, formula, arguments, source."""
    g = optimizer.generator
    single, double = len(g.single.results), len(g.double.results)
    found = {
        g.name: [
            f"Standard normals of one block: {single} in float, {double} in double.",
            f"Formula: {g.formula}.",
            f"Arguments: {', '.join(g.params)}: words of 64 bits; out: where the numbers go.",
            f"Source: {g.source}.",
        ],
        "normal": [
            "The standard normal of one coordinate; many are drawn faster by whole blocks.",
            f"Formula: coordinates come in tiles of {single * g.lanes} (float) or {double * g.lanes} (double); "
            f"number j of the tile's block l is coordinate {g.lanes} j + l.",
            f"Source: {g.source}.",
        ],
    }
    for sweep in optimizer.kernels:
        names = dict.fromkeys(o.argument.split(".")[0] for o in sweep.operands)
        texts = [operand_text(n) for n in names]
        texts += [f"{n.argument}: a standard normal." for n in sweep.normals]
        texts += [sweep_scalar_text(s, "infinity") for s in sweep.scalars]
        lines = [sweep.purpose, f"Formula: {sweep.formula}", *(f"  {t}" for t in texts), f"Source: {sweep.source}."]
        found[sweep.name] = lines
    return {name: [ci.ascii_text(line) for line in lines] for name, lines in found.items()}


def normals(optimizer: ir.OptimizerModule, precision: str) -> str:
    """The numbers of one block."""
    g = optimizer.generator
    draw = g.single if precision == "f32" else g.double
    printer = Printer(precision, kinds=dict.fromkeys(g.params, "word"))
    lines = printer.statements(draw.body, "    ", set(g.params), assigned_names(draw.body))
    lines += [f"    out[{k}] = {printer.expr(e)};" for k, e in enumerate(draw.results)]
    return define(ci.normals_signature(optimizer, precision), lines)


def normal(optimizer: ir.OptimizerModule, precision: str) -> str:
    """One coordinate's number."""
    g = optimizer.generator
    seed, step, _ = g.params
    count = len((g.single if precision == "f32" else g.double).results)
    tile = count * g.lanes
    block = f"coordinate / {tile}u * {g.lanes}u + coordinate % {g.lanes}u"
    lines = [
        f"    {TYPE[precision]} numbers[{count}];",
        f"    badmm_{optimizer.name}_{g.name}_{precision}({seed}, {step}, {block}, numbers);",
        f"    return numbers[coordinate % {tile}u / {g.lanes}u];",
    ]
    return define(ci.normal_signature(optimizer, precision), lines)


def step(optimizer: ir.OptimizerModule, sweep: ir.Sweep, precision: str) -> str:
    """A sweep at one coordinate."""
    lines, results = body(sweep, [r.value for r in sweep.results], precision)
    return returning(ci.sweep_signature(optimizer, sweep, precision), lines, results)


def parts(module: ir.OptimizerModule) -> Iterator[str]:
    """The generator, and the step of every sweep."""
    texts = comments(module)
    both = {
        module.generator.name: [normals(module, p) for p in ci.PRECISIONS],
        "normal": [normal(module, p) for p in ci.PRECISIONS],
        **{s.name: [step(module, s, p) for p in ci.PRECISIONS] for s in module.kernels},
    }
    for name, codes in both.items():
        yield f"{comment(texts[name])}\n" + "\n\n".join(codes)


def notes(_module: ir.OptimizerModule) -> list[str]:
    """What the functions do not do."""
    return [
        "Functions ending in _f32 and _f64 compute one coordinate. Nothing is checked: the new precision has to be "
        "positive and finite, everything else finite (badmm/special.h has the tests).",
    ]
