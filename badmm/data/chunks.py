"""A CSV or Parquet file as data frames of some rows at a time, for files that do not fit in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pandas as pd

from badmm.checks import positive_integer
from badmm.data.frames import MISSING

ROWS = 1 << 18
"""Rows of a chunk: 40 MB of twenty columns."""


def read_chunks(
    path: str | Path, rows: int = ROWS, text: Collection[str] = (), missing: Sequence[str] = MISSING
) -> Iterator[pd.DataFrame]:
    """The file's rows in their order, at most `rows` at a time; `text` and `missing` as in `badmm.data.frames`.

    Kinds of columns are those of each chunk: what must be text is named. Raises `ValueError` naming the file.
    """
    path, rows = Path(path), positive_integer(rows, "rows")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{path}: expected a name that ends in .csv or .parquet, got {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: expected an existing file, got {'a folder' if path.is_dir() else 'none'}")
    read = _parquet(path, rows) if path.suffix.lower() == ".parquet" else _csv(path, rows, text, missing)
    try:
        yield from read
    except (OSError, ValueError, UnicodeDecodeError) as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: expected rows of numbers and text, got: {words:.160}") from None


def _csv(path: Path, rows: int, text: Collection[str], missing: Sequence[str]) -> Iterator[pd.DataFrame]:
    kinds = dict.fromkeys(text, "str")
    options = {"dtype": kinds, "na_values": list(missing), "keep_default_na": False, "encoding": "utf-8-sig"}
    with pd.read_csv(path, chunksize=rows, index_col=False, **options) as reader:
        yield from reader


def _parquet(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield batch.to_pandas()
