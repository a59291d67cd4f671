"""The functions of the C header as records: names, parameters, results. C and Fortran are printed from them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ...ir import nodes as ir
from ..docs import PURPOSE, scalar_text

PRECISIONS = ("f64", "f32")  # in this order: a float form may call the double one
DOMAIN_TEXT = {"real": "finite", "positive": "positive", "negative": "negative"}
_SPELLED = {"λ": "lambda", "μ": "mu", "η": "eta", "ρ": "rho", "α": "alpha", "γ": "gamma", "θ": "theta", "τ": "tau"}
_SPELLED |= {"′": "'", "″": "''", "−": "-", "∞": "infinity", "ν": "nu", "σ": "sigma"}
_SPELLED |= {"∇": "grad ", "Σ": "sum", "‖": "||", "←": "<-", "−": "-", "ö": "oe", "ü": "ue", "ä": "ae", "₀": "_0"}


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name, its type, whether a result is stored where it points, and whether it is an array."""

    name: str
    precision: str
    is_result: bool = False
    is_array: bool = False


@dataclass(frozen=True)
class Signature:
    """One C function; `result` is the precision of what it returns, "" for void, "int" for a truth value."""

    name: str
    parameters: tuple[Parameter, ...]
    result: str


def ascii_text(text: str) -> str:
    """Text as every compiler reads it: Greek letters spelled, accents dropped."""
    apart = re.sub("(?<=[α-ω])(?=[α-ω])", " ", text.replace("∇_", "grad_"))
    spelled = unicodedata.normalize("NFKD", "".join(_SPELLED.get(c, c) for c in apart))
    plain = "".join(c for c in spelled if not unicodedata.combining(c)).replace("  ", " ")
    if not plain.isascii():
        raise ValueError(f"text: expected characters that can be spelled in ASCII, got {plain!r}")
    return plain


def parameter_name(operand: ir.Operand) -> str:
    """An operand's public argument name as an identifier; slotwise kernels have one argument a slot already."""
    return operand.argument.replace(".", "_")


def result_names(kernel: ir.Map, module: ir.Module) -> tuple[str, ...]:
    """What the results of a map with several are called: their slots."""
    if kernel.result_names:
        names: tuple[str, ...] = kernel.result_names
    else:
        assert isinstance(module, ir.FamilyModule)
        kind = kernel.name.split("_from_")[0] if "_from_" in kernel.name else "natural"
        names = module.slots[kind]
    assert len(names) == len(kernel.results), f"{kernel.name}: {len(kernel.results)} results, names {names}"
    return tuple(f"out_{name}" for name in names)


def map_signature(kernel: ir.Map, module: ir.Module, precision: str) -> Signature:
    """A map's: operands, scalars in double, then where to put the results unless there is one."""
    inputs = [Parameter(parameter_name(o), precision) for o in kernel.operands]
    scalars = [Parameter(s.argument, "f64") for s in kernel.scalars]
    single = len(kernel.results) == 1
    outputs = [] if single else [Parameter(n, precision, True) for n in result_names(kernel, module)]
    name = f"badmm_{module.prefix}_{kernel.name}_{precision}"
    return Signature(name, (*inputs, *scalars, *outputs), precision if single else "")


def term_signature(kernel: ir.Reduction | ir.ClientSum, module: ir.Module) -> Signature:
    """A reduction's or a client sum's: one term, everything in double."""
    names = [parameter_name(o) for o in kernel.operands] + [s.argument for s in kernel.scalars]
    return Signature(f"badmm_{module.prefix}_{kernel.name}_term", tuple(Parameter(n, "f64") for n in names), "f64")


def sweep_signature(optimizer: ir.OptimizerModule, sweep: ir.Sweep, precision: str) -> Signature:
    """A sweep's: operands and normals, scalars in double, then where to put the results unless there is one."""
    inputs = [parameter_name(o) for o in sweep.operands] + [n.argument for n in sweep.normals]
    parameters = [Parameter(n, precision) for n in inputs] + [Parameter(s.argument, "f64") for s in sweep.scalars]
    single = len(sweep.results) == 1
    outputs = [] if single else [Parameter(f"out_{r.name}", precision, True) for r in sweep.results]
    name = f"badmm_{optimizer.name}_{sweep.name}_{precision}"
    return Signature(name, (*parameters, *outputs), precision if single else "")


def normals_signature(optimizer: ir.OptimizerModule, precision: str) -> Signature:
    """The generator's: the numbers of one block."""
    words = [Parameter(p, "word") for p in optimizer.generator.params]
    name = f"badmm_{optimizer.name}_{optimizer.generator.name}_{precision}"
    return Signature(name, (*words, Parameter("out", precision, True)), "")


def normal_signature(optimizer: ir.OptimizerModule, precision: str) -> Signature:
    """One coordinate's normal: the address, then the number."""
    seed, step, _ = optimizer.generator.params
    words = tuple(Parameter(p, "word") for p in (seed, step, "coordinate"))
    return Signature(f"badmm_{optimizer.name}_normal_{precision}", words, precision)


def optimizer_signatures(optimizer: ir.OptimizerModule) -> Iterator[tuple[str, list[Signature]]]:
    """Every function of an optimizer's header by its name without precision, in the header's order."""
    makers: list[tuple[str, Callable[[str], Signature]]] = [
        (optimizer.generator.name, partial(normals_signature, optimizer)),
        ("normal", partial(normal_signature, optimizer)),
        *((s.name, partial(sweep_signature, optimizer, s)) for s in optimizer.kernels),
    ]
    for name, make in makers:
        yield name, [make(p) for p in PRECISIONS]


def function_signature(function: ir.Function) -> Signature:
    """A scalar function's: double to double."""
    return Signature(f"badmm_{function.name}", tuple(Parameter(p, "f64") for p in function.params), "f64")


def outside_signature(precision: str) -> Signature:
    """The domain test's."""
    names = ("value", "bound")
    return Signature(f"badmm_outside_{precision}", tuple(Parameter(n, precision) for n in names), "int")


def kernel_signatures(
    module: ir.Module,
) -> Iterator[tuple[ir.Coordinatewise, list[Signature]]]:
    """Every kernel that the header has, each with its functions."""
    for kernel in module.kernels:
        if isinstance(kernel, ir.Map):
            yield kernel, [map_signature(kernel, module, p) for p in PRECISIONS]
        elif isinstance(kernel, ir.Total):
            yield kernel, [term_signature(kernel, module)]


def functions_of(modules: Mapping[str, ir.Module]) -> list[ir.Function]:
    """The scalar functions of all families, callees first; one name means one function."""
    found: dict[str, ir.Function] = {}
    for module in modules.values():
        for function in module.functions:
            if found.setdefault(function.name, function) != function:
                raise ValueError(f"{function.name}: expected one definition, got another in {module.prefix}")
    return list(found.values())


def comment_lines(kernel: ir.Coordinatewise) -> list[str]:
    """Purpose, formula, what each argument means and its domain, source."""
    purpose = PURPOSE[kernel.name]
    if not isinstance(kernel, ir.Map):
        over = "clients" if isinstance(kernel, ir.ClientSum) else "coordinates"
        purpose += f" This is one term: sum over {over}, in double."
    where = [
        f"{parameter_name(o)} ({DOMAIN_TEXT[o.domain]}){'' if o.variable == o.argument else f': {o.variable}'}"
        for o in kernel.operands
    ]
    return [
        ascii_text(line)
        for line in (
            purpose,
            f"Formula: {kernel.formula}",
            f"Arguments: {'; '.join(where)}.",
            *(f"  {scalar_text(s)}" for s in kernel.scalars),
            f"Source: {kernel.source}.",
        )
    ]
