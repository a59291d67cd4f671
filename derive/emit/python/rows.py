"""Likelihood IR → the Python face of its kernels: the typed and documented functions that a person calls."""

from __future__ import annotations

import textwrap

from ...ir import nodes as ir
from ..docs import PURPOSE, STREAM_TEXT
from .kernels import wrapped

INPUTS = {"loss": ("predictor",), "constant": (), "expected_loss": ("center", "variance")}
INPUT_TEXT = {
    "predictor": "predictor: x^T theta, to which the offset is added.",
    "center": "center: x^T m, to which the offset is added.",
    "variance": "variance: x^T S^-1 x >= 0.",
}
SUPPORT_TEXT = {"real": "a number", "positive": "positive", "count": "a whole number >= 0", "binary": "0 or 1"}


def public_functions(module: ir.LossModule, stream: bool = False) -> list[str]:
    """The functions `loss`, `constant` and `expected_loss`; a device's have the keyword `stream`."""
    return [_function(module, kernel, stream) for kernel in module.kernels]


def _function(module: ir.LossModule, kernel: ir.Map, stream: bool) -> str:
    inputs, responses = INPUTS[kernel.name], [n for n, _ in module.responses]
    options = ["weight", *(["offset"] if inputs else [])]
    parameters = [f"{n}: Any" for n in (*inputs, *responses)] + ["*"]
    parameters += [f"{n}: float" for n, _ in module.parameters]
    parameters += [f"{n}: Any = None" for n in (*options, "out", *(["stream"] if stream else []))]
    result = "Any" if len(kernel.results) == 1 else "tuple[Any, ...]"
    head = wrapped(f"def {kernel.name}", parameters, f" -> {result}:")
    lines = [f'"""{PURPOSE[kernel.name]}', ""]
    lines += textwrap.wrap(f"Formula (a row): {kernel.formula}", 110) + [""]
    lines += [INPUT_TEXT[n] for n in inputs]
    lines += [f"{n}: the response, {SUPPORT_TEXT[support]}." for n, support in module.responses]
    lines += [f"{n} > 0: {meaning}." for n, meaning in module.parameters]
    lines += ["weight: of the row, >= 0 (default 1)."]
    lines += ["offset: of the predictor (default 0)."] if inputs else []
    types = "float32 or float64, on one GPU" if stream else "float64"
    lines += [
        f"Arrays: (n,), {types}. Supports are not tested. out: where the results go.",
        *(STREAM_TEXT if stream else []),
    ]
    lines += [f"Source: {kernel.source}."]
    doc = textwrap.indent("\n".join([*lines, '"""']), "    ")
    used = [s.argument for s in kernel.scalars]
    unused = [n for n, _ in module.parameters if n not in used]
    values = [_tuple([*inputs, *responses]), _tuple(used), "weight", "offset" if inputs else "None", "out"]
    idle = (
        [f"    del {', '.join(unused)}  # the part of the loss that it scales is in another kernel"] if unused else []
    )
    call = f"_{kernel.name.upper()}({', '.join(values)})"
    if stream:
        call = f"on_rows(_{kernel.name.upper()}, {', '.join(values)}, stream)"
    body = f"    return {call}{'[0]' if len(kernel.results) == 1 else ''}"
    return "\n".join([head, doc, *idle, body])


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
