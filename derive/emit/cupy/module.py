"""IR → the Python face of the CUDA kernels: the records that badmm_kernels/gpu drives, and the public functions, those
of badmm_kernels/cpu with the keyword `stream`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...ir import nodes as ir
from ..cuda.maps import matrix_functions
from ..docs import record_name
from ..numba import matrices
from ..numba.printer import joint, uniforms
from ..python import rows, sweeps
from ..python.kernels import constants, driver, imported, imported_lines, listed, public_function, record


@dataclass(frozen=True)
class Kind:
    """Of one kind of module: parts of the body, what is imported, what the namespace says, and how errors come."""

    parts: Callable[[Any], list[str]]
    imports: Callable[[Any], list[str]]
    facts: Callable[[Any], str]
    errors: str = "domain errors come as badmm_kernels/gpu/status.py says"
    exported: Callable[[Any], list[str]] = lambda module: [k.name for k in module.kernels]


def _family_parts(module: ir.FamilyModule) -> list[str]:
    functions = [f'{f.name} = FunctionKernel(name="{f.name}", source=NAME)' for f in matrix_functions(module)]
    lines = [public_function(line, module, stream=True) for line in module.lines]
    return [*functions, *(_family_kernel(k, module) for k in module.kernels), *lines]


def _family_exports(module: ir.FamilyModule) -> list[str]:
    return [k.name for k in (*module.kernels, *module.lines)]


def _family_kernel(kernel: ir.FamilyKernel, module: ir.FamilyModule) -> str:
    if isinstance(kernel, ir.MatrixMap):
        return matrices.kernel(kernel, module, stream=True)
    face = public_function(kernel, module, stream=True)
    return f"{record(kernel, uniforms(kernel), ['source=NAME', *joint(kernel)])}\n\n\n{face}"


def _family_imports(module: ir.FamilyModule) -> list[str]:
    records = sorted({driver(k) for k in module.kernels} - {"MatrixKernel"})
    matrix = ["from badmm_kernels.gpu import linalg",
              "from badmm_kernels.gpu.matrix import FunctionKernel, MatrixKernel"]  # fmt: skip
    return [
        "from badmm_kernels.face.calls import slots",
        *(matrix if module.has_matrices else []),
        imported_lines(module, "gpu"),
        *([imported("badmm_kernels.gpu.runtime", records)] if records else []),
    ]


def _round_parts(module: ir.RoundModule) -> list[str]:
    return [record(k, uniforms(k), [f'source="{module.place}"']) for k in module.kernels]


def _round_imports(module: ir.RoundModule) -> list[str]:
    return [imported("badmm_kernels.gpu.runtime", sorted({driver(k) for k in module.kernels}))]


def _loss_parts(module: ir.LossModule) -> list[str]:
    records = [record(k, uniforms(k), ["source=SOURCE"]) for k in module.kernels]
    return records + rows.public_functions(module, stream=True)


def _loss_imports(_module: ir.LossModule) -> list[str]:
    return ["from badmm_kernels.gpu.likelihood import on_rows", "from badmm_kernels.gpu.runtime import MapKernel"]


def _loss_facts(module: ir.LossModule) -> str:
    return f'NAME = "{module.name}"\nSOURCE = "{module.place}"'


def _optimizer_parts(module: ir.OptimizerModule) -> list[str]:
    noise = sweeps.noise_function(module.generator, stream=True)
    parts = [f'_NOISE = NoiseKernel(name="noise", source=NAME)\n\n\n{noise}']
    for sweep in module.kernels:
        parts.append(sweeps.record(sweep, uniforms(sweep, "np"), ["source=NAME"]))
        parts.append(sweeps.public_function(sweep, stream=True))
    return parts


def _optimizer_imports(_module: ir.OptimizerModule) -> list[str]:
    return ["from badmm_kernels.gpu.sweep import NoiseKernel, SweepKernel, pair"]


def _optimizer_facts(module: ir.OptimizerModule) -> str:
    return f'NAME = "{module.name}"\nLANES = {module.generator.lanes}'


KINDS = {
    "family": Kind(_family_parts, _family_imports, constants, exported=_family_exports),
    "likelihood": Kind(
        _loss_parts, _loss_imports, _loss_facts, "a loss that overflows is refused as badmm_kernels/gpu/status.py says"
    ),
    "optimizer": Kind(
        _optimizer_parts,
        _optimizer_imports,
        _optimizer_facts,
        exported=lambda module: ["noise", *(k.name for k in module.kernels)],
    ),
    "round": Kind(
        _round_parts,
        _round_imports,
        lambda _module: "",
        exported=lambda module: [record_name(k) for k in module.kernels],
    ),
}


def emit(module: ir.Module) -> str:
    """kernels/badmm_kernels/gpu/<place>.py."""
    kind = KINDS[module.kind]
    body = "\n\n\n".join(part.rstrip() for part in kind.parts(module)) + "\n"
    standard = [
        *(["import math"] if "math." in body else []),
        *(["from collections.abc import Sequence"] if "Sequence[" in body else []),
        *(["from math import lgamma"] if re.search(r"uniforms=.*lgamma\(", body) else []),
        *(["from typing import Any"] if re.search(r"\bAny\b", body) else []),
    ]
    outside = ["import numpy as np"] if "np." in body else []
    imports = "\n\n".join("\n".join(lines) for lines in (standard, outside, kind.imports(module)) if lines)
    facts = f"{stated}\n\n" if (stated := kind.facts(module)) else ""
    return f'''"""CUDA kernels of the {module.kind}: {module.title}.

GENERATED by `python -m derive` from {module.origin}.
{textwrap.fill(f"Do not edit. Source of the {module.kind}: {module.citation}.", 110)}
The kernels are in {module.name}.cu; {kind.errors}.
"""

from __future__ import annotations

{imports}

{facts}{listed(kind.exported(module))}


{body}'''
