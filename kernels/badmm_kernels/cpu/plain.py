"""The fast acceptance path: contiguous arrays of one library, shape and dtype, without forbidden overlaps.

`accept` and `PlainArrays.disjoint` accept a subset of what the checks of face/arrays.py and face/outputs.py accept, in
a third of their time: a step of IVON takes half as long as with the full checks alone on 1,000 coordinates and as long
on 100,000 (`python -m benchmarks.calls`). All other calls go to the full checks, which accept them or raise the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof
from operator import sub
from typing import Any, NamedTuple

import numpy as np

from badmm_kernels.face import arrays as ar, exchange


class PlainArrays(NamedTuple):
    """Flattened arrays of one shape and dtype, and their addresses; None and 0 represent an absent array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    library: exchange.Library
    flat: list[Any]
    begins: list[int]

    def disjoint(self, written: Sequence[int], allowed: Sequence[Sequence[int]]) -> bool:
        """Return whether no two arrays overlap in part and each written[k] coincides only with arrays of allowed[k]."""
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
    """Return the arrays if a kernel can use these NumPy arrays, torch tensors or None unchanged, else None."""
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
