"""Data frames from one CSV or Parquet file per site: every message names the file, and the line or the column.

A CSV is UTF-8 with or without a byte-order mark; blank lines are skipped. Columns that `text` names are text exactly as
written, so that 01, 1 and 1.0 are three levels; of the others, those whose every value is a number are numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

MISSING = ("", "NA", "NaN")
"""What stands for a missing value where nothing else is said, exactly as written."""
LARGEST_EXACT = 2**53
DATE = r"\s*(\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4})\s*"
DECIMAL_COMMA = r"\s*[-+]?[\d.]*\d,\d+\s*"


def read_frame(
    path: Path, text: Collection[str] = (), missing: Sequence[str] = MISSING, columns: Collection[str] | None = None
) -> pd.DataFrame:
    """The file's columns, or those named; a CSV's rows are indexed by their lines.

    Raises `ValueError` for a file that cannot be read as it says it can, and for a column of it that is mostly numbers
    or dates unless `text` names it.
    """
    return next(read_frames(path, None, text, missing, columns))


def read_frames(
    path: Path,
    rows: int | None,
    text: Collection[str] = (),
    missing: Sequence[str] = MISSING,
    columns: Collection[str] | None = None,
) -> Iterator[pd.DataFrame]:
    """The same in frames of so many rows, all of them where it is None; memory holds one frame.

    A column is numbers or text in each frame by itself.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: expected a name that ends in .csv or .parquet, got {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: expected an existing file, got {'a folder' if path.is_dir() else 'none'}")
    empty = True
    for frame in _parquet(path, rows, columns) if suffix == ".parquet" else _csv(path, rows, text, missing, columns):
        if len(frame):
            empty = False
            yield frame if columns is None else frame[list(columns)]
    if empty:
        raise ValueError(f"{path}: expected at least one row, got none")


def _check_names(path: Path, wanted: Collection[str], names: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            raise ValueError(f"{path}: expected the column {name!r}, got {', '.join(map(repr, names)):.200}")


def _parquet(path: Path, rows: int | None, columns: Collection[str] | None) -> Iterator[pd.DataFrame]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
    # as float64, which pandas has integers beside missing values in, identifiers beyond 2**53 would run together
    integers = {getattr(pyarrow, f"{sign}int{bits}")(): pd.Int64Dtype() for sign in ("", "u") for bits in (8, 16, 32)}
    integers |= {pyarrow.int64(): pd.Int64Dtype(), pyarrow.uint64(): pd.UInt64Dtype()}
    try:
        with parquet.ParquetFile(path) as file:
            _check_names(path, columns or (), file.schema_arrow.names)
            wanted = None if columns is None else list(columns)
            start = 0
            for batch in [file.read(wanted)] if rows is None else file.iter_batches(rows, columns=wanted):
                frame = batch.to_pandas(types_mapper=integers.get, ignore_metadata=True)
                frame.index = pd.RangeIndex(start, start + len(frame), name="row")
                start += len(frame)
                yield frame
    except (pyarrow.ArrowException, OSError) as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: expected a Parquet file, got: {words:.160}") from None


def _csv(
    path: Path, rows: int | None, text: Collection[str], missing: Sequence[str], columns: Collection[str] | None
) -> Iterator[pd.DataFrame]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for content, lines in _records(path, stream, rows, [*text, *(columns or ())]):
                yield _table(path, content, lines, text, missing, columns)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#04x}") from None


def _table(
    path: Path,
    content: str,
    lines: Sequence[int],
    text: Collection[str],
    missing: Sequence[str],
    columns: Collection[str] | None,
) -> pd.DataFrame:
    frame = pd.read_csv(
        io.StringIO(content),
        dtype=dict.fromkeys(text, "str"),
        usecols=None if columns is None else list(columns),
        na_values=list(missing),
        keep_default_na=False,
        index_col=False,
        low_memory=False,  # one kind a column, not one a chunk
    )
    if len(frame) != len(lines):
        raise ValueError(f"{path}: expected {len(lines)} rows, got {len(frame)} that can be read")
    frame.index = pd.Index(lines, name="line")
    for name in frame.columns.difference(list(text)):
        _check_column(path, str(name), frame[name])
    return frame


def _check_column(path: Path, name: str, column: pd.Series) -> None:
    """Refuse identifiers as numbers, and numbers or dates with a slip in them as levels."""
    if pd.api.types.is_bool_dtype(column):
        return
    numeric = pd.to_numeric(column, errors="coerce")
    whole = (numeric.dropna() % 1 == 0).all() and (numeric.isna() == column.isna()).all()
    if whole and (numeric.abs() >= LARGEST_EXACT).any():
        raise ValueError(f"{path}: column {name!r}: whole numbers beyond 2**53 are identifiers; list it as text")
    if pd.api.types.is_numeric_dtype(column):
        return
    values = column.dropna().astype(str)
    numbers = numeric[values.index].notna()
    dated = values.str.fullmatch(DATE).to_numpy(dtype=bool) | values.str.fullmatch(DECIMAL_COMMA).to_numpy(dtype=bool)
    slips = values[~numbers] if numbers.any() else values[dated]
    if len(slips):
        raise ValueError(
            f"{path}: line {slips.index[0]}, column {name!r}: expected a number, a missing value or a column listed as "
            f"text, got {slips.iloc[0]!r:.60}"
        )


def _records(
    path: Path, stream: Iterable[str], rows: int | None, wanted: Collection[str]
) -> Iterator[tuple[str, list[int]]]:
    """The header with some rows as they are written, and the line where each of them begins.

    Refuses missing or repeated names, and rows of another length.
    """
    raw: list[str] = []
    reader = csv.reader(_kept(path, stream, raw), strict=True)
    header: list[str] = []
    lines: list[int] = []
    head, begins = "", 1
    try:
        for row in reader:
            if not header and row:
                header = row
                _check_header(path, header, begins)
                _check_names(path, wanted, header)
                head = "".join(raw)
                raw.clear()
            elif row and len(row) != len(header):
                raise ValueError(f"{path}: line {begins}: expected {len(header)} values, got {len(row)}")
            elif row and (len(row) > 1 or row[0].strip() or row == [""]):  # '""' is a missing value, no blank line
                lines.append(begins)
            begins = reader.line_num + 1
            if len(lines) == rows:
                yield head + "".join(raw), lines
                raw.clear()
                lines = []
    except csv.Error as error:
        raise ValueError(f"{path}: line {begins}: expected values separated by commas, got: {error}") from None
    if not header:
        raise ValueError(f"{path}: expected a header of column names, got an empty file")
    if lines:
        yield head + "".join(raw), lines


def _kept(path: Path, stream: Iterable[str], raw: list[str]) -> Iterator[str]:
    """The lines of a stream, each of which is added to `raw`."""
    for line in stream:
        if "\0" in line:
            raise ValueError(f"{path}: expected text, got a zero byte")
        raw.append(line)
        yield line


def _check_header(path: Path, header: Sequence[str], line: int) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ValueError(f"{path}: line {line}: expected values separated by commas, got {header[0]!r:.80}")
    for place, name in enumerate(header, start=1):
        if not name.strip():
            raise ValueError(f"{path}: line {line}: expected a name for column {place}, got an empty one")
        if name != name.strip():
            raise ValueError(f"{path}: line {line}: expected names without spaces around them, got {name!r}")
        if name in header[: place - 1]:
            raise ValueError(f"{path}: line {line}: expected every column once, got {name!r} more than once")
