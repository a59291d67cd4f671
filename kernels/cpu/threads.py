"""Compiled loops release the GIL; above a size threshold their range is cut into one piece a thread.

A pool instead of Numba's own parallel loops: every kernel is compiled once, loads from the cache in milliseconds, and
there is no second threading layer beside torch's. The thread count is Numba's (NUMBA_NUM_THREADS) unless set here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from numba import config

GRAIN = 1 << 16  # fewest coordinates worth a thread: about 30 µs of work

_lock = threading.Lock()
_count: int = int(config.NUMBA_NUM_THREADS)
_pool: ThreadPoolExecutor | None = None


def get_num_threads() -> int:
    """Threads that kernels above the size threshold use."""
    return _count


def set_num_threads(count: int) -> None:
    """Use at most `count` threads; results do not depend on it."""
    global _count, _pool
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count: expected a positive integer, got {count!r}")
    with _lock:
        _count, _pool = count, None  # calls under way keep the pool they hold


def _workers(count: int) -> ThreadPoolExecutor:
    """The pool, made on first use."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, count - 1), thread_name_prefix="kernels")
        return _pool


def _after_fork() -> None:
    """In a forked child the pool's threads do not exist, and the lock may be held by one of them."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def over(run: Callable[[int, int, int, int], int], rows: int, width: int, grain: int = GRAIN) -> int:
    """run(row_lo, row_hi, lo, hi) over rows × width, cut along the longer axis; the bitwise or of what it returns."""
    count = _count
    pieces = min(count, max(1, rows * width // grain))
    if pieces == 1:
        return run(0, rows, 0, width)
    pool = _workers(count)
    along_rows = rows >= 4 * pieces and rows > width // grain
    size = rows if along_rows else width
    cuts = [size * k // pieces for k in range(pieces + 1)]
    if not along_rows:
        cuts = [
            c if c in (0, size) or size < 1024 else c & ~63 for c in cuts
        ]  # keep pieces on cache lines of their own
    parts = [(lo, hi, 0, width) if along_rows else (0, rows, lo, hi) for lo, hi in pairwise(cuts)]
    waiting = [pool.submit(run, *part) for part in parts[1:]]
    outside = run(*parts[0])
    for future in waiting:
        outside |= future.result()
    return outside
