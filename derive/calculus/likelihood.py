"""The `Likelihood` record: what one file under likelihoods/ states, and nothing that can be derived from it.

A likelihood is the loss f(a; y, …) = −log p(y | a) of one row, seen through one number, the predictor a = xᵀθ + offset.
Responses y are the row's own numbers; parameters are the same for every row.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import sympy as sp

from .family import FamilyError

Support = Literal["real", "positive", "count", "binary"]
SUPPORTS: tuple[Support, ...] = ("real", "positive", "count", "binary")


class LikelihoodError(FamilyError):
    """A likelihood file states something inconsistent, or something that no rule of the derivation covers."""


@dataclass(frozen=True)
class Response:
    """One observed number of a row: its public argument name, its symbol and its support."""

    name: str
    symbol: sp.Symbol
    support: Support


@dataclass(frozen=True)
class Parameter:
    """A positive number that all rows share: its public argument name, its symbol, what it means."""

    name: str
    symbol: sp.Symbol
    meaning: str


@dataclass(frozen=True)
class Likelihood:
    """f(a; y, …), the support of y, parameters and citation of one likelihood."""

    name: str
    title: str
    citation: str
    predictor: sp.Symbol
    responses: tuple[Response, ...]
    loss: sp.Expr
    parameters: tuple[Parameter, ...] = ()
    module: str = ""

    def __post_init__(self) -> None:
        where = f"likelihoods/{self.name}.py"
        if not self.citation.strip():
            raise LikelihoodError(f"{where}: citation: expected where the loss is taken from, got none")
        if not self.predictor.is_real:
            raise LikelihoodError(f"{where}: predictor: expected a real symbol, got {self.predictor}")
        for response in self.responses:
            if response.support not in SUPPORTS:
                expected = ", ".join(SUPPORTS)
                raise LikelihoodError(f"{where}: support of {response.name}: expected one of {expected}, "
                                      f"got {response.support!r}")  # fmt: skip
        for parameter in self.parameters:
            if not parameter.symbol.is_positive:
                raise LikelihoodError(f"{where}: {parameter.name}: expected a positive symbol, got {parameter.symbol}")
        names = [*(r.name for r in self.responses), *(p.name for p in self.parameters)]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise LikelihoodError(f"{where}: expected names that differ, got {twice[0]} twice")
        known = {self.predictor, *(r.symbol for r in self.responses), *(p.symbol for p in self.parameters)}
        stray = sorted(map(str, self.loss.free_symbols - known))
        if stray:
            raise LikelihoodError(f"{where}: loss: expected the predictor, responses and parameters alone, "
                                  f"got {stray[0]}")  # fmt: skip
        if self.predictor not in self.loss.free_symbols:
            raise LikelihoodError(f"{where}: loss: expected a function of {self.predictor}, got {self.loss}")

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the file: what a generated file says it was made from."""
        source = Path(importlib.import_module(self.module).__file__ or "").read_bytes()
        return hashlib.sha256(source).hexdigest()[:16]
