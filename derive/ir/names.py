"""Names in IR expressions: variables, others in their place, and operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from .nodes import COMPARISONS, INTEGER_OPS, REAL_OPS, Expr, Int, Kind, Let, Lit, Op, Stmt, Var


def replaced(node: Expr, table: Mapping[str, Expr]) -> Expr:
    """An expression with some of its variables replaced by expressions."""
    if isinstance(node, Var):
        return table.get(node.name, node)
    if isinstance(node, Op):
        return replace(node, args=tuple(replaced(a, table) for a in node.args))
    return node


def renamed(node: Expr, names: Mapping[str, str]) -> Expr:
    """An expression with some of its variables called otherwise."""
    return replaced(node, {old: Var(new) for old, new in names.items()})


def variables(node: Expr) -> set[str]:
    """The names of an expression's variables."""
    if isinstance(node, Var):
        return {node.name}
    return {name for a in node.args for name in variables(a)} if isinstance(node, Op) else set()


def operations(node: Expr | Stmt) -> Iterator[str]:
    """Names of the operations of a straight-line node, with repetition; those of functions that it calls excluded."""
    if isinstance(node, Op):
        yield node.op
        for arg in node.args:
            yield from operations(arg)
    elif isinstance(node, Let):
        yield from operations(node.value)


def kind(node: Expr, names: Mapping[str, Kind]) -> Kind:
    """The kind of an expression; variables missing from `names` are real."""
    if isinstance(node, Var):
        return names.get(node.name, "real")
    if isinstance(node, Int):
        return node.kind
    if isinstance(node, Lit) or node.op in REAL_OPS:
        return "real"
    if node.op in COMPARISONS:
        return "truth"
    if node.op == "select":
        return kind(node.args[1], names)
    if node.op in INTEGER_OPS:
        return kind(node.args[0], names)
    return "bits" if node.op in ("low", "bits") else "real"
