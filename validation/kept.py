"""Exact values kept by their inputs: CPU and GPU, and in tests many builds of one kernel, are judged at equal points.

An oracle takes far longer than the kernels that it judges: at 50 digits, 10 µs to 1 ms a coordinate. What is kept of a
coordinate is 32 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from hashlib import blake2b
from typing import TypeVar

from .calls import Array

T = TypeVar("T")
_values: dict[tuple[Hashable, ...], object] = {}


def kept(compute: Callable[[], T], arrays: Iterable[Array], *key: Hashable) -> T:
    """Return `compute()`, computed once per key and contents of the arrays; the key names everything else it needs."""
    digest = blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    whole = (*key, digest.digest())
    if whole not in _values:
        _values[whole] = compute()
    found: T = _values[whole]  # type: ignore[assignment]
    return found
