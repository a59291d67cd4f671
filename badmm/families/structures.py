"""Which structure of a precision an array stands for, and how one becomes another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badmm.checks import Array, require
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import DiagonalPrecision, Precision, ScalarPrecision


def total(parts: Sequence[Array]) -> Array:
    """The sum of diagonals (d,) and matrices (d, d): a diagonal where all are."""
    if all(part.ndim == 1 for part in parts):
        return np.asarray(np.sum(parts, axis=0))
    return np.asarray(np.sum([np.diag(part) if part.ndim == 1 else part for part in parts], axis=0))


STRUCTURES: tuple[type[Precision], ...] = (ScalarPrecision, DiagonalPrecision, MatrixPrecision)
"""By the number of axes of the array."""


def precision_of(array: Array, dim: int) -> Precision:
    """The structure that an array stands for, checked.

    Raises `ValueError` for a shape that does not fit θ (d,), a number that is not positive, a matrix that is not
    symmetric positive definite.
    """
    if array.ndim and array.shape != (dim,) * array.ndim:
        expected = " or ".join(str((dim,) * axes) for axes in (1, 2))
        raise ValueError(f"precision: expected a scalar or shape {expected} to match the mean, got {array.shape}")
    found = STRUCTURES[array.ndim](array, dim)
    if array.ndim > 1:
        require(np.abs(array - array.T) <= 1e-10 * np.abs(array).max(), array, "precision", "a symmetric matrix")
    found.check()
    return found


def widened(precision: Precision, structure: type[Precision]) -> Precision:
    """The same S in a structure with at least as many entries: a number on a diagonal, a diagonal in a matrix.

    Raises `ValueError` for a structure that cannot hold it.
    """
    kinds = ("a scalar", "a scalar or vector", "a scalar, vector or matrix")
    have, want = STRUCTURES.index(type(precision)), STRUCTURES.index(structure)
    if have > want:
        raise ValueError(f"expected {kinds[want]} precision, got shape {precision.array.shape}")
    if have == want:
        return precision
    diagonal = precision.diagonal.copy()
    return structure(np.diag(diagonal) if structure is MatrixPrecision else diagonal, precision.dim)
