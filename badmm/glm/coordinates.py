"""Coordinates of the coefficients in which the rows of all sites have mean square I, and a flat prior is flat.

With an intercept, columns are centred at their pooled means; the factor R of the pooled Gram matrix comes from the
sites' own factors, so that no site sends a row and nothing is squared:

    Z = (X − center) diag(1/scale) R⁻¹,   β = shift diag(1/scale) R⁻¹ θ,   shift = I − e_intercept centerᵀ.

The answer, and how well it is determined, then do not depend on the columns' units or origins.
"""

from __future__ import annotations

import itertools
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


def spread(terms: Sequence[str], parts: Iterable[Rows]) -> Spread:
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
    """The maps between θ and the coefficients β of the columns; `flat` is the precision of a flat prior on θ.

    With a width W > 1 a row has W predictors: θ (d · W,) is a matrix (d, W) row by row, β one column after another.
    """

    center: Array
    inner: Array
    """γ = inner θ (d, d), the coefficients of the centred columns."""
    outer: Array
    """β = outer θ (d, d)."""
    flat: float
    width: int = 1

    @classmethod
    def of(
        cls,
        terms: Sequence[str],
        parts: Iterable[Rows],
        precision: Array,
        found: Spread,
        argument: str,
        width: int = 1,
    ) -> Reparametrisation:
        """Those of the sites' rows and a prior's precisions (d,) of β, 0 where it is flat.

        Raises `ValueError` naming the argument and the terms that depend on each other where no prior tells them apart.
        """
        shift = np.eye(len(terms))
        if INTERCEPT in terms:
            shift[list(terms).index(INTERCEPT)] -= found.center
        blocks = (((part.X - found.center) / found.scale) * np.sqrt(part.weights)[:, None] for part in parts)
        prior = np.sqrt(precision)[:, None] * shift / found.scale
        factors = [np.linalg.qr(block, mode="r") for block in itertools.chain(blocks, [prior])]
        R = np.asarray(np.linalg.qr(np.vstack(factors), mode="r"))
        _check_rank(terms, R, found, argument)
        inner = solve_triangular(R, np.eye(len(terms))) * np.sqrt(found.total) / found.scale[:, None]
        return cls(found.center, inner, shift @ inner, FLAT * min(1.0, found.total / found.rows), width)

    def rows(self, X: Array) -> Array:
        """Z (n, d)."""
        return np.asarray((X - self.center) @ self.inner)

    def predictor(self, Z: Array, theta: Array) -> Array:
        """Zθ (n,), or (n, W)."""
        return np.asarray(Z @ (theta if self.width == 1 else self.matrix(theta)))

    def predictor_covariance(self, Z: Array, of_theta: Array) -> Array:
        """The covariance (n, W, W) of every row's predictors."""
        d, W = len(self.center), self.width
        return np.einsum("nj,jwkv,nk->nwv", Z, of_theta.reshape(d, W, d, W), Z, optimize=True)

    def matrix(self, theta: Array) -> Array:
        """θ (d, W)."""
        return theta.reshape(-1, self.width)

    def of_matrix(self, beta: Array) -> Array:
        """θ (d · W,) of the coefficients (d, W)."""
        return np.asarray(np.linalg.solve(self.inner, beta), dtype=np.float64).ravel()

    def coefficients(self, theta: Array) -> Array:
        """β (d · W,)."""
        return np.asarray(self.outer @ self.matrix(theta)).T.ravel()

    def prior(self, precision: Array, variance: float = 1.0) -> Array:
        """The precision of θ where β has these (d,) for every predictor, and a predictor that variance."""
        alone = (self.outer.T * precision) @ self.outer + self.flat / variance * np.eye(len(precision))
        return np.asarray(np.kron(alone, np.eye(self.width)), dtype=np.float64)

    def covariance(self, of_theta: Array) -> Array:
        """The covariance of β."""
        d, W = len(self.center), self.width
        blocks = of_theta.reshape(d, W, d, W)
        found = np.einsum("ij,jwkv,lk->wivl", self.outer, blocks, self.outer, optimize=True)
        return np.asarray(found.reshape(d * W, d * W))


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
