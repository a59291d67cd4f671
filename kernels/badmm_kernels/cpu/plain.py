"""The usual call in one look: arrays of one library, shape and type, plain in memory, apart where they must be.

`look` and `Look.apart` say yes to a part of what the checks of face/arrays.py and face/outputs.py accept, in a
third of their time; whatever else comes goes to those checks, which accept it too or raise the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof
from operator import sub
from typing import Any, NamedTuple

import numpy as np

from badmm_kernels.face import arrays as ar
from badmm_kernels.face import exchange


class Look(NamedTuple):
    """Arrays of one shape and type: each flat, and the address at which it begins; None and 0 where there is none."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    library: exchange.Library
    flat: list[Any]
    begins: list[int]

    def apart(self, written: Sequence[int], allowed: Sequence[Sequence[int]]) -> bool:
        """Whether no array is partly another, and number written[k] wholly no other but of those in allowed[k]."""
        begins = self.begins
        distinct = sorted({*begins, 0})
        if min(map(sub, distinct[1:], distinct)) < self.nbytes:
            return False
        for own, may in zip(written, allowed, strict=True):
            begin = begins[own]
            if begins.count(begin) != 1 + [begins[n] for n in may if n != own].count(begin):
                return False
        return True


def look(values: Sequence[Any]) -> Look | None:
    """NumPy arrays or plain torch tensors that a kernel can take as they are, the first not None; or None."""
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
    return None if shape is None else Look(shape, dtype, nbytes, library, flat, begins)
