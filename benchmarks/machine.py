"""Limits of the machine, measured in the run that uses them, and a description of the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from badmm_kernels.cpu import threads

Array = np.ndarray[Any, Any]
PACKAGES = ("numpy", "numba", "scipy")


@njit(nogil=True, cache=True)
def _read_modify_write(a: Array, scale: Any) -> None:
    for i in range(a.size):
        a[i] = a[i] * scale


@njit(nogil=True, cache=True)
def _update_with_one(a: Array, b: Array, scale: Any) -> None:
    for i in range(a.size):
        a[i] = a[i] * scale + b[i]


@njit(nogil=True, cache=True)
def _update_with_two(a: Array, b: Array, c: Array, scale: Any) -> None:
    for i in range(a.size):
        a[i] = (b[i] - c[i]) * scale + a[i]


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
def _read(a: Array) -> Any:
    total = a[0] - a[0]
    for i in range(a.size):
        total += a[i]
    return total


def times(call: Callable[[], Any], repeats: int = 7) -> list[float]:
    """Return the seconds of several calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def best_cpu(call: Callable[[], Any], repeats: int = 7) -> float:
    """Return the CPU seconds of the cheapest of several calls on one thread, after one that is not counted: other
    programs' share of the machine is left out."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


def best(call: Callable[[], Any], repeats: int = 7) -> float:
    """Return the seconds of the fastest of several calls, after one that is not counted."""
    return min(times(call, repeats))


def _threaded(body: Callable[[Array], Any], buffer: Array) -> Callable[[], Any]:
    def run(_row_lo: int, _row_hi: int, lo: int, hi: int) -> int:
        body(buffer[lo:hi])
        return 0

    return lambda: threads.split(run, 1, buffer.size)


def update_bandwidth(buffer: Array) -> Callable[[], Any]:
    """The read-modify-write loop a[i] = a[i] * s over a buffer, in place, on the kernels' own threads."""
    one = buffer.dtype.type(1)
    return _threaded(lambda piece: _read_modify_write(piece, one), buffer)


def same_reads(arrays: list[Array]) -> Callable[[], Any]:
    """An in-place loop that updates the first of one to three arrays from all of them: a kernel's reads, nothing
    else."""
    one = arrays[0].dtype.type(1)
    body = (_read_modify_write, _update_with_one, _update_with_two)[len(arrays) - 1]

    def run(_row_lo: int, _row_hi: int, lo: int, hi: int) -> int:
        body(*(a[lo:hi] for a in arrays), one)
        return 0

    return lambda: threads.split(run, 1, arrays[0].size)


def read_bandwidth(buffer: Array) -> Callable[[], Any]:
    """A sum over a buffer: reads only."""
    return _threaded(_read, buffer)


def describe(more: Sequence[str] = ()) -> str:
    """Processor, Python and package versions; `more` names packages beside the usual ones."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = f"{lines[0]}, {len(lines)} cores" if lines else model
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*PACKAGES, *more))
    return f"{model}; Python {platform.python_version()}, {versions}"


def write(path: Path, text: str) -> None:
    """Write to a temporary name first, so that an interrupted run leaves the old page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
