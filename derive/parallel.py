"""One function over many items, on all cores where this process can be copied."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_copied: tuple[Callable[[Any], Any], Sequence[Any]] = (len, ())


def mapped(function: Callable[[Item], Result], items: Sequence[Item], least: int) -> Iterator[Result]:
    """function(item) in the order of the items.

    A process per core takes them where there are at least `least` items and this process has one thread: a copy of a
    process with more may inherit a lock that nobody releases. A copy has the function and the items, which may be
    closures that no message could carry; what comes back is pickled.
    """
    global _copied
    alone = threading.active_count() == 1 and "fork" in multiprocessing.get_all_start_methods()
    if not alone or len(items) < least or multiprocessing.current_process().daemon:
        yield from map(function, items)
        return
    _copied = (function, items)
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        yield from pool.imap(_one, range(len(items)))


def _one(number: int) -> Any:
    function, items = _copied
    return function(items[number])
