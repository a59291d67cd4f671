"""Likelihood IR → Numba source: loops over rows that read each input once and write three outputs.

Expectations of a profile come from tables of it (badmm_kernels/cpu/quadrature.py) within the loop itself: an array that
a callee takes is counted as in use at every row, which costs as much as the row. Where the tables do not reach, the
rule runs node by node in `_quadrature_*`.
"""

from __future__ import annotations

import json

from ...ir import nodes as ir
from ...lower.quadrature import REACH, statements
from ...paths import KERNELS
from ..python.kernels import python_tuple, wrapped
from ..python.rows import INPUTS, public_functions
from .printer import JIT, Printer, function, uniforms

COMPILED_AGAINST = (KERNELS / "cpu" / "quadrature.py",)
TABLES = ("levels", "rates", "origins", "reaches", "nodes", "value", "slope", "curvature")
TAB = " " * 8


def parts(module: ir.LossModule) -> list[str]:
    """The functions, loops, records and public functions of a likelihood."""
    found = [function(f) for f in module.functions]
    for kernel in module.kernels:
        for k, q in enumerate(quadratures(kernel)):
            found += [_profile(k, q), _quadrature(k, q)]
    found += [_expectation_loop(k) if isinstance(k, ir.Expectation) else _loop(k) for k in module.kernels]
    found += [_record(k, module) for k in module.kernels]
    return found + public_functions(module)


def quadratures(kernel: ir.Map) -> tuple[ir.Quadrature, ...]:
    """The quadratures of a kernel that is an expectation."""
    return kernel.quadratures if isinstance(kernel, ir.Expectation) else ()


def imports(_module: ir.LossModule, body: str) -> list[str]:
    """What the runtime of rows gives."""
    tables = [n for n in ("BINS", "FIRST_BIN", "GROUP", "area_sine", "bell") if n in body]
    return [
        "from badmm_kernels.cpu.likelihood import ExpectationKernel, RowKernel",
        *([f"from badmm_kernels.cpu.quadrature import {', '.join(tables)}"] if tables else []),
    ]


def exported(module: ir.LossModule) -> list[str]:
    """The public names."""
    return [*(k.name for k in module.kernels), "growth"]


def facts(module: ir.LossModule) -> str:
    """What the namespace says of its loss."""
    stated = dict(module.facts)
    left, right = stated["GROWTH"]
    return f'''NAME = "{module.name}"
RESPONSES = {_pairs(module.responses)}
PARAMETERS = {_pairs(module.parameters)}
CONVEX = {stated["CONVEX"]}


def growth({", ".join(f"{n}: float" for n, _ in module.parameters)}) -> tuple[float, float]:
    """f″ at −∞ and ∞, the least over labels."""
    return {_limit(left)}, {_limit(right)}
'''


def _limit(expression: str) -> str:
    """A limit as Python."""
    return 'float("inf")' if expression == "inf" else expression


def _pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    listed = [f"({json.dumps(a)}, {json.dumps(b, ensure_ascii=False)})" for a, b in pairs]
    return f"({', '.join(listed)}{',' if len(listed) == 1 else ''})"


def _profile(number: int, q: ir.Quadrature) -> str:
    printer = Printer()
    lines = printer.statements(q.body, "    ")
    values = ", ".join(printer.expr(v) for v in q.values)
    doc = '    """g, g\' and g\'\' at a number."""'
    return "\n".join([JIT, f"def _profile_{number}({q.argument}):", doc, *lines, f"    return {values}"])


def _quadrature(number: int, q: ir.Quadrature) -> str:
    printer = Printer()
    lines = printer.statements(statements(q, "n_"), "    ")
    head = f"def _quadrature_{number}({q.center}, {q.spread}):"
    doc = '    """E[g], E[g\'] and E[g\'\'] under N(center, spread^2), node by node."""'
    return "\n".join([JIT, head, doc, *lines, f"    return {', '.join(q.results)}"])


def _row(kernel: ir.Map, tables: list[str]) -> list[str]:
    """The head of a loop, and its reading of one row."""
    arrays = [f"{o.variable}_in" for o in kernel.operands]
    params = ["lo", "hi"] + [p for a in arrays for p in (a, f"{a}_step")]
    params += [u for u, _ in kernel.uniforms] + tables + [f"out_{k}" for k in range(len(kernel.results))]
    lines = [JIT, wrapped(f"def _{kernel.name}", params, ":"), "    for i in range(lo, hi):"]
    return lines + [
        f"{TAB}{o.variable} = load({a}, i * {a}_step)" for o, a in zip(kernel.operands, arrays, strict=True)
    ]


def _stores(kernel: ir.Map, printer: Printer) -> list[str]:
    lines = [f"{TAB}store(out_{k}, i, {printer.expr(r)}, {k})" for k, r in enumerate(kernel.results)]
    return [*lines, "    return 0"]


def _loop(kernel: ir.Map) -> str:
    """The compiled loop over rows [lo, hi)."""
    printer = Printer()
    return "\n".join([*_row(kernel, []), *printer.statements(kernel.body, TAB), *_stores(kernel, printer)])


def _expectation_loop(kernel: ir.Expectation) -> str:
    """The compiled loop over rows [lo, hi), with the tables of every profile."""
    printer = Printer()
    tables = [f"table{k}_{t}" for k in range(len(kernel.quadratures)) for t in TABLES]
    lines = [*_row(kernel, tables), *printer.statements(kernel.before, TAB)]
    for k, q in enumerate(kernel.quadratures):
        lines += [TAB + line for line in _tabulated(k, q)]
    return "\n".join([*lines, *printer.statements(kernel.after, TAB), *_stores(kernel, printer)])


def _tabulated(k: int, q: ir.Quadrature) -> list[str]:
    """E[g], E[g′], E[g″] from tables; by `_quadrature` where they do not reach."""
    value, slope, curvature = q.results
    offset = f"{q.center} - {q.place!r}" if q.place > 0 else f"{q.center} + {-q.place!r}" if q.place else q.center
    near = repr(1 / q.distance)
    return f"""\
{value}, {slope}, {curvature} = 0.0, 0.0, 0.0
if {q.coefficient} != 0.0:
    apart = {offset}
    width = {q.spread} * {q.spread} / fma(apart, apart, {q.distance**2!r})
    place = i64(bits(width) >> u64(50)) - FIRST_BIN
    reached = place >= 0 and width < 1e300
    if reached:
        level = load(table{k}_levels, min(place, BINS - 1))
        rate = load(table{k}_rates, level)
        low = i64(area_sine(fma({-REACH!r}, {q.spread}, apart) * {near}) * rate - 1.0)
        high = i64(area_sine(fma({REACH!r}, {q.spread}, apart) * {near}) * rate + 1.0)
        reach = load(table{k}_reaches, level)
        reached = low >= -reach and high <= reach
        if reached:
            count = (high - low) // GROUP * GROUP + GROUP
            base = load(table{k}_origins, level) + low - (count - high + low) // 2
            tall = 1.0 / {q.spread}
            scale = {HALF_LOG2E!r} * tall
            shift = -{q.center} * scale
            for k in range(count):
                w = bell(fma(load(table{k}_nodes, base + k), scale, shift))
                {value} = total_of({value}, w, load(table{k}_value, base + k))
                {slope} = total_of({slope}, w, load(table{k}_slope, base + k))
                {curvature} = total_of({curvature}, w, load(table{k}_curvature, base + k))
            {value}, {slope}, {curvature} = {value} * tall, {slope} * tall, {curvature} * tall
    if not reached:
        {value}, {slope}, {curvature} = _quadrature_{k}({q.center}, {q.spread})""".splitlines()


HALF_LOG2E = 0.8493218002880191  # sqrt(1 / (2 log 2)): exp(-z^2/2) = 2^-(z times this)^2


def _record(kernel: ir.Map, module: ir.LossModule) -> str:
    """The record that badmm_kernels/cpu/likelihood.py drives."""
    profiles = [f"(_profile_{k}, {q.place!r}, {q.distance!r})" for k, q in enumerate(quadratures(kernel))]
    names = ", ".join(s.variable for s in kernel.scalars) if kernel.uniforms else "*_"
    lines = [
        f'    name="{kernel.name}",',
        f"    inputs={python_tuple(INPUTS[kernel.name])},",
        f"    responses={python_tuple(tuple(n for n, _ in module.responses))},",
        f"    parameters={python_tuple(tuple(s.argument for s in kernel.scalars))},",
        f"    uniforms=lambda {names}: {_tuple(uniforms(kernel))},",
        f"    results={len(kernel.results)},",
        f"    loop=_{kernel.name},",
    ]
    if isinstance(kernel, ir.Expectation):
        lines.append(f"    profiles={_tuple(profiles)},")
    driver = "ExpectationKernel" if isinstance(kernel, ir.Expectation) else "RowKernel"
    return "\n".join([f"_{kernel.name.upper()} = {driver}(", *lines, ")"])


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
