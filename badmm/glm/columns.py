"""Columns that sites agree on before the first round: what kind each is, and the levels of the categorical ones.

A site tells the kinds and the levels of its columns, never a row; levels that a site lacks are those of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from badmm.data.chunks import Chunked
from badmm.data.names import is_missing, is_no_level, slip

NUMBER, TRUTH, LEVELS = "numbers", "truth values", "levels"
Found = Mapping[str, pd.Series]
MOST_LEVELS = 1000
"""Levels of a column: identifiers are no levels, and each has a coefficient."""


@dataclass(frozen=True)
class Column:
    """A column's kind, and its levels in the order of their coefficients, the first of which is the reference."""

    kind: str
    levels: tuple[Any, ...] = ()
    ordered: bool = False


@dataclass(frozen=True)
class Source:
    """The named columns of a site: one pandas frame, or a file's in chunks, each a frame."""

    frames: Callable[[], Iterator[pd.DataFrame]]
    streamed: bool = False


def read(sites: Any, names: Sequence[str]) -> dict[str, Source]:
    """The named columns of every site, in that order, as pandas frames.

    A unique index with a name, such as the lines of a file, is kept: messages name rows by it, and by position else.

    Raises `ValueError` for what is no mapping of names to data frames, and a column that a site lacks or has twice.
    """
    if not isinstance(sites, Mapping) or not sites:
        got = "none" if isinstance(sites, Mapping) else type(sites).__name__
        raise ValueError(f"sites: expected a mapping from names to data frames, got {got}")
    names_given = [_site_name(site) for site in sites]
    pair = slip(names_given)
    if pair is not None:
        raise ValueError(f"sites: expected the spelling {names_given[pair[0]]!r}, got {names_given[pair[1]]!r}")
    return {site: _source(data, f"sites[{site!r}]", names) for site, data in sites.items()}


def _source(data: Any, where: str, names: Sequence[str]) -> Source:
    if isinstance(data, Chunked):
        return Source(lambda: (frame_of(frame, where, names) for frame in data.frames(names)), streamed=True)
    frame = frame_of(data, where, names)
    return Source(lambda: iter([frame]))


def _site_name(site: Any) -> str:
    if not isinstance(site, str) or is_missing(site) or not site.isprintable():
        raise ValueError(f"sites: expected names as keys, got {site!r:.80}")
    return site


def frame_of(data: Any, where: str, names: Sequence[str]) -> pd.DataFrame:
    """The named columns of one data frame; `where` names it in messages."""
    if isinstance(data, pd.DataFrame) and not data.columns.is_unique:
        repeated = data.columns[data.columns.duplicated()][0]
        raise ValueError(f"{where}: expected every column once, got {repeated!r} more than once")
    try:
        frame = nw.from_native(data, eager_only=True)
    except TypeError:
        raise ValueError(f"{where}: expected a data frame, got {type(data).__name__}") from None
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{where}: expected the column {missing[0]!r}, got {', '.join(map(repr, frame.columns)) or 'none':.200}"
        )
    if isinstance(data, pd.DataFrame):
        part = data[list(names)]
        arrow = [name for name in names if isinstance(part[name].dtype, pd.ArrowDtype)]
        if arrow:
            part = part.assign(**{name: _values(frame[name]) for name in arrow})
        return part if part.index.name is not None and part.index.is_unique else part.reset_index(drop=True)
    return pd.DataFrame({name: _values(frame[name]) for name in names})


def _values(column: nw.Series[Any]) -> Any:
    """A column of another library as pandas takes it, without its own conversion, which would need pyarrow.

    Integers beside missing values stay integers: as float64, identifiers beyond 2⁵³ would run together.
    """
    kind = column.dtype
    if isinstance(kind, nw.Enum):
        return pd.Categorical(column.to_list(), categories=list(kind.categories))
    whole = (
        (kind.is_numeric() or kind == nw.Boolean) and not column.null_count() and kind not in (nw.Int128, nw.UInt128)
    )
    if kind.is_float() or kind.is_temporal() or whole:
        return column.to_numpy()
    return pd.Series(column.to_list(), dtype=object).to_numpy()


def place(frame: pd.DataFrame | pd.Series, row: int) -> str:
    """How a message names a row."""
    return f"{frame.index.name or 'row'} {frame.index[row]}"


def agree(sources: Mapping[str, Source], names: Sequence[str], categorical: Sequence[str] = ()) -> dict[str, Column]:
    """Every column as all sites have it; `categorical` columns have levels even where they are numbers.

    Raises `ValueError` naming the site and the column where two sites have different kinds, or a kind is no use.
    """
    found = {site: _found(site, source, names, categorical) for site, source in sources.items()}
    return {name: _agreed(name, found, name in categorical) for name in names}


def _found(site: str, source: Source, names: Sequence[str], categorical: Sequence[str]) -> Found:
    """Every column of a site; of one that is read in chunks, its levels, or a number for its kind."""
    found: dict[str, pd.Series] = {}
    for frame in source.frames():
        for name in names:
            column = frame[name]
            if source.streamed:
                column = column.dropna()
                if name in found and len(found[name]) and len(column):
                    before, kind = (_kind(part, where(site, name)) for part in (found[name], column))
                    if kind != before:
                        at = place(column, 0)
                        raise ValueError(
                            f"{where(site, name)}: expected {before} as above, got {kind} at {at}; list levels as text"
                        )
                few = name in categorical or (len(column) > 0 and _kind(column, where(site, name)) == LEVELS)
                column = column.drop_duplicates() if few else column.head(1)
                parts = [part for part in (found.get(name), column) if part is not None and len(part)]
                column = pd.concat(parts).drop_duplicates().head(MOST_LEVELS + 1) if parts else column
            found[name] = column
    return found


def where(site: str | None, name: str) -> str:
    """How a message names a column; site None stands for data to predict for."""
    return f"data[{name!r}]" if site is None else f"sites[{site!r}][{name!r}]"


def _agreed(name: str, frames: Mapping[str, Found], categorical: bool) -> Column:
    first: tuple[str, str] | None = None
    for site, frame in frames.items():
        if not frame[name].notna().any():
            continue  # a column without values has no kind of its own
        kind = _kind(frame[name], where(site, name))
        if first is None:
            first = site, kind
        elif kind != first[1]:
            raise ValueError(f"{where(site, name)}: expected {first[1]} as at site {first[0]!r}, got {kind}")
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
        if types <= {bool, np.bool_}:
            return TRUTH
        if bool not in types and all(issubclass(kind, Real | Decimal) for kind in types):
            return NUMBER
        if len(types) == 1 and types <= {str}:
            return LEVELS
        raise ValueError(f"{where}: expected numbers or text, got {', '.join(sorted(t.__name__ for t in types))}")
    raise ValueError(f"{where}: expected numbers, truth values or text, got {column.dtype}")


def _levels(frames: Mapping[str, Found], name: str) -> Column:
    declared: list[Any] = []
    seen: set[Any] = set()
    by_site: dict[str, list[Any]] = {}
    ordered = False
    for site, frame in frames.items():
        column = frame[name]
        by_site[site] = list(column.dropna().unique())
        seen |= set(by_site[site])
        if isinstance(column.dtype, pd.CategoricalDtype):
            declared += [level for level in column.cat.categories if level not in declared]
            ordered = ordered or bool(column.cat.ordered)
    _check_texts(name, frames, by_site, set(declared))
    if len(seen) > MOST_LEVELS:
        raise ValueError(f"{name}: expected at most {MOST_LEVELS} levels over all sites, got {len(seen)}")
    levels = (*declared, *sorted(seen - set(declared)))
    return Column(LEVELS, tuple(v.item() if isinstance(v, np.generic) else v for v in levels), ordered)


def _check_texts(
    name: str, frames: Mapping[str, Found], by_site: Mapping[str, Sequence[Any]], declared: set[Any]
) -> None:
    """Refuse levels that stand for a missing value, and two that differ by case or spaces alone."""
    texts = [(site, value) for site, values in by_site.items() for value in values]
    for site, value in texts:
        if is_no_level(value) and value not in declared:
            row = int(np.argmax((frames[site][name] == value).to_numpy(dtype=bool, na_value=False)))
            raise ValueError(
                f"{where(site, name)}: expected the name of a level or a missing value, got the text {value!r} at "
                f"{place(frames[site][name], row)}"
            )
    pair = slip(value for _, value in texts)
    if pair is not None:
        (other, spelling), (site, value) = (texts[index] for index in pair)
        raise ValueError(f"{where(site, name)}: expected the spelling {spelling!r} as at site {other!r}, got {value!r}")


def check_kinds(frame: pd.DataFrame, known: Mapping[str, Column]) -> None:
    """Raise `ValueError` for a column of new data whose kind is not that of the fit."""
    for name, column in known.items():
        kind = _kind(frame[name], where(None, name)) if frame[name].notna().any() else column.kind
        numbered = column.kind == LEVELS and kind == NUMBER and not isinstance(column.levels[0], str)
        if kind != column.kind and not numbered:
            raise ValueError(f"{where(None, name)}: expected {column.kind} as in the fit, got {kind}")


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
