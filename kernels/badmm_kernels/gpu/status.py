"""Domain errors that are found on a device and raised later.

Kernels are asynchronous. A value outside its domain goes into one record per device: the first failing launch keeps its
smallest (slot, operand, index) and the values there. Like CUDA's own asynchronous errors, the error is raised when the
host waits for the device: in a reduction that returns a Python float, or in `synchronize`. This module keeps the
functions that explain a record, for the last `KEPT` launches.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm_kernels.gpu.device import current
from badmm_kernels.gpu.protocol import Device

KEPT = 1 << 14
OVERFLOWED = 15  # instead of an operand's number: the sum itself
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Failure:
    """A domain error: slot, operand, flat index, and the values there."""

    slot: int
    operand: int
    index: int
    values: tuple[float, ...]


Explain = Callable[[Failure], None]
_numbers = itertools.count(1)
_launches: OrderedDict[int, tuple[str, Explain]] = OrderedDict()
_lock = threading.Lock()


def register(name: str, explain: Explain) -> int:
    """Return the number of a new launch; `explain` raises its error and must not hold an array."""
    number = next(_numbers)
    with _lock:
        _launches[number] = (name, explain)
        if len(_launches) > KEPT:
            _launches.popitem(last=False)
    return number


def failure(record: np.ndarray[Any, Any]) -> Failure:
    """Decode a device's record, whose key is packed by `key_of` of loops.cuh."""
    key = ~int(record["rank"]) & _WORD
    return Failure(key >> 60, key >> 56 & 15, key & ((1 << 56) - 1), tuple(float(v) for v in record["value"]))


def raise_first(device: Device, index: int | None = None, waiting_launch: int = 0) -> None:
    """Wait for one device, or for all, clear the records, and raise the recorded error, if any.

    waiting_launch: the launch for whose result the host waits; the error of another launch gets a note that names it.
    """
    errors = []
    for record in device.take_status(index):
        number = int(record["launch"])
        if not number:
            continue
        name, explain = _launches.get(number, ("", None))
        try:
            if explain is not None:
                explain(failure(record))
            raise ValueError(f"{name or 'a kernel'}: expected values inside the domain, got one outside it")
        except ValueError as error:
            if number != waiting_launch:
                error.add_note(f"found by {name or 'a kernel'}, launch {number}, and reported when the host waited")
            errors.append(error)
    for other in errors[1:]:
        errors[0].add_note(f"another device: {other}")
    if errors:
        raise errors[0]


def synchronize(index: int | None = None) -> None:
    """Implement `badmm_kernels.synchronize` for the device in use."""
    raise_first(current(), index)
