"""Seeded test points: ordinary numbers, the edges of the number range, and points at which a formula cancels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ulps import epsilon

Array = NDArray[Any]

DTYPES = ("float32", "float64")

# Decades that do not overflow in linear formulas, and in formulas with squares and products of three factors.
LINEAR_DECADES = {"float32": 30.0, "float64": 280.0}
SQUARE_DECADES = {"float32": 9.0, "float64": 70.0}


def generator(*key: object) -> np.random.Generator:
    """Return a generator seeded by the words of `key`: the points are the same on every run and machine."""
    return np.random.default_rng(list("/".join(str(part) for part in key).encode()))


def spread(rng: np.random.Generator, count: int, decades: float, signed: bool, dtype: str) -> Array:
    """Return numbers whose magnitudes are log-uniform over `10**-decades .. 10**decades`."""
    values = 10.0 ** rng.uniform(-decades, decades, count)
    if signed:
        values *= rng.choice((-1.0, 1.0), count)
    return values.astype(dtype)


def edges(decades: float, signed: Sequence[bool], dtype: str) -> list[Array]:
    """Return all combinations of tiny, small, one, large and huge numbers over the slots, signed where `signed`."""
    magnitudes = [10.0**power for power in (-decades, -decades / 3, 0.0, decades / 3, decades)]
    choices = [[-value for value in magnitudes] + magnitudes if sign else magnitudes for sign in signed]
    grid = np.array(list(itertools.product(*choices)))
    if len(grid) > 1000:
        grid = grid[:: len(grid) // 1000 + 1]
    return [np.ascontiguousarray(column).astype(dtype) for column in grid.T]


def neighbours(values: Array, rng: np.random.Generator, steps: int) -> Array:
    """Return numbers within `steps` units of relative spacing of `values`."""
    shifts = rng.integers(-steps, steps + 1, values.shape) * epsilon(str(values.dtype))
    return np.asarray(values * (1.0 + shifts), dtype=values.dtype)


def grown(logarithm: Array) -> Array:
    """Return exp of the logarithm clipped to ±8: a factor of 3000 is a large enough distance."""
    return np.asarray(np.exp(np.clip(logarithm, -8.0, 8.0)))
