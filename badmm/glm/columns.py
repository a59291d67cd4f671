"""Columns that sites agree on before the first round: what kind each is, and the levels of the categorical ones.

A site tells the kinds and the levels of its columns, never a row; levels that a site lacks are those of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import pandas as pd

NUMBER, TRUTH, LEVELS = "numbers", "truth values", "levels"


@dataclass(frozen=True)
class Column:
    """A column's kind, and its levels in the order of their coefficients, the first of which is the reference."""

    kind: str
    levels: tuple[Any, ...] = ()
    ordered: bool = False


def read(sites: Any, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The named columns of every site, in that order, as pandas frames with a fresh index.

    Raises `ValueError` for what is no mapping of names to data frames, and a column that a site lacks or has twice.
    """
    if not isinstance(sites, Mapping) or not sites:
        raise ValueError(f"sites: expected a mapping from names to data frames, got {type(sites).__name__}")
    return {_site_name(site): _frame(data, f"sites[{site!r}]", names) for site, data in sites.items()}


def _site_name(site: Any) -> str:
    if not isinstance(site, str) or not site.strip():
        raise ValueError(f"sites: expected names as keys, got {site!r:.80}")
    return site


def _frame(data: Any, where: str, names: Sequence[str]) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame) and not data.columns.is_unique:
        repeated = data.columns[data.columns.duplicated()][0]
        raise ValueError(f"{where}: expected every column once, got {repeated!r} more than once")
    try:
        frame = nw.from_native(data, eager_only=True)
    except TypeError:
        raise ValueError(f"{where}: expected a data frame, got {type(data).__name__}") from None
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(f"{where}: expected the column {missing[0]!r}, got {', '.join(map(repr, frame.columns)):.200}")
    if isinstance(data, pd.DataFrame):
        return data[list(names)].reset_index(drop=True)
    return pd.DataFrame({name: _values(frame[name]) for name in names})


def _values(column: nw.Series[Any]) -> Any:
    """A column of another library as pandas takes it, without its own conversion, which would need pyarrow."""
    if isinstance(column.dtype, nw.Enum):
        return pd.Categorical(column.to_list(), categories=list(column.dtype.categories))
    plain = column.dtype.is_numeric() or (column.dtype == nw.Boolean and not column.null_count())
    return column.to_numpy() if plain or column.dtype.is_temporal() else pd.Series(column.to_list(), dtype=object)


def agree(frames: Mapping[str, pd.DataFrame], categorical: Sequence[str] = ()) -> dict[str, Column]:
    """Every column as all sites have it; `categorical` columns have levels even where they are numbers.

    Raises `ValueError` naming the site and the column where two sites have different kinds, or a kind is no use.
    """
    names = next(iter(frames.values())).columns
    return {name: _agreed(name, frames, name in categorical) for name in names}


def _agreed(name: str, frames: Mapping[str, pd.DataFrame], categorical: bool) -> Column:
    first: tuple[str, str] | None = None
    for site, frame in frames.items():
        if not frame[name].notna().any():
            continue  # a column without values has no kind of its own
        kind = _kind(frame[name], f"sites[{site!r}][{name!r}]")
        if first is None:
            first = site, kind
        elif kind != first[1]:
            raise ValueError(f"sites[{site!r}][{name!r}]: expected {first[1]} as at site {first[0]!r}, got {kind}")
    kind = NUMBER if first is None else first[1]
    if kind == NUMBER and not categorical:
        return Column(NUMBER)
    if kind == TRUTH:
        return Column(TRUTH, (False, True))
    return _levels(frames, name)


def _kind(column: pd.Series, where: str) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype):
        return LEVELS
    if pd.api.types.is_bool_dtype(column.dtype):
        return TRUTH
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        return NUMBER
    if column.dtype == object:
        types = {type(value) for value in column.dropna()}
        if types <= {bool}:
            return TRUTH
        if len(types) == 1 and types <= {str}:
            return LEVELS
        raise ValueError(f"{where}: expected numbers or text, got {', '.join(sorted(t.__name__ for t in types))}")
    raise ValueError(f"{where}: expected numbers, truth values or text, got {column.dtype}")


def _levels(frames: Mapping[str, pd.DataFrame], name: str) -> Column:
    declared: list[Any] = []
    seen: set[Any] = set()
    ordered = False
    for frame in frames.values():
        column = frame[name]
        seen |= set(column.dropna().unique())
        if isinstance(column.dtype, pd.CategoricalDtype):
            declared += [level for level in column.cat.categories if level not in declared]
            ordered = ordered or bool(column.cat.ordered)
    return Column(LEVELS, (*declared, *sorted(seen - set(declared))), ordered)


def conform(frame: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    """A site's frame with the agreed kinds; raises `ValueError` for a level that no site of the fit had."""
    out = {}
    for name, column in columns.items():
        values = frame[name]
        if column.kind == NUMBER:
            out[name] = pd.to_numeric(values).astype(float)
        elif column.kind == TRUTH:
            out[name] = pd.Categorical(values.astype(object), categories=[False, True])
        else:
            unknown = set(values.dropna().unique()) - set(column.levels)
            if unknown:
                known = ", ".join(map(repr, column.levels))
                raise ValueError(f"{name}: expected one of the levels {known:.200}, got {min(unknown, key=str)!r}")
            out[name] = pd.Categorical(values, categories=list(column.levels), ordered=column.ordered)
    return pd.DataFrame(out, index=frame.index)
