"""The variables of IR expressions: which there are, and others in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .nodes import Expr, Op, Var


def renamed(node: Expr, names: Mapping[str, str]) -> Expr:
    """An expression with some of its variables called otherwise."""
    if isinstance(node, Var):
        return Var(names.get(node.name, node.name))
    if isinstance(node, Op):
        return replace(node, args=tuple(renamed(a, names) for a in node.args))
    return node


def variables(node: Expr) -> set[str]:
    """The names of an expression's variables."""
    if isinstance(node, Var):
        return {node.name}
    return {name for a in node.args for name in variables(a)} if isinstance(node, Op) else set()
