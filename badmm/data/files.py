"""Data from .csv and .npz files: named columns, checked on the way in."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Features X (n, d) with their names, target y (n,), and every other array with n rows by name."""

    X: Array
    y: Array
    names: tuple[str, ...]
    extra: dict[str, Array]


def read(path: Path, target: str, keep_apart: tuple[str, ...] = ()) -> Table:
    """Read a table; columns (.csv) or one-dimensional arrays (.npz) in `keep_apart` are no features.

    A .csv has a header; its columns are numbers, those in `keep_apart` may be text. A .npz holds the target, `X`
    (n, d) and the arrays to keep apart. Raises ValueError naming the file, the column and the row.
    """
    if not path.is_file():
        raise ValueError(f"data.source: expected an existing .csv or .npz file or a data set's name, got {str(path)!r}")
    readers = {".csv": _read_csv, ".npz": _read_npz}
    if path.suffix not in readers:
        raise ValueError(f"data.source: expected a name that ends in .csv or .npz, got {str(path)!r}")
    table = readers[path.suffix](path, target, keep_apart)
    if len(table.y) == 0:
        raise ValueError(f"{path}: expected at least one row, got none")
    for name, values in (("features", table.X), (target, table.y)):
        if not np.all(np.isfinite(values)):
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(f"{path}: {name}: expected finite numbers, got {values[row]} in data row {row}")
    return table


def _read_csv(path: Path, target: str, keep_apart: tuple[str, ...]) -> Table:
    with path.open(newline="", encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream)) or [[]]
    for name in (target, *keep_apart):
        if name not in header:
            raise ValueError(f"{path}: expected a column {name!r}, got {', '.join(header) or 'an empty file'}")
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{path}: expected {len(header)} values in data row {number}, got {len(row)}")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    features = tuple(name for name in header if name != target and name not in keep_apart)
    numbers = {name: _numbers(path, name, columns[name]) for name in (*features, target)}
    X = np.stack([numbers[name] for name in features], axis=1) if features else np.empty((len(rows), 0))
    extra = {name: _numbers_or_text(columns[name]) for name in keep_apart}
    return Table(X, numbers[target], features, extra)


def _numbers(path: Path, name: str, values: tuple[str, ...]) -> Array:
    for row, value in enumerate(values):
        try:
            float(value)
        except ValueError:
            raise ValueError(f"{path}: {name}: expected a number, got {value!r} in data row {row}") from None
    return np.array(values, dtype=float)


def _numbers_or_text(values: tuple[str, ...]) -> Array:
    try:
        return np.array(values, dtype=float)
    except ValueError:
        return np.array(values)


def _read_npz(path: Path, target: str, keep_apart: tuple[str, ...]) -> Table:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name in (target, *keep_apart):
        if name not in arrays:
            raise ValueError(f"{path}: expected an array {name!r}, got {', '.join(arrays) or 'an empty file'}")
    y = np.asarray(arrays[target], dtype=float)
    X = np.asarray(arrays.get("X", np.empty((len(y), 0))), dtype=float)
    if y.ndim != 1 or X.ndim != 2 or len(X) != len(y):
        raise ValueError(f"{path}: expected X (n, d) and {target} (n,), got {X.shape} and {y.shape}")
    extra = {name: arrays[name] for name in keep_apart}
    for name, values in extra.items():
        if values.shape != y.shape:
            raise ValueError(f"{path}: {name}: expected shape {y.shape}, got {values.shape}")
    return Table(X, y, tuple(f"x{index}" for index in range(X.shape[1])), extra)
