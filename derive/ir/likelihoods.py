"""The intermediate representation of a likelihood's kernels: maps of one row, and Gaussian expectations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .nodes import Expr, Function, Map, Stmt


@dataclass(frozen=True)
class Quadrature:
    """E[g], E[g′], E[g″] of one function g of one number under N(center, spread²).

    `center`, `spread` and `coefficient` are variables of the kernel (a coefficient of 0 makes the rest superfluous);
    `results` are the names of the three expectations. `argument` is g's variable, `body` and `values` are g, g′ and g″,
    which are analytic but for a singularity at `place` ± i `distance`.
    """

    center: str
    spread: str
    coefficient: str
    results: tuple[str, str, str]
    argument: str
    body: tuple[Stmt, ...]
    values: tuple[Expr, Expr, Expr]
    place: float
    distance: float


@dataclass(frozen=True)
class Expectation:
    """Gaussian expectations of a loss and its derivatives in one row: `before`, `quadratures`, then the results.

    `whole` is the same as one map, every quadrature written out as a loop over its nodes.
    """

    before: tuple[Stmt, ...]
    quadratures: tuple[Quadrature, ...]
    after: tuple[Stmt, ...]
    whole: Map


@dataclass(frozen=True)
class LossModule:
    """All kernels of one likelihood, with the scalar functions they call, callees first."""

    name: str
    title: str
    citation: str
    digest: str
    responses: tuple[tuple[str, str], ...]  # name and support
    parameters: tuple[tuple[str, str], ...]  # name and meaning
    functions: tuple[Function, ...]
    loss: Map
    constant: Map
    expectation: Expectation
    facts: tuple[tuple[str, Any], ...] = ()

    @property
    def family(self) -> str:
        """The name by which functions of the header and claims speak of it."""
        return f"{self.name}_loss"

    @property
    def header(self) -> str:
        """The file of the C header, below badmm/ and without its ending."""
        return f"likelihoods/{self.name}"

    @property
    def kernels(self) -> tuple[Map, ...]:
        """Every kernel as a map."""
        return self.loss, self.constant, self.expectation.whole

    @property
    def origin(self) -> str:
        """What a generated file says it is made from."""
        return f"likelihoods/{self.name}.py (sha256 {self.digest})"
