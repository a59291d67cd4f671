"""The files in which MNIST is published: IDX, plain or gzip; `badmm.data.batches` reads CIFAR's.

IDX (Le Cun, Cortes, Burges): two zero bytes, a type byte (8: unsigned bytes), the number of axes, each axis' length as
a big-endian 32-bit integer, the data row-major.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def find(folder: Path, name: str) -> Path:
    """`folder/name` or `folder/name.gz`; ValueError that says what was looked for, and where, when there is neither."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"data.root: expected a file {name} or {name}.gz in {folder}, got none")


def read_idx(path: Path, axes: int) -> Bytes:
    """An IDX file of unsigned bytes with that many axes; ValueError naming the file for anything else."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a readable IDX file, got: {error}") from None
    if len(content) < 4 + 4 * axes or content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(f"{path}: expected an IDX header 00 00 08 {axes:02x}, got {content[:4].hex(' ') or 'nothing'}")
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) != 4 + 4 * axes + size:
        raise ValueError(f"{path}: expected {size} bytes of data for shape {shape}, got {len(content) - 4 - 4 * axes}")
    # torch wants memory that it may write to
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_idx_pair(folder: Path, stem: str) -> tuple[Bytes, NDArray[np.int64]]:
    """Images (N, 1, H, W) and labels (N,) of `stem`, "train" or "t10k", in the standard file names."""
    images = read_idx(find(folder, f"{stem}-images-idx3-ubyte"), 3)
    path = find(folder, f"{stem}-labels-idx1-ubyte")
    labels = read_idx(path, 1).astype(np.int64)
    if len(labels) != len(images):
        raise ValueError(f"{path}: expected {len(images)} labels, one per image, got {len(labels)}")
    return images[:, None], labels
