"""Threads that each serve one client, or one stack of clients, at a time, on one core each.

Client problems are small matrices and short passes: BLAS with two threads on 300 × 300 matrices made `solve` five
times slower on a busy machine, and threads inside threads oversubscribe the cores. Work runs in any number of threads
with the same bits: BLAS and the kernels run single-threaded in every one, also where there is one worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar

from threadpoolctl import ThreadpoolController

import badmm_kernels
from badmm.checks import positive_integer

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """BLAS libraries while so many modules are imported: they come with modules, finding them takes milliseconds."""
    return ThreadpoolController()


class Workers:
    """Up to `count` threads, started when first needed; `initializer(*arguments)` runs once in each thread."""

    def __init__(
        self, count: int, initializer: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
    ) -> None:
        self.count = positive_integer(count, "workers")
        self._initializer, self._arguments = initializer, arguments
        self._pool: ThreadPoolExecutor | None = None
        self._controller = _libraries(len(sys.modules))

    def one_blas_thread(self) -> AbstractContextManager[Any]:
        """A context within which BLAS runs on one thread, in the whole process."""
        return self._controller.limit(limits=1, user_api="blas")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(self, work: Callable[[Item], Result], items: Sequence[Item], serial: bool = False) -> list[Result]:
        """work(item) of every item, in the order of the items; the first error in that order is raised."""
        return list(self.each(work, items, serial))

    def each(self, work: Callable[[Item], Result], items: Sequence[Item], serial: bool = False) -> Iterator[Result]:
        """The same one by one, as they are done."""

        def alone(item: Item) -> Result:
            with badmm_kernels.single_threaded():
                return work(item)

        with self.one_blas_thread():
            if serial or self.count == 1 or len(items) < 2:
                yield from map(alone, items)
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count, "clients", self._initializer, self._arguments)
            yield from self._pool.map(alone, items)
