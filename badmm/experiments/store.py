"""What a run leaves on disk: files that are either whole or absent, and a history that survives being killed.

Every file is written to a temporary name in the same folder and renamed into place; the history alone grows by whole
lines, and `History.cut` drops what lies beyond the last checkpoint (a torn last line included).
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

_METADATA = "metadata.json"


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name and rename it to `path`; on failure nothing is left."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would make results unreadable to others
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_figure(path: Path, figure: Any, dpi: int = 130) -> None:
    """Write a matplotlib figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def save_posterior(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays and their description as safetensors (scalars become arrays of shape (1,))."""
    whole = {name: np.ascontiguousarray(np.atleast_1d(value)) for name, value in tensors.items()}
    write_atomic(path, safetensors_bytes(whole, metadata=dict(metadata)))


def save_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write named arrays, bit for bit, and metadata that JSON can hold, as one safetensors file."""
    whole = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    write_atomic(path, safetensors_bytes(whole, metadata={_METADATA: json.dumps(dict(metadata))}))


@contextmanager
def _stored(path: Path) -> Iterator[Any]:
    """What `save_tensors` wrote, opened; ValueError for anything else."""
    try:
        with safe_open(path, framework="numpy") as stored:
            yield stored
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a file written by this program, got: {error}") from None


def load_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `save_tensors` wrote; raises ValueError for anything else."""
    with _stored(path) as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, json.loads(stored.metadata()[_METADATA])  # noqa: SIM118


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone of what `save_tensors` wrote; raises ValueError for anything else."""
    with _stored(path) as stored:
        found: dict[str, Any] = json.loads(stored.metadata()[_METADATA])
        return found


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write named arrays, bit for bit, and metadata that JSON can hold, as one .npz."""
    text = np.frombuffer(json.dumps(dict(metadata)).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{**arrays, _METADATA: text})
    write_atomic(path, buffer.getvalue())


def load_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `save_arrays` wrote; raises ValueError for anything else."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays, json.loads(arrays.pop(_METADATA).tobytes())
    except (KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path}: expected a file written by this program, got: {error}") from None


class History:
    """One JSON object a round, one line each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one round as a single write of a whole line."""
        line = json.dumps(_without_nan(record), default=_plain, ensure_ascii=False) + "\n"
        with self.path.open("ab", buffering=0) as stream:
            stream.write(line.encode())

    def read(self) -> list[dict[str, Any]]:
        """The rounds written so far; a torn last line is left out."""
        if not self.path.exists():
            return []
        whole, newline, _ = self.path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()] if newline else []

    def cut(self, rounds: int) -> None:
        """Keep rounds 1..`rounds`, for a run that continues from there."""
        kept = [record for record in self.read() if record["round"] <= rounds]
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        write_atomic(self.path, lines.encode())


def _without_nan(value: Any) -> Any:
    """None for NaN, which JSON does not have, in a record and the tables in it."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    return None if isinstance(value, float | np.floating) and value != value else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"record: expected numbers, strings and lists, got {type(value).__name__}")
