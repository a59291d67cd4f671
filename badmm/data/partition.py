"""A user's own partition: a .csv file that names the client of every training point.

    client                index,client
    north                 17,north
    south                 3,south
    north                 20,north

Left: one line per point, in the order of the data set. Right: lines in any order, each with the point's index from 0;
points without a line belong to no client. Names are text exactly as written. Clients are numbered in the order of
their names, those that are whole numbers first and by value, so that clients 0 to K−1 keep their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badmm.data import files
from badmm.data.names import is_missing, slip
from badmm.data.splits import Rows

CLIENT, INDEX = "client", "index"


@dataclass(frozen=True)
class Partition:
    """names: of the K clients. owner: each point's client as a place in `names`, (N,); −1 for none. lines: where each
    client's name is first found in the file."""

    path: Path
    names: tuple[str, ...]
    owner: NDArray[np.intp]
    lines: tuple[int, ...]

    def rows(self, kept: NDArray[np.intp] | None = None) -> Rows:
        """The points of every client, sorted: their indices, or their places in `kept`, the indices of those in use.

        ValueError for a client that has none of those in use.
        """
        owner = self.owner if kept is None else self.owner[kept]
        found = [np.flatnonzero(owner == client) for client in range(len(self.names))]
        for name, line, rows in zip(self.names, self.lines, found, strict=True):
            if not rows.size:
                raise ValueError(
                    f"{self.path}: line {line}: expected client {name!r} to have some of the {len(owner)} points in "
                    f"use of {len(self.owner)}, got none"
                )
        return found


def read(path: str | Path, count: int) -> Partition:
    """Read the partition of `count` points; ValueError naming the file, and the line where there is one."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected an existing .csv file that names every point's client, got none")
    header, table, lines = files.read_rows(path)
    if set(header) not in ({CLIENT}, {CLIENT, INDEX}):
        raise ValueError(
            f"{path}: expected the column {CLIENT!r}, perhaps beside {INDEX!r}, got "
            f"{', '.join(header) or 'an empty file'}"
        )
    given = [row[header.index(CLIENT)] for row in table]
    for name, line in zip(given, lines, strict=True):
        if is_missing(name):
            raise ValueError(f"{path}: line {line}: expected a client's name, got {name!r}")
    pair = slip(given)
    if pair is not None:
        earlier, later = pair
        raise ValueError(
            f"{path}: line {lines[later]}: expected the spelling {given[earlier]!r} of line {lines[earlier]}, got "
            f"{given[later]!r}"
        )
    if not given:
        raise ValueError(f"{path}: expected a line per point below the header, got none")
    if INDEX in header:
        places = _places(path, [row[header.index(INDEX)] for row in table], lines, count)
    else:
        _check_length(path, lines, count)
        places = np.arange(count)
    names = tuple(sorted(set(given), key=_order))
    number = {name: client for client, name in enumerate(names)}
    owner = np.full(count, -1, dtype=np.intp)
    owner[places] = [number[name] for name in given]
    first = dict(zip(reversed(given), reversed(lines), strict=True))
    return Partition(path, names, owner, tuple(first[name] for name in names))


def _places(path: Path, given: list[str], lines: list[int], count: int) -> NDArray[np.intp]:
    """The indices of points, each in 0..count−1 and there once."""
    seen: dict[int, int] = {}
    for text, line in zip(given, lines, strict=True):
        if not (text.isascii() and text.isdigit() and int(text) < count):
            raise ValueError(f"{path}: line {line}: expected an index from 0 to {count - 1}, got {text!r}")
        if (before := seen.setdefault(int(text), line)) != line:
            raise ValueError(f"{path}: line {line}: expected every index once, got {text}, which line {before} has")
    return np.fromiter(seen, np.intp, len(seen))


def _check_length(path: Path, lines: list[int], count: int) -> None:
    if len(lines) != count:
        line = lines[count] if len(lines) > count else lines[-1]
        raise ValueError(
            f"{path}: line {line}: expected {count} clients, one per training point, got {len(lines)} "
            f"(name points by a column {INDEX!r} to leave some out)"
        )


def _order(name: str) -> tuple[bool, int, str]:
    whole = name.isascii() and name.isdigit()
    return not whole, int(name) if whole else 0, name
