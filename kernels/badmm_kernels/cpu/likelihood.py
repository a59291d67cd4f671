"""What stands between a caller's arrays and a likelihood's loops: checks of shape and type, missing weights and
offsets, threads, outputs, tables.

Values are not tested: supports are the caller's to check, once, and a loss that overflows is infinite in its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm_kernels.cpu import threads
from badmm_kernels.cpu.quadrature import tables

Array = np.ndarray[Any, Any]
GRAIN = 1 << 11  # fewest rows worth a thread: about 50 µs of work
ONE, ZERO = np.ones(1), np.zeros(1)
Profile = tuple[Callable[[float], tuple[float, float, float]], float, float]


def _rows(name: str, value: Any, count: int | None) -> Array:
    """A float64 array (n,), contiguous."""
    array = np.asarray(value)
    if array.dtype != np.float64 or array.ndim != 1:
        raise ValueError(f"{name}: expected a float64 array (n,), got {array.dtype} of shape {array.shape}")
    if count is not None and len(array) != count:
        raise ValueError(f"{name}: expected shape ({count},), got {array.shape}")
    return np.ascontiguousarray(array)


@dataclass(frozen=True)
class RowKernel:
    """A function of every row: inputs and responses, then a weight and, for predictors, an offset."""

    name: str
    inputs: tuple[str, ...]
    responses: tuple[str, ...]
    parameters: tuple[str, ...]
    uniforms: Callable[..., tuple[float, ...]]
    results: int
    loop: Callable[..., Any]

    def tables(self) -> Sequence[Array]:
        """What the loop reads beside rows and numbers."""
        return ()

    def __call__(
        self, values: Sequence[Any], parameters: Sequence[float], weight: Any, offset: Any, out: Any
    ) -> tuple[Array, ...]:
        """The results, an array (n,) each."""
        count: int | None = None
        flat: list[Any] = []
        for name, value in zip((*self.inputs, *self.responses), values, strict=True):
            array = _rows(name, value, count)
            count = len(array)
            flat += [array, 1]
        assert count is not None
        for name, value, missing in (("weight", weight, ONE), ("offset", offset, ZERO))[: 1 + bool(self.inputs)]:
            flat += [missing, 0] if value is None else [_rows(name, value, count), 1]
        for name, number in zip(self.parameters, parameters, strict=True):
            if not 0 < number < np.inf:
                raise ValueError(f"{name}: expected a positive number, got {number!r}")
        numbers = [float(u) for u in self.uniforms(*(float(p) for p in parameters))]
        outputs = [np.empty(count) for _ in range(self.results)] if out is None else list(out)
        for k, array in enumerate(outputs):
            if array.shape != (count,) or array.dtype != np.float64 or not array.flags.c_contiguous:
                raise ValueError(f"out[{k}]: expected a contiguous float64 array ({count},), got {array.shape}")
        tabled = self.tables()

        def run(_row_lo: int, _row_hi: int, lo: int, hi: int) -> int:
            return int(self.loop(lo, hi, *flat, *numbers, *tabled, *outputs))

        threads.split(run, 1, count, GRAIN)
        return tuple(outputs)


@dataclass(frozen=True)
class ExpectationKernel(RowKernel):
    """Expectations over every row's predictor; `profiles` are the functions that are tabulated, each with the place
    of its nearest singularity and the distance of that from the real axis."""

    profiles: tuple[Profile, ...]

    def tables(self) -> Sequence[Array]:
        """The grids of every profile."""
        return [part for profile in self.profiles for part in tables(*profile)]
