"""IR → plain Python: functions of numbers, or of arrays and tensors that broadcast."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ...ir import nodes as ir
from ..numba.printer import Printer
from .kernels import listed


def emit(functions: Sequence[ir.Function], mark: str) -> str:
    """kernels/badmm_kernels/scalars.py."""
    title = "The constants of a round and of an IVON client, of numbers, arrays or tensors."
    head = f'"""{title}\n\n{mark}. Do not edit.\n"""'
    parts = [_function(f) for f in functions]
    names = listed([f.name for f in functions])
    body = "\n\n\n".join(parts)
    return f"{head}\n\nfrom __future__ import annotations\n\nfrom typing import Any\n\n{names}\n\n\n{body}\n"


def _function(function: ir.Function) -> str:
    params = ", ".join(f"{p}: Any" for p in function.params)
    doc = textwrap.indent(textwrap.fill(f'"""{function.doc}"""', 110), "    ")
    return "\n".join([f"def {function.name}({params}) -> Any:", doc, *Printer().statements(function.body, "    ")])
