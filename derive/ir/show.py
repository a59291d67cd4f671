"""The IR as text for a person."""

from __future__ import annotations

from .nodes import Expr, Int, Let, Lit, Loop, Op, Return, Stmt, Var


def show(node: Expr | Stmt, indent: str = "") -> str:
    """The IR as text for a person (`python -m derive FAMILY --show ir`)."""
    if isinstance(node, Var):
        return node.name
    if isinstance(node, Lit):
        return node.text
    if isinstance(node, Int):
        return hex(node.value)
    if isinstance(node, Op):
        name = node.target if node.op == "call" else node.op + (f"[{node.target}]" if node.target else "")
        return f"{name}({', '.join(show(a) for a in node.args)})"
    if isinstance(node, Let):
        return f"{indent}{node.name} = {show(node.value)}"
    if isinstance(node, Return):
        return f"{indent}return {', '.join(show(v) for v in node.values)}"
    inner = "\n".join(show(s, indent + "  ") for s in node.body)
    if isinstance(node, Loop):
        return f"{indent}at most {node.count} times until {show(node.until)}:\n{inner}"
    other = "\n".join(show(s, indent + "  ") for s in node.orelse)
    return f"{indent}if {show(node.condition)}:\n{inner}" + (f"\n{indent}else:\n{other}" if other else "")
