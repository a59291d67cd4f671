"""Functions of one matrix-family member → Python calls of `linalg`, looped over the client axis by the runtime."""

from __future__ import annotations

from ...ir import nodes as ir
from ..python.kernels import public_function, record
from .printer import INFIX, Printer


def kernel(k: ir.MatrixMap, module: ir.FamilyModule, stream: bool = False) -> str:
    """The function, its record and its public face; a device's has the keyword `stream`."""
    fields = [f"one=_{k.name}_one", f"reduction={k.reduction}"]
    return "\n\n\n".join([matrix_function(k), record(k, (), fields), public_function(k, module, stream)])


def matrix_function(kernel: ir.MatrixMap) -> str:
    """_<kernel>_one: a matrix function in calls of `linalg`."""
    params = [o.variable for o in kernel.operands]
    read = {name for node in (*kernel.body, *kernel.results) for name in ir.reads(node)}
    body = [f"    {f'{s.name} = ' if s.name in read else ''}{_matrix_expr(s.value)}" for s in kernel.body]
    results = ", ".join(_matrix_expr(r) for r in kernel.results)
    trailing = "," if len(kernel.results) == 1 and not kernel.reduction else ""
    return "\n".join([f"def _{kernel.name}_one({', '.join(params)}):", *body, f"    return {results}{trailing}"])


def _matrix_expr(e: ir.Expr) -> str:
    if isinstance(e, ir.Op) and e.op not in INFIX and e.op != "neg":
        args = [_matrix_expr(a) for a in e.args]
        if e.target:
            if e.op == "ratio_divergence":
                args.insert(0, e.target)
            else:
                name, _, expected = e.target.partition(": ")
                args = [f'"{name}"', *args, *([f'"{expected}"'] if expected else [])]
        return f"linalg.{e.op}({', '.join(args)})"
    if isinstance(e, ir.Op):
        parts = [f"({_matrix_expr(a)})" if isinstance(a, ir.Op) and a.op in INFIX else _matrix_expr(a) for a in e.args]
        return f"-{parts[0]}" if e.op == "neg" else f"{parts[0]} {INFIX[e.op]} {parts[1]}"
    return Printer().expr(e)
