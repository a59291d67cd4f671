"""Domain errors that are found on a device and raised later.

A kernel never waits for the host to look at its result. A value outside its domain goes into one record a device: the
first launch that fails keeps its smallest (slot, operand, index) and the values there. The host raises the error when
it waits for the device anyway, in a reduction that returns a Python float, or when `synchronize` is called, like CUDA's
own asynchronous errors. What the numbers mean is kept here, for the last `KEPT` launches.
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
OVERFLOWED = 15  # in the place of an operand's number: the sum itself
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Failure:
    """What a device recorded: which slot, which operand, at which flat index, and the values there."""

    slot: int
    operand: int
    index: int
    values: tuple[float, ...]


Explain = Callable[[Failure], None]
_numbers = itertools.count(1)
_launches: OrderedDict[int, tuple[str, Explain]] = OrderedDict()
_lock = threading.Lock()


def register(name: str, explain: Explain) -> int:
    """The number of a new launch; `explain` raises its error and holds no array."""
    number = next(_numbers)
    with _lock:
        _launches[number] = (name, explain)
        if len(_launches) > KEPT:
            _launches.popitem(last=False)
    return number


def failure(record: np.ndarray[Any, Any]) -> Failure:
    """The record of a device in words of the call: keys are packed as loops.cuh's `key_of` packs them."""
    key = ~int(record["rank"]) & _WORD
    return Failure(key >> 60, key >> 56 & 15, key & ((1 << 56) - 1), tuple(float(v) for v in record["value"]))


def raise_first(device: Device, index: int | None = None, asked_by: int = 0) -> None:
    """Wait for a device, or for all, and raise the error that it recorded, if any; the record is cleared."""
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
            if number != asked_by:
                error.add_note(f"found by {name or 'a kernel'}, launch {number}, and reported when the host waited")
            errors.append(error)
    for other in errors[1:]:
        errors[0].add_note(f"another device: {other}")
    if errors:
        raise errors[0]


def synchronize(index: int | None = None) -> None:
    """`badmm_kernels.synchronize` of the device in use."""
    raise_first(current(), index)
