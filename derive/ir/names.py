"""The variables of IR expressions: which there are, and others in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .nodes import Expr, Op, Var


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
