"""The folder of one run: locked while in use, described by a manifest, resumed from a sealed checkpoint.

    manifest.json         what is run: data fingerprint, seed, method, configuration digest, package version; when the
                          run has ended, the SHA-256 of every file that it left
    config.toml           the configuration, every default written out
    history.jsonl         a line per round (times.jsonl: their seconds)
    state.safetensors     what `--resume` starts from, and the history's length and SHA-256 at that round
    .lock                 held by the process that uses the folder

A run that is killed at any moment, before the first checkpoint too, is resumed; equal runs leave equal bytes, times
excepted. A damaged file, and data or a configuration other than the run's, are refused in one line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from badmm import __version__
from badmm.experiments.store.history import History, Mark
from badmm.transports.atomic import remove_torn, sha256, write_atomic
from badmm.transports.sealed import Array, load_tensors, save_tensors

MANIFEST, CONFIG, HISTORY, STATE = "manifest.json", "config.toml", "history.jsonl", "state.safetensors"
FORMAT = 1
"""The number of this folder's format; another one is refused."""
_STATE = "state"
_SEAL = "sha256"
_MARK = "history"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`, made where it is missing, alone; ValueError where another process does.

    The operating system frees the lock of a process that ends, however it ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"--out: expected a folder, got the file {folder}") from None
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"--out: expected a folder that no other run uses, got {folder}, which one uses now") from None
    try:
        remove_torn(folder)
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Manifest:
    """What a run is of; `files` holds the SHA-256 of what it left, empty while it is not finished."""

    name: str
    method: str
    seed: int
    data: str
    """SHA-256 of the data as they were read."""
    configuration: str
    """SHA-256 of the configuration's keys that may not change."""
    version: str = __version__
    format: int = FORMAT
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it into `folder`, sealed like a checkpoint."""
        table = asdict(self)
        sealed = {**table, _SEAL: _digest(table)}
        write_atomic(folder / MANIFEST, (json.dumps(sealed, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read what `write` wrote; ValueError that names the file for anything else."""
        path = folder / MANIFEST
        try:
            table = json.loads(path.read_bytes())
            intact = table.pop(_SEAL) == _digest(table)
        except (ValueError, TypeError, AttributeError, KeyError):
            intact = False
        if not intact:
            raise ValueError(f"{path}: expected the manifest of a run, got a damaged or foreign file")
        if table.get("format") != FORMAT:
            raise ValueError(f"{path}: expected format {FORMAT}, got {table.get('format')!r}")
        return cls(**table)


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """A run after `round` rounds: named arrays, and metadata that JSON can hold."""

    round: int
    arrays: Mapping[str, Array]
    metadata: Mapping[str, Any]


class RunFolder:
    """One run's folder, to be written to inside `locked`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History(path / HISTORY)

    @property
    def started(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / MANIFEST).exists()

    def check_unused(self) -> None:
        """Raise ValueError where files of a run lie without a manifest: another program's, or an older version's."""
        for name in (HISTORY, STATE, "state.npz"):
            if (self.path / name).exists():
                raise ValueError(f"--out: expected a folder without results, got {self.path / name} of another version")

    def check_files(self) -> Manifest:
        """The manifest of the run that began here; ValueError that names the file where one is damaged or missing."""
        manifest = Manifest.read(self.path)
        for name, digest in manifest.files.items():
            path = self.path / name
            if not path.is_file():
                raise ValueError(f"{path}: expected the file that {MANIFEST} lists, got none")
            if sha256(path) != digest:
                raise ValueError(f"{path}: expected the file that {MANIFEST} lists, got a changed or damaged one")
        return manifest

    def checkpoint(self) -> tuple[Checkpoint | None, Mark | None]:
        """What was saved last, and the history's mark then; None where nothing was. ValueError for a damaged file."""
        path = self.path / STATE
        if not path.exists():
            return None, None
        arrays, metadata = load_tensors(path)
        try:
            state, mark = json.loads(metadata[_STATE]), Mark(*json.loads(metadata[_MARK]))
            return Checkpoint(state.pop("round"), arrays, state), mark
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(f"{path}: expected the checkpoint of a run, got another safetensors file") from None

    def begin(self, manifest: Manifest, config: str) -> Checkpoint | None:
        """Open the folder for rounds and return the checkpoint to go on from (None: from the start).

        The manifest is written without the results of an earlier end, which are stale from here on.
        """
        checkpoint, mark = self.checkpoint()
        self.history.check(mark)
        write_atomic(self.path / CONFIG, config.encode())
        manifest.write(self.path)
        self.history.cut(mark)
        return checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """Write what a resumed run starts from."""
        state = {"round": checkpoint.round, **checkpoint.metadata}
        metadata = {_STATE: json.dumps(state, sort_keys=True), _MARK: json.dumps(self.history.mark)}
        save_tensors(self.path / STATE, checkpoint.arrays, metadata)

    def finish(self, manifest: Manifest, results: Mapping[str, bytes]) -> None:
        """Write the results of a run that has ended, and the manifest that lists every file."""
        for name, content in results.items():
            write_atomic(self.path / name, content)
        files = {name: sha256(self.path / name) for name in sorted({HISTORY, STATE, *results})}
        replace(manifest, files=files).write(self.path)
