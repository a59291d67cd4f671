"""Data frames from one CSV or Parquet file per site: every message names the file, and the line or the column.

A CSV is UTF-8 with or without a byte-order mark; blank lines are skipped. Columns that `text` names are text exactly as
written, so that 01, 1 and 1.0 are three levels; of the others, those whose every value is a number are numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

MISSING = ("", "NA", "NaN")
"""What stands for a missing value where nothing else is said, exactly as written."""
LARGEST_EXACT = 2**53


def read_frame(path: Path, text: Collection[str] = (), missing: Sequence[str] = MISSING) -> pd.DataFrame:
    """The file's columns; raises `ValueError` for a file that cannot be read as it says it can."""
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: expected a name that ends in .csv or .parquet, got {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: expected an existing file, got none")
    frame = _parquet(path) if path.suffix == ".parquet" else _csv(path, text, missing)
    if not len(frame):
        raise ValueError(f"{path}: expected at least one row, got none")
    return frame


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise ValueError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: expected a Parquet file, got: {str(error).splitlines()[0]:.160}") from None


def _csv(path: Path, text: Collection[str], missing: Sequence[str]) -> pd.DataFrame:
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#04x}") from None
    names = _checked_lines(path, content)
    unknown = [name for name in text if name not in names]
    if unknown:
        raise ValueError(f"{path}: expected the text column {unknown[0]!r}, got {', '.join(map(repr, names)):.200}")
    frame = pd.read_csv(
        io.StringIO(content),
        dtype=dict.fromkeys(text, "str"),
        na_values=list(missing),
        keep_default_na=False,
        index_col=False,
    )
    for name, column in frame.items():
        if pd.api.types.is_float_dtype(column) and (column.abs() >= LARGEST_EXACT).any() and (column % 1 == 0).all():
            raise ValueError(f"{path}: column {name!r}: whole numbers beyond 2**53 are identifiers; list it as text")
    return frame


def _checked_lines(path: Path, content: str) -> list[str]:
    """The header; refuses names that are missing or repeated, and lines of another length."""
    if "\0" in content:
        raise ValueError(f"{path}: expected text, got a zero byte")
    reader = csv.reader(io.StringIO(content, newline=""))
    try:
        header: list[str] = next((row for row in reader if row), [])
        if not header:
            raise ValueError(f"{path}: expected a header of column names, got an empty file")
        for place, name in enumerate(header):
            if not name.strip():
                raise ValueError(f"{path}: expected a name for column {place + 1}, got an empty one")
            if name in header[:place]:
                raise ValueError(f"{path}: expected every column once, got {name!r} more than once")
        for row in reader:
            if row and len(row) != len(header):
                raise ValueError(f"{path}: expected {len(header)} values in line {reader.line_num}, got {len(row)}")
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
    return header
