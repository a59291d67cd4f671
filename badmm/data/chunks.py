"""A CSV or Parquet file as data frames of some rows at a time, for files that do not fit in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from badmm.checks import positive_integer
from badmm.data.frames import MISSING, read_frames

ROWS = 1 << 18
"""Rows of a chunk: 40 MB of twenty columns."""


def read_chunks(
    path: str | Path, rows: int = ROWS, text: Collection[str] = (), missing: Sequence[str] = MISSING
) -> Iterator[pd.DataFrame]:
    """The file's rows in their order, at most `rows` at a time; `text` and `missing` as in `badmm.data.frames`.

    Kinds of columns are those of each chunk: what must be text is named. Raises `ValueError` naming the file, and the
    line or the column.
    """
    return read_frames(Path(path), positive_integer(rows, "rows"), text, missing)


@dataclass(frozen=True)
class Chunked:
    """A site's file for `badmm.glm.fit`, read `rows` rows at a time, with `text` and `missing` as in `read_chunks`."""

    path: str | Path
    rows: int = ROWS
    text: Collection[str] = ()
    missing: Sequence[str] = MISSING

    def frames(self, columns: Collection[str]) -> Iterator[pd.DataFrame]:
        """Those columns, chunk by chunk: of two rows and more, as one row does not show which terms look at others."""
        if positive_integer(self.rows, "rows") < 2:
            raise ValueError(f"rows: expected at least 2, got {self.rows}")
        named = [name for name in self.text if name in columns]
        return read_frames(Path(self.path), self.rows, named, self.missing, columns)
