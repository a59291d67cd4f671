"""A thread pool for compiled loops, which release the GIL: large ranges are split into one piece per thread.

The pool replaces Numba's parallel loops: every kernel is compiled once, loads from the cache in milliseconds, and no
second threading layer runs beside torch's. `python -m benchmarks.kernels` times every kernel on one and on two threads
beside loops that are bound by memory.
Workers wait on one queue of calls. Any thread, the caller included, takes the next piece of a call that has not begun,
so a caller never waits for a piece that no thread computes: neither while the workers serve other calls, nor after a
fork, nor if no thread can start. The caller's piece is up to one grain longer, so that the caller does not sleep when
the workers finish: waking it takes longer than the grain.
The thread count is Numba's (NUMBA_NUM_THREADS) unless `set_num_threads` changes it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from queue import SimpleQueue

from numba import config

GRAIN = 1 << 16  # fewest coordinates worth a thread: about 30 µs of work
Part = tuple[int, int, int, int]  # first row, last row (exclusive), first column, last column (exclusive)


class _Call:
    """The pieces of a call and their results: the bits that a piece returned or the exception that it raised."""

    __slots__ = ("_begun", "_done", "_found", "_run")

    def __init__(self, run: Callable[[int, int, int, int], int], parts: Sequence[Part]) -> None:
        self._run, self._begun = run, deque(enumerate(parts))
        self._found: list[int | BaseException] = [0] * len(parts)
        self._done: SimpleQueue[None] = SimpleQueue()

    def help(self) -> int:
        """Compute pieces until all have begun; return the number computed here."""
        count = 0
        while True:
            try:
                number, part = self._begun.popleft()
            except IndexError:
                return count
            try:
                self._found[number] = self._run(*part)
            except BaseException as error:  # for the calling thread to raise
                self._found[number] = error
            self._done.put(None)
            count += 1

    def finish(self) -> int:
        """Compute the pieces not yet begun and wait for the others; return the bitwise or, or raise the first error."""
        self.help()
        for _ in self._found:
            self._done.get()
        outside = 0
        for found in self._found:
            if isinstance(found, BaseException):
                raise found
            outside |= found
        return outside


_lock = threading.Lock()
_count: int = int(config.NUMBA_NUM_THREADS)
_alone: ContextVar[bool] = ContextVar("single_threaded", default=False)
_calls: SimpleQueue[_Call] = SimpleQueue()
_workers = 0


def get_num_threads() -> int:
    """Return the number of threads of large kernels outside `single_threaded`."""
    return _count


def set_num_threads(count: int) -> None:
    """Set the largest number of threads; results do not depend on it. Raises ValueError unless count >= 1."""
    global _count
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count: expected a positive integer, got {count!r}")
    _count = count


@contextmanager
def single_threaded() -> Iterator[None]:
    """Within the context, run the kernels that this thread calls on this thread alone."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def _serve(calls: SimpleQueue[_Call]) -> None:
    """Serve calls for ever. No local name refers to a call while waiting, so that the caller's arrays can be freed."""
    while True:
        calls.get().help()


def _enqueue(call: _Call, count: int) -> None:
    """Queue a call for `count` workers; a worker starts when first needed and stays."""
    global _workers
    if _workers < count:
        with _lock:
            try:
                while _workers < count:
                    threading.Thread(target=_serve, args=(_calls,), name=f"kernels_{_workers}", daemon=True).start()
                    _workers += 1
            except RuntimeError:  # no thread left, or the interpreter ends: the caller computes alone
                pass
    for _ in range(min(count, _workers)):
        _calls.put(call)


def _after_fork() -> None:
    """Reset the pool in a forked child, which has no workers and may inherit locks that a worker holds."""
    global _workers, _calls, _lock
    _workers, _calls, _lock = 0, SimpleQueue(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def split(run: Callable[[int, int, int, int], int], rows: int, width: int, grain: int = GRAIN) -> int:
    """Call run(row_lo, row_hi, lo, hi) on pieces of rows × width, split along the longer axis; return the bitwise or.

    Raises the first piece's exception once all pieces have ended.
    """
    pieces = 1 if _alone.get() else min(_count, max(1, rows * width // grain))
    if pieces == 1:
        return run(0, rows, 0, width)
    along_rows = rows >= 4 * pieces and rows > width // grain
    size = rows if along_rows else width
    ahead = min(size * grain // (rows * width), size // (4 * pieces))  # the caller's extra part, while the workers wake
    cuts = [0] + [ahead + (size - ahead) * k // pieces for k in range(1, pieces + 1)]
    if not along_rows:
        # pieces start at multiples of 64 elements, so that no two share a cache line
        cuts = [c if c in (0, size) or size < 1024 else c & ~63 for c in cuts]
    call = _Call(run, [(lo, hi, 0, width) if along_rows else (0, rows, lo, hi) for lo, hi in pairwise(cuts)])
    _enqueue(call, pieces - 1)
    return call.finish()
