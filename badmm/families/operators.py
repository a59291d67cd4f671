"""Which operator an array stands for."""

from __future__ import annotations

import numpy as np

from badmm.checks import Array, require
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import DiagonalPrecision, Precision, ScalarPrecision

OPERATORS: tuple[type[Precision], ...] = (ScalarPrecision, DiagonalPrecision, MatrixPrecision)
"""By the number of axes of the array."""


def precision_of(array: Array, dim: int) -> Precision:
    """The operator that an array stands for, checked.

    Raises `ValueError` for a shape that does not fit θ (d,), a number that is not positive, a matrix that is not
    symmetric positive definite.
    """
    if array.ndim and array.shape != (dim,) * array.ndim:
        expected = " or ".join(str((dim,) * axes) for axes in (1, 2))
        raise ValueError(f"precision: expected a scalar or shape {expected} to match the mean, got {array.shape}")
    found = OPERATORS[array.ndim](array, dim)
    if array.ndim > 1:
        require(np.abs(array - array.T) <= 1e-10 * np.abs(array).max(), array, "precision", "a symmetric matrix")
    found.check()
    return found
