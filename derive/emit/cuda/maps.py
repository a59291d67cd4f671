"""Kernels of coordinates → functors around functions of the C header, each in a loop of badmm_kernels/gpu/loops.cuh."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ...ir import nodes as ir
from ...ir.names import operations
from ..c.interface import PRECISIONS, function_signature, map_signature, term_signature
from ..docs import formula_text
from .functors import BOUNDS, HEAVY_BOUNDS, WIDE_BOUNDS, WIDTHS, entry, mask, method, values

LOOPS: dict[type, str] = {ir.Map: "map", ir.Reduction: "sum", ir.ClientSum: "client_sum"}
INCLUDE, NOTE = "loops.cuh", ""


def coordinates(module: ir.Module) -> Iterator[str]:
    """The functors of a family or a likelihood."""
    yield from (_coordinate(k, module) for k in loop_kernels(module))
    yield from (_function_coordinate(f) for f in matrix_functions(module))


def entries(module: ir.Module) -> Iterator[str]:
    """The kernels of a family or a likelihood, a text per functor; those of matrices' functions together."""
    yield from (_entries(k) for k in loop_kernels(module))
    if functions := matrix_functions(module):
        yield "\n".join(_function_entries(f) for f in functions)


def loop_kernels(module: ir.Module) -> Iterator[ir.Coordinatewise]:
    """The kernels that are loops: all but the matrix functions."""
    for kernel in module.kernels:
        if isinstance(kernel, ir.Coordinatewise):
            yield kernel


def matrix_functions(module: ir.Module) -> list[ir.Function]:
    """The scalar functions that matrix functions apply to every element of an array."""
    kernels = [k for k in module.kernels if isinstance(k, ir.MatrixMap)]
    called = {name for k in kernels for node in (*k.body, *k.results) for name in ir.calls(node)}
    return [f for f in module.functions if f.name in called]


def _coordinate(kernel: ir.Coordinatewise, module: ir.Module) -> str:
    """The functor of one coordinate: how many values, their domains, the header's function."""
    tested = kernel.tested if isinstance(kernel, ir.Map) else kernel.operands
    domains = [o.domain if o in tested else "real" for o in kernel.operands]
    checked: list[int] = [] if isinstance(kernel, ir.Map) else list(range(len(domains)))
    sizes = f"IN = {len(domains)}"
    if isinstance(kernel, ir.Map):
        sizes += f", OUT = {len(kernel.results)}"
        checked = [k for k, o in enumerate(kernel.operands) if o in tested and o.domain == "real"]
        checked += range(len(domains), len(domains) + len(kernel.results))
        domains += kernel.result_domains or ("real",) * len(kernel.results)
    positive, negative = ([k for k, d in enumerate(domains) if d == kind] for kind in ("positive", "negative"))
    masks = f"POSITIVE = {mask(positive)}, NEGATIVE = {mask(negative)}, CHECKED = {mask(checked)}"
    lines = [f"    static constexpr int {sizes};", f"    static constexpr unsigned {masks};"]
    if isinstance(kernel, ir.Reduction):
        lines.append(f"    static constexpr bool JOINT = {'true' if kernel.joint else 'false'};")
    if isinstance(kernel, ir.Map):
        lines += [_at(kernel, module, p) for p in PRECISIONS]
    else:
        call = _call(term_signature(kernel, module).name, kernel)
        lines += [
            method(
                "double", "term", [values("double", "x", len(kernel.operands))], f"return {call};", bool(kernel.scalars)
            )
        ]
    comment = textwrap.fill(formula_text(kernel), 116, initial_indent="// ", subsequent_indent="// ")
    return "\n".join([comment, f"struct {kernel.name} {{", *lines, "};"])


def _function_coordinate(function: ir.Function) -> str:
    """A scalar function as a map that tests no domain: where it does not hold, its value is not used."""
    lines = [
        "    static constexpr int IN = 1, OUT = 1;",
        f"    static constexpr unsigned POSITIVE = {mask([])}, NEGATIVE = {mask([])}, CHECKED = {mask([])};",
        "    __device__ static void at(const double (&x)[1], double (&y)[1], const double *)",
        f"    {{\n        y[0] = {function_signature(function).name}(x[0]);\n    }}",
    ]
    return "\n".join([f"struct {function.name} {{", *lines, "};"])


def _function_entries(function: ir.Function) -> str:
    loops = [(w, f"badmm::map<double, {w}, coordinate::{function.name}>") for w in (WIDTHS["f64"][1], 1)]
    return "\n".join(entry(f"{function.name}_f64x{w}", loop, HEAVY_BOUNDS) for w, loop in loops)


def _call(function: str, kernel: ir.Coordinatewise, results: int = 0) -> str:
    inputs = [f"x[{k}]" for k in range(len(kernel.operands))] + [f"s[{k}]" for k in range(len(kernel.scalars))]
    return f"{function}({', '.join(inputs + [f'&y[{k}]' for k in range(results)])})"


def _at(kernel: ir.Map, module: ir.Module, precision: str) -> str:
    """`at` in one precision: the results of a coordinate."""
    kind, count = WIDTHS[precision][0], len(kernel.results)
    name = map_signature(kernel, module, precision).name
    body = f"y[0] = {_call(name, kernel)};" if count == 1 else f"{_call(name, kernel, count)};"
    parameters = [values(kind, "x", len(kernel.operands)), values(kind, "y", count, constant=False)]
    return method("void", "at", parameters, body, bool(kernel.scalars))


def is_heavy(kernel: ir.Coordinatewise) -> bool:
    """Whether a coordinate needs many registers: a root takes as many as a logarithm each time that it is inlined, and
    six values or more, 16 bytes of each, spill on sm_100 from 64 (gradients of inverse Gaussian and log-normal)."""
    if not isinstance(kernel, ir.Map):
        return isinstance(kernel, ir.Reduction)
    used = {name for node in (*kernel.body, *kernel.results) for name in operations(node)}
    return kernel.promote or "sqrt" in used or len(kernel.operands) + len(kernel.results) >= 6


def _bounds(kernel: ir.Coordinatewise) -> str:
    called = [name for node in (*kernel.body, *kernel.results) for name in ir.calls(node)]
    if isinstance(kernel, ir.Expectation) or len(kernel.operands) + len(kernel.results) + len(called) >= 12:
        return WIDE_BOUNDS
    return HEAVY_BOUNDS if is_heavy(kernel) else BOUNDS


def _entries(kernel: ir.Coordinatewise) -> str:
    """The kernels themselves: two precisions, moving 16 bytes or one element."""
    lines, bounds = [], _bounds(kernel)
    name = next(loop for kind, loop in LOOPS.items() if isinstance(kernel, kind))
    for precision in PRECISIONS:
        kind, wide = WIDTHS[precision]
        for width in (wide, 1):
            loop = f"badmm::{name}<{kind}, {width}, coordinate::{kernel.name}>"
            lines.append(entry(f"{kernel.name}_{precision}x{width}", loop, bounds))
    return "\n".join(lines)
