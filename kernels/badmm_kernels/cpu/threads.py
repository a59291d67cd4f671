"""Compiled loops release the GIL; above a size threshold their range is cut into one piece a thread.

Threads of our own instead of Numba's parallel loops: every kernel is compiled once, loads from the cache in
milliseconds, and there is no second threading layer beside torch's. Helpers wait on one queue for calls to help in; a
call's pieces are taken by whoever comes first, the calling thread among them, so that it never waits for a piece that
nobody has begun: not while helpers are busy with other threads' calls, not after a fork, not where no thread can start.
The caller's piece is up to a grain longer, so that it is no more asleep, and slow to wake, when the helpers have ended.
The thread count is Numba's (NUMBA_NUM_THREADS) unless set here.
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
Part = tuple[int, int, int, int]  # first and last row (exclusive), first and last column


class _Call:
    """A call's pieces, and what each came to: the bits it returned or what it raised."""

    __slots__ = ("_begun", "_done", "_found", "_run")

    def __init__(self, run: Callable[[int, int, int, int], int], parts: Sequence[Part]) -> None:
        self._run, self._begun = run, deque(enumerate(parts))
        self._found: list[int | BaseException] = [0] * len(parts)
        self._done: SimpleQueue[None] = SimpleQueue()

    def help(self) -> int:
        """Compute pieces until none is left to begin; how many."""
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
        """Compute what nobody has begun and wait for the rest; the bitwise or of all, or the first piece's error."""
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
_helpers = 0


def get_num_threads() -> int:
    """Threads that kernels above the size threshold use, outside `single_threaded`."""
    return _count


def set_num_threads(count: int) -> None:
    """Use at most `count` threads; results do not depend on it."""
    global _count
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count: expected a positive integer, got {count!r}")
    _count = count


@contextmanager
def single_threaded() -> Iterator[None]:
    """Within it, kernels called from this thread use no other."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def _help(calls: SimpleQueue[_Call]) -> None:
    """What a helper does: no name keeps a call, and with it the caller's arrays, while it waits for the next."""
    while True:
        calls.get().help()


def _ask(call: _Call, count: int) -> None:
    """Let `count` helpers know of a call; they are started when first needed and stay."""
    global _helpers
    if _helpers < count:
        with _lock:
            try:
                while _helpers < count:
                    threading.Thread(target=_help, args=(_calls,), name=f"kernels_{_helpers}", daemon=True).start()
                    _helpers += 1
            except RuntimeError:  # no more threads, or the interpreter ends: the call needs none
                pass
    for _ in range(min(count, _helpers)):
        _calls.put(call)


def _after_fork() -> None:
    """A forked child has no helpers, and what they waited on, or were about to start, may be locked by one of them."""
    global _helpers, _calls, _lock
    _helpers, _calls, _lock = 0, SimpleQueue(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def over(run: Callable[[int, int, int, int], int], rows: int, width: int, grain: int = GRAIN) -> int:
    """run(row_lo, row_hi, lo, hi) over rows × width, cut along the longer axis; the bitwise or of what it returns.

    What a piece raises is raised here, the first piece's first, when all have ended.
    """
    pieces = 1 if _alone.get() else min(_count, max(1, rows * width // grain))
    if pieces == 1:
        return run(0, rows, 0, width)
    along_rows = rows >= 4 * pieces and rows > width // grain
    size = rows if along_rows else width
    ahead = min(size * grain // (rows * width), size // (4 * pieces))  # computed while the helpers wake
    cuts = [0] + [ahead + (size - ahead) * k // pieces for k in range(1, pieces + 1)]
    if not along_rows:
        cuts = [
            c if c in (0, size) or size < 1024 else c & ~63 for c in cuts
        ]  # keep pieces on cache lines of their own
    call = _Call(run, [(lo, hi, 0, width) if along_rows else (0, rows, lo, hi) for lo, hi in pairwise(cuts)])
    _ask(call, pieces - 1)
    return call.finish()
