"""The folder of one run: locked while in use, described by a manifest, resumed from a sealed checkpoint.

    manifest.json         data fingerprint, seed, method, configuration digest, package version; after the end of the
                          run also the SHA-256 of every file
    config.toml           the configuration with all defaults
    history.jsonl         one line per round (times.jsonl: their seconds)
    state.safetensors     the checkpoint of `--resume`, with the history's length and SHA-256 at that round
    .lock                 held by the process that uses the folder

A run that is killed at any moment, even before the first checkpoint, can be resumed. Equal runs write equal bytes,
except for times. A damaged file, other data and another configuration are refused with a one-line error.
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
"""Version of the folder's format; others are refused."""
_STATE = "state"
_SEAL = "sha256"
_MARK = "history"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create `folder` if it is missing and lock it; raise ValueError if another process holds the lock.

    The operating system releases the lock of a process that ends or is killed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"--out: expected a folder, got the file {folder}") from None
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"--out: expected a folder that no other run uses, got {folder}, which is in use") from None
    try:
        remove_torn(folder)
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Manifest:
    """The description of a run; `files` holds the SHA-256 of its files and is empty until the run is finished."""

    name: str
    method: str
    seed: int
    data: str
    """SHA-256 of the data."""
    configuration: str
    """SHA-256 of the keys of the configuration that must not change."""
    version: str = __version__
    format: int = FORMAT
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the manifest into `folder`, sealed like a checkpoint."""
        table = asdict(self)
        sealed = {**table, _SEAL: _digest(table)}
        write_atomic(folder / MANIFEST, (json.dumps(sealed, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of `folder`; raise ValueError with the file's name if it is damaged or foreign."""
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
    """The state of a run after `round` rounds: named arrays, and metadata that JSON can represent."""

    round: int
    arrays: Mapping[str, Array]
    metadata: Mapping[str, Any]


class RunFolder:
    """The folder of one run; writing requires `locked`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History(path / HISTORY)

    @property
    def started(self) -> bool:
        """Whether the folder has a manifest."""
        return (self.path / MANIFEST).exists()

    def check_unused(self) -> None:
        """Raise ValueError if the folder has files of a run without a manifest, as an older version writes."""
        for name in (HISTORY, STATE, "state.npz"):
            if (self.path / name).exists():
                raise ValueError(f"--out: expected a folder without results, got {self.path / name} of another version")

    def check_files(self) -> Manifest:
        """Return the manifest; raise ValueError with the name of a listed file that is damaged or missing."""
        manifest = Manifest.read(self.path)
        for name, digest in manifest.files.items():
            path = self.path / name
            if not path.is_file():
                raise ValueError(f"{path}: expected the file that {MANIFEST} lists, got none")
            if sha256(path) != digest:
                raise ValueError(f"{path}: expected the file that {MANIFEST} lists, got a changed or damaged one")
        return manifest

    def checkpoint(self) -> tuple[Checkpoint | None, Mark | None]:
        """Return the last checkpoint and the history's mark, or (None, None); raise ValueError for a damaged file."""
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
        """Open the folder for rounds; return the checkpoint from which the run continues, or None.

        The manifest is written without a list of results: those of an earlier end are obsolete.
        """
        checkpoint, mark = self.checkpoint()
        self.history.check(mark)
        write_atomic(self.path / CONFIG, config.encode())
        manifest.write(self.path)
        self.history.cut(mark)
        return checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint."""
        state = {"round": checkpoint.round, **checkpoint.metadata}
        metadata = {_STATE: json.dumps(state, sort_keys=True), _MARK: json.dumps(self.history.mark)}
        save_tensors(self.path / STATE, checkpoint.arrays, metadata)

    def finish(self, manifest: Manifest, results: Mapping[str, bytes]) -> None:
        """Write the results of a finished run, and the manifest with all files."""
        for name, content in results.items():
            write_atomic(self.path / name, content)
        files = {name: sha256(self.path / name) for name in sorted({HISTORY, STATE, *results})}
        replace(manifest, files=files).write(self.path)
