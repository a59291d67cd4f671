"""The functions of the C header as records: names, parameters, results. C and Fortran are printed from them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from derive import ir
from derive.emit_docs import PURPOSE, SCALAR_TEXT, is_slotwise

PRECISIONS = ("f64", "f32")  # in this order: a float form may call the double one
DOMAIN_TEXT = {"real": "finite", "positive": "positive", "negative": "negative"}
_SPELLED = {
    "λ": "lambda", "μ": "mu", "η": "eta", "ρ": "rho", "α": "alpha", "γ": "gamma", "θ": "theta", "∇": "grad ",
    "Σ": "sum", "‖": "||", "←": "<-", "−": "-", "ö": "oe", "ü": "ue", "ä": "ae", "₀": "_0",
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name, its precision, and whether a result is stored where it points."""

    name: str
    precision: str
    is_result: bool = False


@dataclass(frozen=True)
class Signature:
    """One C function; `result` is the precision of what it returns, "" for void, "int" for a truth value."""

    name: str
    parameters: tuple[Parameter, ...]
    result: str


def ascii_text(text: str) -> str:
    """Text as every compiler reads it: Greek letters spelled, accents dropped."""
    spelled = "".join(_SPELLED.get(c, c) for c in text.replace("γρ", "γ ρ").replace("∇_", "grad_"))
    plain = unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode()
    return plain.replace("  ", " ")


def parameter_name(kernel: ir.Kernel, operand: ir.Operand) -> str:
    """An operand's public argument name as an identifier; slotwise kernels have one argument a slot already."""
    return operand.argument.replace(".", "_")


def result_names(kernel: ir.Map, module: ir.Module) -> tuple[str, ...]:
    """What the results of a map with several are called: their slots."""
    if is_slotwise(kernel):
        names: tuple[str, ...] = kernel.result_names
    else:
        kind = kernel.name.split("_from_")[0] if "_from_" in kernel.name else "natural"
        names = module.slots[kind]
    assert len(names) == len(kernel.results), f"{kernel.name}: {len(kernel.results)} results, names {names}"
    return tuple(f"out_{name}" for name in names)


def map_signature(kernel: ir.Map, module: ir.Module, precision: str) -> Signature:
    """A map's: operands, scalars in double, then where to put the results unless there is one."""
    inputs = [Parameter(parameter_name(kernel, o), precision) for o in kernel.operands]
    scalars = [Parameter(s.argument, "f64") for s in kernel.scalars]
    single = len(kernel.results) == 1
    outputs = [] if single else [Parameter(n, precision, True) for n in result_names(kernel, module)]
    name = f"badmm_{module.family}_{kernel.name}_{precision}"
    return Signature(name, (*inputs, *scalars, *outputs), precision if single else "")


def term_signature(kernel: ir.Reduction | ir.ClientSum, module: ir.Module) -> Signature:
    """A reduction's or a client sum's: one term, everything in double."""
    names = [parameter_name(kernel, o) for o in kernel.operands] + [s.argument for s in kernel.scalars]
    return Signature(f"badmm_{module.family}_{kernel.name}_term", tuple(Parameter(n, "f64") for n in names), "f64")


def function_signature(function: ir.Function) -> Signature:
    """A scalar function's: double to double."""
    return Signature(f"badmm_{function.name}", tuple(Parameter(p, "f64") for p in function.params), "f64")


def outside_signature(precision: str) -> Signature:
    """The domain test's."""
    names = ("value", "bound")
    return Signature(f"badmm_outside_{precision}", tuple(Parameter(n, precision) for n in names), "int")


def kernel_signatures(module: ir.Module) -> Iterator[tuple[ir.Map | ir.Reduction | ir.ClientSum, list[Signature]]]:
    """Every kernel that the header has, each with its functions."""
    for kernel in module.kernels:
        if isinstance(kernel, ir.Map):
            yield kernel, [map_signature(kernel, module, p) for p in PRECISIONS]
        elif not isinstance(kernel, ir.MatrixMap):
            yield kernel, [term_signature(kernel, module)]


def functions_of(modules: Mapping[str, ir.Module]) -> list[ir.Function]:
    """The scalar functions of all families, callees first; one name means one function."""
    found: dict[str, ir.Function] = {}
    for module in modules.values():
        for function in module.functions:
            if found.setdefault(function.name, function) != function:
                raise ValueError(f"{function.name}: expected one definition, got another in {module.family}")
    return list(found.values())


def comment_lines(kernel: ir.Map | ir.Reduction | ir.ClientSum) -> list[str]:
    """Purpose, formula, what each argument means and its domain, source."""
    purpose = PURPOSE[kernel.name]
    if not isinstance(kernel, ir.Map):
        over = "clients" if isinstance(kernel, ir.ClientSum) else "coordinates"
        purpose += f" This is one term: sum over {over}, in double."
    where = [
        f"{parameter_name(kernel, o)} ({DOMAIN_TEXT[o.domain]}){'' if o.variable == o.argument else f': {o.variable}'}"
        for o in kernel.operands
    ]
    formula = kernel.formula.removeprefix("sum over clients of ").removeprefix("sum of ")
    return [
        ascii_text(line)
        for line in (
            purpose,
            f"Formula: {formula}",
            f"Arguments: {'; '.join(where)}.",
            *(f"  {SCALAR_TEXT[s.argument]}" for s in kernel.scalars),
            f"Source: {kernel.source}.",
        )
    ]
