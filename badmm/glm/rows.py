"""One site's rows as a model sees them: in memory, or on disk and in memory some at a time."""

from __future__ import annotations

import copy
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badmm.checks import Array
from badmm.likelihoods.streamed import Streamed

Positions = NDArray[np.integer[Any]]
Map = Callable[[Array], Array]


@dataclass(frozen=True)
class SiteRows:
    """X (n, d), y, weights and offset (n,), and how many rows were left out.

    `kept` are the positions of the rows used within the site's data.
    """

    X: Array
    y: Array
    weights: Array
    offset: Array
    left_out: int
    kept: Positions

    @property
    def used(self) -> int:
        """n."""
        return len(self.y)

    @property
    def weight(self) -> float:
        """Σ w."""
        return float(self.weights.sum())

    def blocks(self) -> Iterator[SiteRows]:
        """All rows at once."""
        yield self

    def mapped(self, change: Map) -> SiteRows:
        """The same rows with `change(X)` for X."""
        return replace(self, X=change(self.X))

    def client(self, make: Callable[[SiteRows], Any]) -> Any:
        """The rows' loss."""
        return make(self)


class _File:
    """A file without a name, closed with the last who reads it."""

    def __init__(self) -> None:
        self.handle = tempfile.TemporaryFile(prefix="badmm-rows-")  # noqa: SIM115 - the finalizer closes it
        weakref.finalize(self, self.handle.close)


class SpilledRows:
    """Rows that come in blocks and lie in a file without a name from then on; memory holds one block.

    The file is the process's alone and ends with it, or with the last object that reads it.
    """

    def __init__(self, blocks: Iterable[SiteRows]) -> None:
        self._file, self._lengths = _File(), list[int]()
        self._map: Map | None = None
        self.left_out, self.weight, self._width = 0, 0.0, 0
        for block in blocks:
            self.left_out += block.left_out
            self.weight += block.weight
            self._width = block.X.shape[1]
            if block.used:
                self._file.handle.write(np.column_stack([block.X, block.y, block.weights, block.offset]).tobytes())
                self._lengths.append(block.used)
        self._file.handle.flush()

    @property
    def used(self) -> int:
        """n."""
        return sum(self._lengths)

    def blocks(self) -> Iterator[SiteRows]:
        """The rows in the blocks in which they came; one of no row where there is none."""
        place, width = 0, self._width + 3
        for length in self._lengths or [0]:
            size = 8 * width * length
            found = np.frombuffer(self._read(size, place)).reshape(length, width)
            place += size
            X = np.ascontiguousarray(found[:, :-3])
            y, weights, offset = (np.ascontiguousarray(found[:, column]) for column in (-3, -2, -1))
            yield SiteRows(X if self._map is None else self._map(X), y, weights, offset, 0, np.arange(length))

    def _read(self, size: int, place: int) -> bytes:
        """Bytes from a place on: a read may stop short of 2 GB."""
        found = b""
        while len(found) < size:
            more = os.pread(self._file.handle.fileno(), size - len(found), place + len(found))
            if not more:
                raise OSError(f"a site's rows: expected {size} bytes from byte {place} on, got {len(found)}")
            found += more
        return found

    def mapped(self, change: Map) -> SpilledRows:
        """The same rows with `change(X)` for X, block by block."""
        other, before = copy.copy(self), self._map
        other._map = change if before is None else lambda X: change(before(X))
        return other

    def client(self, make: Callable[[SiteRows], Any]) -> Any:
        """The rows' loss, block by block."""
        return Streamed(lambda: (make(block) for block in self.blocks()))


Site = SiteRows | SpilledRows
Sites = Mapping[str, Site]


@dataclass(frozen=True)
class Blocks(Iterable[SiteRows]):
    """The rows of some sites, block by block, as often as they are asked for."""

    sites: Sites

    def __iter__(self) -> Iterator[SiteRows]:
        for site in self.sites.values():
            yield from site.blocks()


@dataclass(frozen=True)
class Of(Iterable[Array]):
    """A function of every block of rows, computed as often as it is asked for."""

    parts: Iterable[SiteRows]
    compute: Callable[[SiteRows], Array]

    def __iter__(self) -> Iterator[Array]:
        return map(self.compute, self.parts)
