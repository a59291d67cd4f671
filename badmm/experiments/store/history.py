"""The history of a run: one JSON object per round and line, flushed to disk after every round.

`history.jsonl` has equal bytes in equal runs; the seconds per round, which differ, are in `times.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from badmm.transports.atomic import write_atomic

SECONDS = "seconds"


class Mark(NamedTuple):
    """A position in a history: the number of rounds and bytes before it, and their SHA-256."""

    rounds: int
    size: int
    sha256: str


class History:
    """The records of a run's rounds in `path`, and their times in times.jsonl in the same folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, path.with_name("times.jsonl")
        self._digest, self._size, self._rounds = hashlib.sha256(), 0, 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one round and flush it to disk; on OSError the history does not have the round."""
        kept = {key: value for key, value in record.items() if key != SECONDS}
        line = _line(kept)
        _append(self.path, line)
        self._digest.update(line)
        self._size, self._rounds = self._size + len(line), self._rounds + 1
        if SECONDS in record:
            _append(self.times, _line({"round": record["round"], SECONDS: record[SECONDS]}), sync=False)

    @property
    def mark(self) -> Mark:
        """The position after the rounds that this object has appended or kept."""
        return Mark(self._rounds, self._size, self._digest.hexdigest())

    def read(self) -> list[dict[str, Any]]:
        """Return the records with their times, without a torn last line.

        Raises ValueError with file and line number for a line that is not a record.
        """
        seconds = {record["round"]: record[SECONDS] for record in _records(self.times)}
        return [
            {**record, SECONDS: seconds[record["round"]]} if record["round"] in seconds else record
            for record in _records(self.path)
        ]

    def check(self, mark: Mark | None) -> None:
        """Raise ValueError unless the file begins with the bytes before `mark`; None is the start of the file."""
        size, digest = (mark.size, mark.sha256) if mark else (0, hashlib.sha256().hexdigest())
        content = self.path.read_bytes()[:size] if self.path.exists() else b""
        self._digest = hashlib.sha256(content)
        if len(content) < size or self._digest.hexdigest() != digest:
            raise ValueError(
                f"{self.path}: expected the {mark.rounds if mark else 0} rounds of the checkpoint, got a damaged or "
                "another history"
            )
        self._rounds, self._size = (mark.rounds, size) if mark else (0, 0)

    def cut(self, mark: Mark | None) -> None:
        """Truncate the history at `mark` (None: at the start), where the run continues."""
        self.check(mark)
        if self.path.exists():
            os.truncate(self.path, self._size)
        if self.times.exists():
            kept = [record for record in _records(self.times) if record["round"] <= self._rounds]
            write_atomic(self.times, b"".join(map(_line, kept)))


def _append(path: Path, line: bytes, *, sync: bool = True) -> None:
    """Write a whole line after the last whole line, or nothing."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        end = _end_of_lines(handle)
        os.ftruncate(handle, end)
        os.lseek(handle, end, os.SEEK_SET)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(handle, rest) :]
            if sync:
                os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, end)
            raise OSError(error.errno, f"{path}: {error.strerror}") from error
    finally:
        os.close(handle)


def _end_of_lines(handle: int) -> int:
    """Return the end of the last whole line; a kill or a full disk can leave a torn line after it."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        os.lseek(handle, start, os.SEEK_SET)
        place = os.read(handle, end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole, newline, _ = path.read_bytes().rpartition(b"\n")
    records = []
    for number, line in enumerate(whole.split(b"\n") if newline else (), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("round"), int):
            raise ValueError(f"{path}: line {number}: expected a round's record, got {line[:60]!r}")
        records.append(record)
    return records


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(_without_nan(record), default=_plain, ensure_ascii=False) + "\n").encode()


def _without_nan(value: Any) -> Any:
    """Return a record with None for NaN, which JSON cannot represent."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    return None if isinstance(value, float | np.floating) and value != value else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"record: expected numbers, strings and lists, got {type(value).__name__}")
