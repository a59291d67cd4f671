"""The files in which MNIST and CIFAR are published: IDX (plain or gzip) and CIFAR's Python batches.

IDX (Le Cun, Cortes, Burges): two zero bytes, a type byte (8: unsigned bytes), the number of axes, each axis' length as
a big-endian 32-bit integer, the data row-major. CIFAR (Krizhevsky, 2009): pickled dictionaries; they are read with an
unpickler that can build bytes, strings, numbers, lists, tuples, dictionaries and records of what is said of arrays,
from which the arrays are made after checks, and refuses all else.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_LARGEST_PICKLE = 1 << 30


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
        raise ValueError(f"{path}: expected {len(images)} labels, one an image, got {len(labels)}")
    return images[:, None], labels


class _Type:
    """What a batch says of an array's type. NumPy's own would believe any flags it is given, and bytes that are no
    pointers would be followed as such."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code.decode("latin1") if isinstance(code, bytes) else code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        self.order = order.decode("latin1") if isinstance(order, bytes) else str(order)

    def plain(self) -> np.dtype[Any]:
        """The type, if it is one of numbers."""
        if self.code not in _NUMBERS or self.order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"expected an array of numbers, got type {self.code!r} {self.order!r}")
        return np.dtype(self.code if self.order in ("|", "=") else self.order + self.code)


class _Array:
    """What a batch says of an array: its bytes are checked against its shape and type before it is one."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.value = _array(content, kind, shape, "F" if fortran else "C")


def _array(content: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"expected the bytes of an array of numbers, got {type(content).__name__}")
    found = np.frombuffer(bytearray(content), dtype=kind.plain())
    return found.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _PLAIN:
        raise pickle.UnpicklingError(f"expected a plain array, got {kind!r}")
    return _Array()


_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}
_PLAIN = object()  # stands for numpy.ndarray
_ALLOWED: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _PLAIN, ("numpy", "dtype"): _Type}
for _core in ("numpy.core", "numpy._core"):  # the name before and since NumPy 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _array


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("persistent objects are not allowed")


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of arrays and plain values, keys as text; ValueError naming the file for anything else."""
    size = path.stat().st_size
    if size > _LARGEST_PICKLE:
        raise ValueError(f"{path}: expected at most {_LARGEST_PICKLE} bytes, got {size}")
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: expected a batch of arrays and plain values, got: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary, got {type(content).__name__}")
    named = {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
    return {key: value.value if isinstance(value, _Array) else value for key, value in named.items()}


def read_cifar(path: Path, labels: str) -> tuple[Bytes, NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and the labels under the key `labels` of one batch."""
    batch = read_pickle(path)
    for key in ("data", labels):
        if key not in batch:
            raise ValueError(f"{path}: expected a key {key!r}, got {', '.join(sorted(batch)) or 'none'}")
    images, values = batch["data"], batch[labels]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{path}: data: expected bytes of shape (N, 3072), got {got}")
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{path}: {labels}: expected a list of integers, got {type(values).__name__}")
    if len(values) != len(images):
        raise ValueError(f"{path}: {labels}: expected {len(images)} labels, one an image, got {len(values)}")
    return images.reshape(-1, 3, 32, 32), np.array(values, dtype=np.int64)
