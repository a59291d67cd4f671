"""Data from .csv and .npz files: named columns, checked on the way in; every message names file, line and column.

A .csv is UTF-8 with or without a byte-order mark; blank lines are skipped, and a column that names sites or groups is
text exactly as written, so that 01, 1 and 1.0 are three names. Nothing is unpickled.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from badmm import checks
from badmm.data.names import is_missing, slip

Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Features X (n, d) with their names, target y (n,), and every other array with n rows by name."""

    X: Array
    y: Array
    names: tuple[str, ...]
    extra: dict[str, Array]
    lines: NDArray[np.intp] | None = None
    """The line of the file that each row comes from, for a .csv."""

    def place(self, row: int) -> str:
        """Where a row is found in the file."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def read(path: Path, target: str, keep_apart: Sequence[str] = (), *, numbers: Sequence[str] = ()) -> Table:
    """Read a table; columns (.csv) or one-dimensional arrays (.npz) in `keep_apart` are no features.

    A .csv has a header; its columns are numbers, those in `keep_apart` are text unless they are in `numbers` too. A
    .npz holds the target, `X` (n, d) and the arrays to keep apart. Raises ValueError naming the file, the line or row
    and the column.
    """
    readers = {".csv": _read_csv, ".npz": _read_npz}
    if path.suffix not in readers:
        raise ValueError(f"data.source: expected a name that ends in .csv or .npz, got {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"data.source: expected an existing .csv or .npz file or a data set's name, got {str(path)!r}")
    table = readers[path.suffix](path, target, tuple(keep_apart), tuple(numbers))
    if len(table.y) == 0:
        raise ValueError(f"{path}: expected at least one row, got none")
    for name, values in table.extra.items():
        _check_names(path, name, values, table)
    return table


def _check_names(path: Path, name: str, values: Array, table: Table) -> None:
    """Refuse a missing name, whose rows would belong to nobody, and one spelled in two ways, which would be two."""
    numbers = values.dtype.kind == "f"
    missing = np.isnan(values) if numbers else np.array([is_missing(value) for value in values], dtype=bool)
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(f"{path}: {table.place(row)}, column {name!r}: expected a value, got {str(values[row])!r}")
    pair = None if numbers else slip(map(str, values))
    if pair is not None:
        earlier, row = pair
        raise ValueError(
            f"{path}: {table.place(row)}, column {name!r}: expected the spelling {str(values[earlier])!r} of "
            f"{table.place(earlier)}, got {str(values[row])!r}"
        )


# ---- .csv -----------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, target: str, keep_apart: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    header, rows, lines = read_rows(path)
    for name in (target, *keep_apart):
        if name not in header:
            raise ValueError(f"{path}: expected a column {name!r}, got {_list(header) or 'an empty file'}")
    features = tuple(name for name in header if name != target and name not in keep_apart)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    parsed = {name: _numbers(path, name, columns[name], lines) for name in (*features, target, *numbers)}
    X = np.stack([parsed[name] for name in features], axis=1) if features else np.empty((len(rows), 0))
    extra = {name: parsed[name] if name in parsed else np.array(columns[name], dtype=str) for name in keep_apart}
    return Table(X, parsed[target], features, extra, np.array(lines, dtype=np.intp))


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}: expected UTF-8 text, got UTF-16")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line}: expected UTF-8 text, got byte 0x{content[error.start]:02x}") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}: line {line}: expected text, got a null byte")
    return text


def read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """The header of a .csv, its rows as stripped text and their first lines; lines without a value are left out.

    ValueError naming the file and the line.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    header: list[str] = []
    rows, lines = [], []
    begins = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                if not header:
                    header = stripped
                    _check_header(path, header, begins)
                elif len(stripped) != len(header):
                    raise ValueError(f"{path}: line {begins}: expected {len(header)} values, got {len(stripped)}")
                else:
                    rows.append(stripped)
                    lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}: line {begins}: expected values separated by commas, got: {error}") from None
    return header, rows, lines


def _check_header(path: Path, names: list[str], line: int) -> None:
    for place, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"{path}: line {line}: expected a name for column {place}, got none")
        if name in names[: place - 1]:
            raise ValueError(f"{path}: line {line}: expected different names, got {name!r} twice")


def _numbers(path: Path, name: str, cells: Sequence[str], lines: Sequence[int]) -> Array:
    """Cells as finite numbers in decimal notation; Python's 1_000 is none."""
    try:
        values = np.array([float(cell) for cell in cells])
        good = bool(np.isfinite(values).all()) and not any("_" in cell for cell in cells)
    except ValueError:
        good = False
    if not good:
        row = next(index for index, cell in enumerate(cells) if not _is_number(cell))
        got = repr(cells[row][:40]) if cells[row] else "an empty cell"
        raise ValueError(f"{path}: line {lines[row]}, column {name!r}: expected a finite number, got {got}")
    return values


def _is_number(cell: str) -> bool:
    try:
        return "_" not in cell and bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _list(names: Sequence[str]) -> str:
    """Names for a message, not too many."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


# ---- .npz -----------------------------------------------------------------------------------------------------------


def _read_npz(path: Path, target: str, keep_apart: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {info.filename.removesuffix(".npy"): _array(path, archive, info) for info in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"{path}: expected a readable .npz archive, got: {error}") from None
    for name in (target, *keep_apart):
        if name not in arrays:
            raise ValueError(f"{path}: expected an array {name!r}, got {_list(list(arrays)) or 'an empty file'}")
    y = _real(path, target, arrays[target])
    X = _real(path, "X", arrays["X"]) if "X" in arrays else np.empty((y.size, 0))
    if y.ndim != 1 or X.ndim != 2 or len(X) != len(y):
        raise ValueError(f"{path}: expected X (n, d) and {target} (n,), got {X.shape} and {y.shape}")
    extra = {name: _real(path, name, arrays[name]) if name in numbers else arrays[name] for name in keep_apart}
    for name, values in extra.items():
        if values.shape != y.shape:
            raise ValueError(f"{path}: {name}: expected shape {y.shape}, got {values.shape}")
    return Table(X, y, tuple(f"x{index}" for index in range(X.shape[1])), extra)


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """One array of an archive; its header may not promise other than what the archive holds."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as stream:
        try:
            version = npy.read_magic(stream)
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
            if read_header is None:
                raise ValueError(f"format {version}")
            shape, fortran, dtype = read_header(stream)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: expected a NumPy array, got: {str(error)[:100]}") from None
        if dtype.hasobject:
            raise ValueError(f"{path}: {name}: expected numbers or text, got an array of objects")
        content = stream.read()
    count = 1
    for length in shape:
        count *= length  # Python's integers: NumPy's product could overflow
    if len(content) != count * dtype.itemsize:
        raise ValueError(
            f"{path}: {name}: expected {count * dtype.itemsize} bytes for shape {shape}, got {len(content)}"
        )
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _real(path: Path, name: str, values: Array) -> Array:
    """Finite real numbers; ValueError that names file and array."""
    try:
        return checks.real_array(values, name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
