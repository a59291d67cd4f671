"""Formulas: what formulaic makes of them, less what would mean something else at every site.

A site evaluates a formula on its own rows. A term whose value in a row depends on other rows, or whose levels are those
of the rows at hand, has no pooled meaning there and is refused by name.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, SimpleFormula
from formulaic.errors import DataMismatchWarning
from formulaic.parser.types import Factor
from formulaic.transforms import TRANSFORMS
from numpy.typing import NDArray

from badmm.checks import Array
from badmm.glm.columns import place
from badmm.glm.coordinates import INTERCEPT

ROWWISE = ("C", "Q")
"""Transformations with a state that is no statistic of the rows."""
_LEVELLED = re.compile(r"C\((\w+)[,)]")
ROUNDING = 1e-9
"""Relative difference of a value computed among fewer rows that is rounding."""


def two_sided(text: object) -> tuple[SimpleFormula, SimpleFormula]:
    """Response and terms; raises `ValueError` for anything but 'response ~ terms'."""
    parsed = _parsed(text, "formula")
    left, right = getattr(parsed, "lhs", None), getattr(parsed, "rhs", None)
    if not isinstance(left, SimpleFormula) or not isinstance(right, SimpleFormula):
        raise ValueError(f"formula: expected 'response ~ terms', got {text!r:.120}")
    for part in (left, right):
        _check(part, "formula")
    if not columns(left):
        raise ValueError(f"formula: expected 'response ~ terms', got {text!r:.120}")
    if not right:
        raise ValueError(f"formula: expected at least one term or an intercept, got {text!r:.120}")
    if INTERCEPT in columns(right):
        raise ValueError(f"formula: expected another name for a column than {INTERCEPT!r}, which the intercept has")
    plain = {name for factor in _factors(right) if not _is_levelled(factor.expr) for name in _needed(factor)}
    both = plain & set(levelled(right))
    if both:
        raise ValueError(f"formula: expected a column as numbers or as levels, got {min(both)!r} as both")
    return left, right


def offset(text: object) -> SimpleFormula:
    """An expression of columns, evaluated as Python does."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"offset: expected an expression of columns as text, got {text!r:.80}")
    parsed = _parsed(f"0 + I({text})", "offset")
    if not isinstance(parsed, SimpleFormula) or len(parsed) != 1 or not columns(parsed):
        raise ValueError(f"offset: expected an expression of columns, got {text!r:.80}")
    _check(parsed, "offset")
    return parsed


def columns(formula: SimpleFormula) -> list[str]:
    """The columns that a formula needs, sorted."""
    return sorted({name for factor in _factors(formula) for name in _needed(factor)})


def levelled(formula: SimpleFormula) -> list[str]:
    """Columns inside C(...), whose numbers are levels."""
    return [name for factor in _factors(formula) if _is_levelled(factor.expr) for name in _needed(factor)]


def evaluated(formula: SimpleFormula, frame: pd.DataFrame, site: str | None) -> pd.DataFrame:
    """The columns of a formula for a site's rows; raises `ValueError` naming site, term and the first bad row."""
    where = "data" if site is None else f"sites[{site!r}]"
    found = _values(formula, frame, where)
    for name in found.columns:
        values = found[name].to_numpy(dtype=float)
        require(np.isfinite(values), values, frame, f"{where}[{str(name)!r}]", "finite values")
    half = len(frame) // 2
    if half and any(factor.eval_method is Factor.EvalMethod.PYTHON for factor in _factors(formula)):
        # the last rows: sums and shifts along the rows leave the first as they are
        _check_rowwise(found.iloc[half:], _values(formula, frame.iloc[half:], where))
    return found


def require(good: NDArray[np.bool_], values: Array, frame: pd.DataFrame, where: str, expected: str) -> None:
    """Raise `ValueError` naming the first row that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{where}: expected {expected}, got {values[row]:g} at {place(frame, row)}")


def _values(formula: SimpleFormula, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    try:
        # what is not finite is refused with its row
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            found = formula.get_model_matrix(frame, na_action="ignore", context={"np": np})
            values = pd.DataFrame(found).astype(float)
    except Exception as error:  # a formula is a program of the user's
        raise ValueError(f"{where}: formula: {_first_line(error)}") from None
    repeated = [name for name in found.model_spec.column_names if found.model_spec.column_names.count(name) > 1]
    if repeated:  # of two columns of one name formulaic keeps the last
        raise ValueError(f"formula: expected every term once, got two called {repeated[0]!r:.80}: rename a column")
    for expression, (kind, _) in found.model_spec.encoder_state.items():
        if kind is Factor.Kind.CATEGORICAL and expression not in frame.columns and not _is_levelled(expression):
            raise ValueError(f"formula: expected levels of a column, got those of {expression!r:.80}: make it a column")
    return values


def _check_rowwise(among_all: pd.DataFrame, alone: pd.DataFrame) -> None:
    for name in among_all.columns:
        one, other = among_all[name].to_numpy(), alone[name].to_numpy() if name in alone.columns else np.nan
        if not np.allclose(one, other, rtol=ROUNDING, atol=ROUNDING * np.abs(one).max(initial=0.0)):
            _refuse_state("formula", str(name))


def _parsed(text: object, name: str) -> Any:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name}: expected a formula as text, got {text!r:.80}")
    try:
        return Formula(text)
    except Exception as error:  # formulaic's parser raises Python's own errors too
        raise ValueError(f"{name}: {_first_line(error)}, in {text!r:.120}") from None


def _check(formula: SimpleFormula, name: str) -> None:
    """Refuse a transformation whose state is that of the rows it sees, and levels of anything but a column."""
    for expression in (factor.expr for factor in _factors(formula)):
        try:
            calls = [node for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Call)]
        except SyntaxError:
            continue  # a quoted column name, or what formulaic refuses in words of its own
        for call in calls:
            title = call.func.id if isinstance(call.func, ast.Name) else ""
            if getattr(TRANSFORMS.get(title), "__is_stateful_transform__", False) and title not in ROWWISE:
                _refuse_state(name, expression)
            if title == "C" and not (call.args and isinstance(call.args[0], ast.Name)):
                raise ValueError(f"{name}: expected C(column), got {expression!r:.80}: make it a column")


def _refuse_state(name: str, expression: str) -> None:
    raise ValueError(
        f"{name}: expected transformations of one row at a time, got {expression!r:.80}, which needs all rows"
    )


def _needed(factor: Factor) -> set[str]:
    """The columns that a factor needs; one that stands alone may have the name of a transformation."""
    if factor.eval_method is Factor.EvalMethod.LOOKUP:
        return {factor.expr}
    arguments = {str(name.root) for name in factor.required_variables if name.root not in TRANSFORMS}
    inside = _LEVELLED.match(factor.expr)
    return arguments | ({inside[1]} if inside else set())


def _factors(formula: SimpleFormula) -> list[Factor]:
    return [factor for term in formula for factor in term.factors]


def _is_levelled(expression: str) -> bool:
    return expression.startswith("C(")


def _first_line(error: Exception) -> str:
    return f"{(str(error).splitlines() or [type(error).__name__])[0]:.160}"
