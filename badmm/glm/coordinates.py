"""Coordinates of the coefficients in which the rows of all sites have mean square I, and a flat prior is flat.

With an intercept, columns are centred at their pooled means; the factor R of the pooled Gram matrix comes from the
sites' own factors, so that no site sends a row and nothing is squared:

    Z = (X − center) diag(1/scale) R⁻¹,   β = shift diag(1/scale) R⁻¹ θ,   shift = I − e_intercept centerᵀ.

The answer, and how well it is determined, then do not depend on the columns' units or origins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular

from badmm.checks import Array

INTERCEPT = "Intercept"
FLAT = 1e-8
"""The precision of a flat prior: that of 10⁻⁸ rows of a linear regression with noise of unit variance."""
ALIASED = 1e-10
"""The smallest singular value of the pooled columns, of unit length, at which they count as dependent."""


class Rows(Protocol):
    """One site's rows X (n, d) with their weights (n,)."""

    @property
    def X(self) -> Array:
        """(n, d)."""

    @property
    def weights(self) -> Array:
        """(n,)."""


@dataclass(frozen=True)
class Spread:
    """Pooled means and standard deviations (d,) of columns; the root mean square of one that is constant, 1 of 0."""

    total: float
    rows: int
    center: Array
    scale: Array
    size: Array
    """Root mean squares (d,)."""


def spread(terms: Sequence[str], parts: Sequence[Rows]) -> Spread:
    """Of all sites' columns; raises `ValueError` for weights that are 0 in every row."""
    total = sum(float(part.weights.sum()) for part in parts)
    if total <= 0:
        raise ValueError("weights: expected a positive sum, got weights that are 0 in every row")
    mean = sum(part.weights @ part.X for part in parts) / total
    square = sum(part.weights @ np.square(part.X) for part in parts) / total
    variance = sum(part.weights @ np.square(part.X - mean) for part in parts) / total
    constant = variance <= 1e-20 * square
    scale = np.sqrt(np.where(constant, square, variance))
    scale = np.where(scale > 0, scale, 1.0)
    center = np.where(constant, 0.0, mean) if INTERCEPT in terms else np.zeros(len(terms))
    return Spread(total, sum(len(part.weights) for part in parts), center, scale, np.sqrt(square))


@dataclass(frozen=True)
class Reparametrisation:
    """The maps between θ and the coefficients β of the columns; `flat` is the precision of a flat prior on θ."""

    center: Array
    inner: Array
    """γ = inner θ (d, d), the coefficients of the centred columns."""
    outer: Array
    """β = outer θ (d, d)."""
    flat: float

    @classmethod
    def of(
        cls, terms: Sequence[str], parts: Iterable[Rows], precision: Array, found: Spread, argument: str
    ) -> Reparametrisation:
        """Those of the sites' rows and a prior's precisions (d,) of β, 0 where it is flat.

        Raises `ValueError` naming the argument and the terms that depend on each other where no prior tells them apart.
        """
        shift = np.eye(len(terms))
        if INTERCEPT in terms:
            shift[list(terms).index(INTERCEPT)] -= found.center
        blocks = [((part.X - found.center) / found.scale) * np.sqrt(part.weights)[:, None] for part in parts]
        factors = [
            np.linalg.qr(block, mode="r") for block in [*blocks, np.sqrt(precision)[:, None] * shift / found.scale]
        ]
        R = np.asarray(np.linalg.qr(np.vstack(factors), mode="r"))
        _check_rank(terms, R, found, argument)
        inner = solve_triangular(R, np.eye(len(terms))) * np.sqrt(found.total) / found.scale[:, None]
        return cls(found.center, inner, shift @ inner, FLAT * min(1.0, found.total / found.rows))

    def rows(self, X: Array) -> Array:
        """Z (n, d)."""
        return np.asarray((X - self.center) @ self.inner)

    def predictor(self, X: Array, theta: Array) -> Array:
        """Xβ (n,), without the cancellation of a column far from 0 against the intercept."""
        return np.asarray((X - self.center) @ (self.inner @ theta))

    def prior(self, precision: Array, variance: float = 1.0) -> Array:
        """The precision (d, d) of θ where β has these (d,) and a predictor that variance."""
        return np.asarray((self.outer.T * precision) @ self.outer + self.flat / variance * np.eye(len(precision)))

    def covariance(self, of_theta: Array) -> Array:
        """The covariance (d, d) of β."""
        return np.asarray(self.outer @ of_theta @ self.outer.T)


def _check_rank(terms: Sequence[str], R: Array, found: Spread, argument: str) -> None:
    lengths = np.linalg.norm(R, axis=0)
    if not (lengths > 0).all():
        zero = terms[int(np.argmin(lengths))]
        raise ValueError(f"{argument}: expected terms that are not 0 in every row, got {zero!r}")
    _, values, directions = np.linalg.svd(R / lengths)
    # a column far from 0 is known to rounding errors of its size
    rounding = 8 * np.finfo(float).eps * float((found.size / found.scale).max())
    if values[-1] < max(ALIASED, rounding):
        involved = np.flatnonzero(np.abs(directions[-1]) > 1e-3 * np.abs(directions[-1]).max())
        names = ", ".join(repr(terms[int(j)]) for j in involved)
        raise ValueError(f"{argument}: expected terms that do not depend on each other, got {names:.300}")
