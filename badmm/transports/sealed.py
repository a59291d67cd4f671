"""Named arrays as sealed safetensors: the metadata hold the SHA-256 of the whole file with zeros in its place.

The seal covers every bit, including the header. The metadata are written in sorted order, so that equal arrays give
equal bytes; the library itself writes them in the order of a hash map. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from badmm.transports.atomic import write_atomic

Array = NDArray[Any]
SEAL = "sha256"
_UNSEALED = "0" * 64
_METADATA = "__metadata__"


def sealed_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return arrays (scalars as shape (1,)) and text metadata as the bytes of a sealed safetensors file."""
    whole = {name: np.ascontiguousarray(np.atleast_1d(value)) for name, value in tensors.items()}
    content = serialize(whole)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header = {_METADATA: dict(sorted({**metadata, SEAL: _UNSEALED}.items())), **dict(sorted(header.items()))}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    unsealed = len(text).to_bytes(8, "little") + text + content[8 + size :]
    return _with_seal(unsealed, _UNSEALED, hashlib.sha256(unsealed).hexdigest())


def save_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write arrays and text metadata as a sealed safetensors file."""
    write_atomic(path, sealed_bytes(tensors, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a file of `save_tensors`; raise ValueError with the file's name if it is foreign or a bit has changed."""
    check_seal(path)
    try:
        with safe_open(path, framework="numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = dict(stored.metadata())
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got one that cannot be read: {error}") from None
    metadata.pop(SEAL)
    return arrays, metadata


def check_seal(path: Path) -> None:
    """Raise ValueError unless the file is unchanged since `save_tensors`."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + size]) if 8 < size < len(content) else {}
        seal = header[_METADATA][SEAL]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(
            f"{path}: expected a safetensors file written by badmm, got a damaged or foreign one"
        ) from None
    if not isinstance(seal, str) or len(seal) != len(_UNSEALED):
        raise ValueError(f"{path}: expected a checksum of 64 digits, got {seal!r:.80}")
    found = hashlib.sha256(_with_seal(content, seal, _UNSEALED)).hexdigest()
    if found != seal:
        raise ValueError(f"{path}: expected the checksum {seal[:12]}…, got {found[:12]}…: the file is damaged")


def _with_seal(content: bytes, old: str, new: str) -> bytes:
    """Return the file with another seal; the first occurrence of the seal's key is in the metadata."""
    before, after = (f'"{SEAL}":"{seal}"'.encode() for seal in (old, new))
    return content.replace(before, after, 1)
