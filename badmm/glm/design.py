"""From a formula and the sites' frames to design matrices with the same columns everywhere."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.errors import FormulaicError
from formulaic.transforms import TRANSFORMS
from numpy.typing import NDArray

from badmm.checks import Array
from badmm.glm import columns
from badmm.glm.columns import LEVELS, Column
from badmm.glm.families import ResponseFamily

Positions = NDArray[np.integer[Any]]
INTERCEPT = "Intercept"
POLICIES = ("drop", "error")


@dataclass(frozen=True)
class SiteRows:
    """One site's rows as the model sees them: X (n, d), y, weights and offset (n,), and how many rows were left out.

    `kept` are the positions of the rows used within the site's data.
    """

    X: Array
    y: Array
    weights: Array
    offset: Array
    left_out: int
    kept: Positions

    @property
    def used(self) -> int:
        """n."""
        return len(self.y)


@dataclass
class Design:
    """A formula, and what the sites agreed on: `terms` are the names of the coefficients.

    offset is a formula's term added to the predictor, exposure a column whose logarithm is, weights a column that
    counts rows. missing: "drop" leaves a row with a missing value out and counts it, "error" refuses it. Raises
    `ValueError` for a formula or columns that do not fit.
    """

    formula: str
    family: ResponseFamily
    offset: str | None = None
    weights: str | None = None
    exposure: str | None = None
    missing: str = "drop"
    agreed: dict[str, Column] = field(default_factory=dict)
    terms: tuple[str, ...] = ()
    success: Any = None
    """The level of a text response that counts as 1."""

    def __post_init__(self) -> None:
        if self.missing not in POLICIES:
            raise ValueError(f"missing: expected one of {', '.join(POLICIES)}, got {self.missing!r:.80}")
        parsed = _parsed(self.formula, "formula")
        if not hasattr(parsed, "lhs"):
            raise ValueError(f"formula: expected 'response ~ terms', got {self.formula!r:.120}")
        self._left, self._right = parsed.lhs, parsed.rhs
        self._offset = None if self.offset is None else _parsed(f"0 + {self.offset}", "offset")

    def _extras(self) -> list[str]:
        named = [name for name in (self.weights, self.exposure) if name is not None]
        return [*named, *(sorted(self._offset.required_variables) if self._offset is not None else [])]

    @property
    def predictors(self) -> list[str]:
        """The columns that the right-hand side, offset, weights and exposure need."""
        return list(dict.fromkeys([*sorted(self._right.required_variables), *self._extras()]))

    @property
    def responses(self) -> list[str]:
        """The columns of the left-hand side."""
        return sorted(self._left.required_variables)

    def rows(self, sites: Any) -> dict[str, SiteRows]:
        """Every site's rows; agrees on columns and levels first."""
        frames = columns.read(sites, list(dict.fromkeys([*self.responses, *self.predictors])))
        self.agreed = columns.agree(frames, self._as_levels())
        self._check_extras()
        complete = {site: self._complete(site, frame) for site, frame in frames.items()}
        found = {}
        for site, (frame, kept) in complete.items():
            y = self._response(site, frame)
            X, offset, weights = self.matrix(frame, f"sites[{site!r}]")
            found[site] = SiteRows(X, y, weights, offset, len(frames[site]) - len(kept), kept)
        if not any(rows.used for rows in found.values()):
            raise ValueError("sites: expected at least one row without missing values, got none")
        return found

    def new_rows(self, data: Any) -> tuple[Array, Array, Positions]:
        """X, offset and the positions of the rows without missing values, for data without a response."""
        frame = columns.read({"data": data}, self.predictors)["data"]
        known = {name: self.agreed[name] for name in self.predictors}
        columns.agree({"the fit": _example(known), "data": frame}, [n for n, c in known.items() if c.kind == LEVELS])
        kept = np.flatnonzero(frame.notna().all(axis=1).to_numpy())
        X, offset, _ = self.matrix(columns.conform(frame.iloc[kept], known), "data")
        return X, offset, kept

    def _as_levels(self) -> list[str]:
        """Columns inside C(...), whose numbers are levels."""
        factors = [factor.expr for term in self._right for factor in term.factors if factor.expr.startswith("C(")]
        return [name for factor in factors for name in Formula(f"0 + {factor}").required_variables]

    def _check_extras(self) -> None:
        for name in self._extras():
            if self.agreed[name].kind != columns.NUMBER:
                raise ValueError(
                    f"{name}: expected numbers for offset, weights or exposure, got {self.agreed[name].kind}"
                )

    def _complete(self, site: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, Positions]:
        whole = frame.notna().all(axis=1).to_numpy()
        if self.missing == "error" and not whole.all():
            row = int(np.argmin(whole))
            name = frame.columns[frame.iloc[row].isna().to_numpy()][0]
            raise ValueError(f"sites[{site!r}][{name!r}]: expected no missing values, got one at row {row}")
        kept = np.flatnonzero(whole)
        return columns.conform(frame.iloc[kept], self.agreed), kept

    def _response(self, site: str, frame: pd.DataFrame) -> Array:
        name = self.responses[0] if self.responses else ""
        where = f"sites[{site!r}][{str(self._left)!r}]"
        if str(self._left) == name and self.agreed[name].kind != columns.NUMBER:
            levels = self.agreed[name].levels
            if self.family.name != "binomial" or len(levels) != 2:
                raise ValueError(
                    f"{where}: expected numbers for family {self.family.name!r}, got levels {levels!r:.80}"
                )
            self.success = levels[1]
            return (frame[name] == levels[1]).to_numpy(dtype=float)
        found = self._evaluated("response", self._left, frame, where)
        if found.shape[1] != 1:
            raise ValueError(f"{where}: expected one column of numbers, got {found.shape[1]}")
        y = found.to_numpy(dtype=float)[:, 0]
        self.family.check(y, where)
        return y

    def matrix(self, frame: pd.DataFrame, where: str) -> tuple[Array, Array, Array]:
        """X, offset and weights of a conformed frame."""
        found = self._evaluated("terms", self._right, frame, where)
        names = tuple(map(str, found.columns))
        if self.terms and names != self.terms:
            other = next((pair for pair in zip(names, self.terms, strict=False) if pair[0] != pair[1]), names[-1:])
            raise ValueError(f"{where}: expected the terms of the other sites, got {other[0]!r}")
        self.terms = names
        offset = np.zeros(len(frame))
        if self._offset is not None:
            offset = offset + self._evaluated("offset", self._offset, frame, where).to_numpy(dtype=float).sum(axis=1)
        if self.exposure is not None:
            exposure = frame[self.exposure].to_numpy(dtype=float)
            _require(exposure > 0, exposure, f"{where}[{self.exposure!r}]", "a positive exposure")
            offset = offset + np.log(exposure)
        weights = np.ones(len(frame)) if self.weights is None else frame[self.weights].to_numpy(dtype=float)
        _require(weights >= 0, weights, f"{where}[{self.weights!r}]", "weights of at least 0")
        return np.ascontiguousarray(found.to_numpy(dtype=float)), offset, weights

    def _evaluated(self, part: str, formula: Any, frame: pd.DataFrame, where: str) -> pd.DataFrame:
        try:
            # what is not finite is refused below, with its row
            with np.errstate(all="ignore"):
                found = formula.get_model_matrix(frame, na_action="ignore", context={"np": np})
        except FormulaicError as error:
            raise ValueError(f"{where}: formula: {str(error).splitlines()[0]:.200}") from None
        out = pd.DataFrame(found)
        for name in out.columns:
            values = out[name].to_numpy(dtype=float)
            _require(np.isfinite(values), values, f"{where}[{str(name)!r}]", "finite values")
        return out


def _parsed(text: str, name: str) -> Any:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name}: expected a formula as text, got {text!r:.80}")
    try:
        parsed = Formula(text)
    except FormulaicError as error:
        raise ValueError(f"{name}: {str(error).splitlines()[0]:.160}, in {text!r:.120}") from None
    for part in (parsed.lhs, parsed.rhs) if hasattr(parsed, "lhs") else (parsed,):
        for expression in (factor.expr for term in part for factor in term.factors):
            _check_rowwise(expression, name)
    return parsed


def _check_rowwise(expression: str, name: str) -> None:
    """Refuse a transformation whose state, a mean or knots, is that of the rows it sees: a site sees its own alone."""
    try:
        calls = [node.func for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return  # a quoted column name, or what formulaic refuses in words of its own
    for function in calls:
        known = TRANSFORMS.get(function.id) if isinstance(function, ast.Name) else None
        if getattr(known, "__is_stateful_transform__", False) and known is not TRANSFORMS["C"]:
            raise ValueError(
                f"{name}: expected transformations of one row at a time, got {expression!r:.80}, which needs all rows"
            )


def _require(good: Any, values: Array, where: str, expected: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{where}: expected {expected}, got {values[row]:g} at used row {row}")


def _example(known: Mapping[str, Column]) -> pd.DataFrame:
    """One row with a value of each column's kind."""
    values = {name: [column.levels[0] if column.levels else 0.0] for name, column in known.items()}
    return pd.DataFrame(values)
