"""The fast acceptance path: arrays of one library, shape and type, contiguous, without forbidden overlaps.

`accept` and `PlainArrays.disjoint` accept a part of what the checks of face/arrays.py and face/outputs.py accept, in a
third of their time: a step of IVON on 1,000 coordinates takes half as long as with the full checks alone, on 100,000 as
long (`python -m benchmarks.calls`). Any other call goes to those checks, which accept it as well or raise the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof
from operator import sub
from typing import Any, NamedTuple

import numpy as np

from badmm_kernels.face import arrays as ar
from badmm_kernels.face import exchange


class PlainArrays(NamedTuple):
    """Arrays of one shape and type, each flattened, and its address; None and 0 stand for an absent array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    library: exchange.Library
    flat: list[Any]
    begins: list[int]

    def disjoint(self, written: Sequence[int], allowed: Sequence[Sequence[int]]) -> bool:
        """Whether no two arrays overlap in part, and array written[k] is none but those of allowed[k]."""
        begins = self.begins
        distinct = sorted({*begins, 0})
        if min(map(sub, distinct[1:], distinct)) < self.nbytes:
            return False
        for own, may in zip(written, allowed, strict=True):
            begin = begins[own]
            if begins.count(begin) != 1 + [begins[n] for n in may if n != own].count(begin):
                return False
        return True


def accept(values: Sequence[Any]) -> PlainArrays | None:
    """The arrays, if a kernel can take these NumPy arrays or torch tensors (or None) as they are; else None."""
    array: Any
    shape: Any = None
    dtype: Any = None
    nbytes, library = 0, exchange.NUMPY
    known: dict[int, tuple[Any, int]] = {id(None): (None, 0)}
    flat, begins = [], []
    for value in values:
        found = known.get(id(value))
        if found is None:
            if type(value) is np.ndarray:
                array, own, begin = value, exchange.NUMPY, 0
            elif (tensor := exchange.plain_tensor(value)) is not None:
                array, own = tensor
                begin = addressof(array.base)
            else:
                return None
            if shape is None:
                shape, dtype, nbytes, library = array.shape, array.dtype, array.nbytes, own
                if dtype not in exchange.DTYPES or nbytes == 0:
                    return None
            elif array.shape != shape or array.dtype != dtype:
                return None
            if not array.flags.carray:  # in C's order, aligned, writable
                return None
            whole = array if len(shape) == 1 else array.reshape(-1)
            found = known[id(value)] = whole, begin or addressof(ar.first_byte(array))
        flat.append(found[0])
        begins.append(found[1])
    return None if shape is None else PlainArrays(shape, dtype, nbytes, library, flat, begins)
