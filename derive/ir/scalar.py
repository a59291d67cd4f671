"""Expressions, statements and scalar functions of the intermediate representation (`nodes` says what they mean)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

INTEGER_OPS = ("iadd", "isub", "imul", "iand", "ixor", "ishl", "ishr")
CAST_OPS = ("low", "real", "bits", "from_bits")
COMPARISONS = ("lt", "le", "ge")
REAL_OPS = ("add", "sub", "mul", "div", "neg", "fma", "sqrt", "exp", "expm1", "log", "log1p", "erf", "erfc", "abs")
SCALAR_OPS = (*REAL_OPS, *COMPARISONS, "select", "call", *INTEGER_OPS, *CAST_OPS)
MATRIX_OPS = (
    "cholesky",
    "dot",
    "inverse",
    "log_det",
    "matvec",
    "mean_gap",
    "outer",
    "ratio_divergence",
    "size",
    "solve",
    "solve_lower",
    "whitened_eigenvalues",
    "wide",
)


@dataclass(frozen=True)
class Var:
    """A named value."""

    name: str


@dataclass(frozen=True)
class Lit:
    """A typed literal; `text` is the shortest decimal that reads back as the intended float64."""

    text: str


Kind = Literal["real", "truth", "word", "bits"]


@dataclass(frozen=True)
class Int:
    """An unsigned literal of kind `word` (64 bits) or `bits` (the width of a real)."""

    value: int
    kind: Literal["word", "bits"]


@dataclass(frozen=True)
class Op:
    """An operation; `target` is the function that `call` and `ratio_divergence` call, or the matrix of a `cholesky`."""

    op: str
    args: tuple[Expr, ...]
    target: str = ""

    def __post_init__(self) -> None:
        if self.op not in SCALAR_OPS + MATRIX_OPS:
            raise ValueError(f"op: expected one of {SCALAR_OPS + MATRIX_OPS}, got {self.op!r}")


Expr = Var | Lit | Int | Op


@dataclass(frozen=True)
class Let:
    """name = value (a new name, or a new value of one inside a loop)."""

    name: str
    value: Expr


@dataclass(frozen=True)
class If:
    """if condition: body, else: orelse."""

    condition: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


@dataclass(frozen=True)
class Loop:
    """At most `count` passes over body; leaves before a pass in which `until` already holds."""

    count: int
    until: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Return:
    """Return from a scalar function."""

    values: tuple[Expr, ...]


Stmt = Let | If | Loop | Return


@dataclass(frozen=True)
class Function:
    """A scalar function in the kernel's own precision; `body` ends in Return."""

    name: str
    params: tuple[str, ...]
    body: tuple[Stmt, ...]
    doc: str


def calls(node: Expr | Stmt) -> Iterator[str]:
    """Names of the functions a node calls, first use first."""
    if isinstance(node, Op):
        for arg in node.args:
            yield from calls(arg)
        if node.op in ("call", "ratio_divergence"):
            yield node.target
    elif isinstance(node, Let):
        yield from calls(node.value)
    elif isinstance(node, If):
        for part in (node.condition, *node.body, *node.orelse):
            yield from calls(part)
    elif isinstance(node, Loop):
        for part in (node.until, *node.body):
            yield from calls(part)
    elif isinstance(node, Return):
        for value in node.values:
            yield from calls(value)


def reads(node: Expr | Stmt) -> Iterator[str]:
    """Names of the variables a node reads, with repetition."""
    if isinstance(node, Var):
        yield node.name
        return
    parts: tuple[Expr | Stmt, ...] = ()
    if isinstance(node, Op):
        parts = node.args
    elif isinstance(node, Let):
        parts = (node.value,)
    elif isinstance(node, If):
        parts = (node.condition, *node.body, *node.orelse)
    elif isinstance(node, Loop):
        parts = (node.until, *node.body)
    elif isinstance(node, Return):
        parts = node.values
    for part in parts:
        yield from reads(part)
