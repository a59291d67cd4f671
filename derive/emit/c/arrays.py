"""Kernels → C functions of whole arrays: they test every domain and return the place of the argument at fault.

A map runs block by block, tests in loops of their own, so that compilers vectorise both. A sum adds its blocks' sums
with compensation.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...ir import nodes as ir
from . import interface as ci, matrices
from .printer import TYPE, comment, define

Param = ci.Parameter
COUNT, AT = Param("length", "size"), Param("at", "size", True)
BOUND = {"positive": "1.0, 0.0", "negative": "-1.0, 0.0", "real": "1.0, -HUGE_VAL"}
SCALAR_FAULT = {
    "positive": "badmm_outside_f64({0}, 0.0)",
    "fraction": "badmm_outside_f64({0}, 0.0) || {0} > 1.0",
    "count": "badmm_outside_f64({0}, 0.0) || {0} < 1.0",
    "real": "badmm_outside_f64({0}, -HUGE_VAL)",
}
NOTES = [
    "Each returns 0, or the place (from 1) among its arguments of the one that is outside its domain; *at is then the",
    "index of the first element at fault, unless at is null, and what was written is void. An output may be the memory",
    "of an input. Sums are in double, compensated from block to block.",
]


def kernel_signatures(kernel: ir.Coordinatewise, module: ir.Module) -> list[ci.Signature]:
    """The array functions of one kernel."""
    if isinstance(kernel, ir.Map):
        return [_map_signature(kernel, module, p) for p in ci.PRECISIONS]
    return [_sum_signature(kernel, module)]


def signatures(module: ir.Module) -> Iterator[tuple[ir.Kernel, list[ci.Signature]]]:
    """Every kernel of a family or a likelihood, each with its array functions; a matrix function has one member."""
    for kernel in module.kernels:
        if isinstance(kernel, ir.Coordinatewise):
            yield kernel, kernel_signatures(kernel, module)
        elif isinstance(kernel, ir.MatrixMap):
            yield kernel, list(matrices.signatures(kernel, module))


def parts(module: ir.Module) -> Iterator[str]:
    """The functions of a module's header of arrays."""
    for kernel, own in signatures(module):
        if isinstance(kernel, ir.MatrixMap):
            yield matrices.function(kernel, module)
        elif isinstance(kernel, ir.Map):
            texts = (_map(kernel, s, module, p) for s, p in zip(own, ci.PRECISIONS, strict=True))
            yield f"{comment([ci.ascii_text(kernel.formula)])}\n" + "\n\n".join(texts)
        elif isinstance(kernel, ir.Total):
            text = (
                _over_clients(kernel, own[0], module)
                if isinstance(kernel, ir.ClientSum)
                else _sum(kernel, own[0], module)
            )
            yield f"{comment([ci.ascii_text(f'Sum over {kernel.over} of {kernel.formula}')])}\n{text}"


def _inputs(kernel: ir.Coordinatewise, precision: str) -> list[Param]:
    arrays = [Param(ci.parameter_name(o), precision, is_array=True) for o in kernel.operands]
    scalars = [s for s in kernel.scalars if not (isinstance(kernel, ir.ClientSum) and s.domain == "count")]
    return arrays + [Param(s.argument, "f64") for s in scalars]


def _map_signature(kernel: ir.Map, module: ir.Module, precision: str) -> ci.Signature:
    names = ("out",) if len(kernel.results) == 1 else ci.result_names(kernel, module)
    outputs = [Param(n, precision, True, True) for n in names]
    name = f"badmm_{module.prefix}_{kernel.name}_array_{precision}"
    return ci.Signature(name, (COUNT, *_inputs(kernel, precision), *outputs, AT), "int")


def _sum_signature(kernel: ir.Total, module: ir.Module) -> ci.Signature:
    assert isinstance(kernel, ir.Reduction | ir.ClientSum)
    clients = isinstance(kernel, ir.ClientSum)
    first = (Param("clients", "size"), COUNT) if clients else (COUNT,)
    name = f"badmm_{module.prefix}_{kernel.name}_{'over_clients' if clients else 'sum'}"
    return ci.Signature(name, (*first, *_inputs(kernel, "f64"), Param("out", "f64", True, clients), AT), "int")


def _scalar_tests(kernel: ir.Coordinatewise, signature: ci.Signature) -> list[str]:
    places = {p.name: k for k, p in enumerate(signature.parameters, start=1)}
    tested = [(s.argument, SCALAR_FAULT[s.domain].format(s.argument)) for s in kernel.scalars if s.argument in places]
    return [f"    if ({test}) return badmm_fault({places[name]}, 0, at);" for name, test in tested]


def _tests(
    kernel: ir.Coordinatewise, signature: ci.Signature, domains: dict[str, str], precision: str, tab: str
) -> list[str]:
    """Return at the first element outside its domain of some arrays' blocks of `block` elements from `first`."""
    places = {p.name: k for k, p in enumerate(signature.parameters, start=1)}
    lines = []
    for name, domain in domains.items():
        find = f"badmm_find_outside_{precision}(block, {name} + first, {BOUND[domain]})"
        lines += [
            f"{tab}fault = {find};",
            f"{tab}if (fault < block) return badmm_fault({places[name]}, first + fault, at);",
        ]
    return lines


def _blocks(body: list[str]) -> list[str]:
    return [
        "    for (size_t first = 0; first < length; first += 512) {",
        "        const size_t block = length - first < 512 ? length - first : 512;",
        "        size_t fault = block;",
        *body,
        "    }",
    ]


def _map(kernel: ir.Map, signature: ci.Signature, module: ir.Module, precision: str) -> str:
    given = {ci.parameter_name(o): o.domain for o in kernel.tested}
    outs = [p.name for p in signature.parameters if p.is_array and p.is_result]
    produced = dict(zip(outs, kernel.result_domains or ("real",) * len(outs), strict=True))
    inputs = [f"{p.name}[i]" if p.is_array else p.name for p in _inputs(kernel, precision)]
    name = ci.map_signature(kernel, module, precision).name
    if len(outs) == 1:
        run = [f"            out[i] = {name}({', '.join(inputs)});"]
    else:
        values = [f"value_{k}" for k in range(len(outs))]
        run = [
            f"            {TYPE[precision]} {', '.join(values)};",
            f"            {name}({', '.join([*inputs, *(f'&{v}' for v in values)])});",
            *(f"            {o}[i] = {v};" for o, v in zip(outs, values, strict=True)),
        ]
    tab = " " * 8
    body = [
        *_tests(kernel, signature, given, precision, tab),
        "        for (size_t i = first; i < first + block; ++i) {",
        *run,
        "        }",
        *_tests(kernel, signature, produced, precision, tab),
    ]
    return define(signature, [*_scalar_tests(kernel, signature), *_blocks(body), "    return 0;"])


def _term(kernel: ir.Total, module: ir.Module, index: str) -> str:
    assert isinstance(kernel, ir.Reduction | ir.ClientSum)
    arguments = [f"{ci.parameter_name(o)}[{index}]" for o in kernel.operands]
    counted = isinstance(kernel, ir.ClientSum)
    arguments += [
        "BADMM_CAST(double, clients)" if counted and s.domain == "count" else s.argument for s in kernel.scalars
    ]
    return f"{ci.term_signature(kernel, module).name}({', '.join(arguments)})"


def _sum(kernel: ir.Total, signature: ci.Signature, module: ir.Module) -> str:
    assert isinstance(kernel, ir.Reduction)
    given = {ci.parameter_name(o): o.domain for o in kernel.operands}
    body = [
        "        double part = 0.0;",
        *_tests(kernel, signature, given, "f64", " " * 8),
        f"        for (size_t i = first; i < first + block; ++i) part += {_term(kernel, module, 'i')};",
        "        total = badmm_add(total, part, &lost);",
    ]
    place = len(signature.parameters) - 1
    end = [
        "    *out = total + lost;",
        f"    return badmm_outside_f64(*out, -HUGE_VAL) ? badmm_fault({place}, 0, at) : 0;",
    ]
    start = [*_scalar_tests(kernel, signature), "    double total = 0.0, lost = 0.0;"]
    return define(signature, [*start, *_blocks(body), *end])


def _over_clients(kernel: ir.Total, signature: ci.Signature, module: ir.Module) -> str:
    assert isinstance(kernel, ir.ClientSum)
    body = [
        "        for (size_t i = first; i < first + block; ++i) out[i] = 0.0;",
        "        for (size_t k = 0; k < clients; ++k) {",
        "            for (size_t i = first; i < first + block; ++i)",
        f"                out[i] += {_term(kernel, module, 'k * length + i')};",
        "        }",
        *_tests(kernel, signature, {"out": "real"}, "f64", " " * 8),
    ]
    return define(signature, [*_scalar_tests(kernel, signature), *_blocks(body), "    return 0;"])
