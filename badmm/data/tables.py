"""Data sets that ship with scikit-learn, their preparation, and ways to assign rows to clients.

Nothing here needs the network. Splits return a list of row indices, one array a client; every row goes to exactly one
client and every client gets at least one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badmm.checks import Array

Rows = list[NDArray[np.intp]]

DATASETS = ("diabetes", "breast_cancer", "digits")
SPLITS = ("iid", "label", "feature")
CONSTANT = 16 * np.finfo(np.float64).eps
"""A column is constant where its range is at most this multiple of its largest value."""


@dataclass(frozen=True)
class Dataset:
    """Features X (n, d) with their names, target y (n,) as floats (regression) or integers 0..C−1 (classification)."""

    X: Array
    y: NDArray[Any]
    names: tuple[str, ...]
    num_classes: int | None


def load_dataset(name: str) -> Dataset:
    """A data set of `DATASETS`, unscaled; ValueError for another name."""
    if name not in DATASETS:
        raise ValueError(f"name: expected one of {', '.join(DATASETS)}, got {name!r}")
    import sklearn.datasets as collection

    if name == "diabetes":
        bunch = collection.load_diabetes(scaled=False)
        return Dataset(bunch.data, bunch.target.astype(float), tuple(bunch.feature_names), None)
    bunch = collection.load_breast_cancer() if name == "breast_cancer" else collection.load_digits()
    return Dataset(bunch.data, bunch.target.astype(int), tuple(bunch.feature_names), len(bunch.target_names))


def hold_out(count: int, fraction: float, seed: int | tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row indices (training, test) of a random split; `fraction` of the `count` rows, rounded, are for testing."""
    order = np.random.default_rng(seed).permutation(count)
    cut = round(count * fraction)
    return np.sort(order[cut:]), np.sort(order[:cut])


@dataclass(frozen=True)
class Preparation:
    """x ↦ [1, R(x − center)/scale]: an affine map fitted on training rows, with the names of what comes out."""

    center: Array
    scale: Array
    rotation: Array | None
    names: tuple[str, ...]
    intercept: bool

    def __call__(self, X: Array) -> Array:
        """Prepared features (n, d') of raw rows (n, d)."""
        X = (X - self.center) / self.scale
        if self.rotation is not None:
            X = X @ self.rotation
        return np.column_stack([np.ones(len(X)), X]) if self.intercept else X


def prepare(
    X: Array, names: tuple[str, ...], *, standardize: bool = True, components: int | None = None, intercept: bool = True
) -> Preparation:
    """Fit a preparation on training rows X (n, d).

    `standardize` gives every column mean 0 and variance 1 (constant columns: 0). `components` keeps that many leading
    principal components of the raw columns instead, on a common scale that gives the first variance 1.
    """
    if components is not None and components > min(X.shape):
        raise ValueError(f"components: expected at most {min(X.shape)} (rows and columns), got {components}")
    shift = standardize or components is not None
    center, deviation = _center_and_deviation(X) if shift else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
    scale, rotation = np.ones(X.shape[1]), None
    if components is not None:
        # rotating before scaling keeps pixels that are almost constant from being blown up
        _, values, directions = np.linalg.svd(X - center, full_matrices=False)
        # svd's signs are arbitrary: the largest entry of every direction is made positive
        largest = np.abs(directions).argmax(axis=1)
        directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
        if values[0] <= CONSTANT * np.abs(X).max():
            raise ValueError(f"components: expected columns that vary, got {X.shape[1]} constant ones")
        rotation = directions[:components].T / (values[0] / np.sqrt(len(X)))
        names = tuple(f"component {index + 1}" for index in range(components))
    elif standardize:
        scale = np.where(deviation > 0, deviation, 1.0)
    return Preparation(center, scale, rotation, ("intercept", *names) if intercept else names, intercept)


def _center_and_deviation(X: Array) -> tuple[Array, Array]:
    """Means and standard deviations of columns; a constant column has its value and 0, not what rounding leaves of it.

    A column is constant where its values differ by rounding errors only.
    """
    low, high = X.min(axis=0), X.max(axis=0)
    size = np.maximum(np.abs(low), np.abs(high))
    constant = high - low <= CONSTANT * size
    center = np.where(constant, low, X.mean(axis=0))
    # relative to the largest: squares of tiny or huge numbers leave the range of floats
    spread = np.abs(X - center).max(axis=0)
    relative = (X - center) / np.where(spread > 0, spread, 1.0)
    return center, np.where(constant, 0.0, spread * np.sqrt(np.mean(relative**2, axis=0)))


def split(kind: str, X: Array, y: NDArray[Any], clients: int, seed: int = 0) -> Rows:
    """Assign rows to clients; `kind` is one of `SPLITS`.

    `iid`: equal shares at random. `label`: each class (regression: each fifth of the target's range of ranks) is dealt
    out in shares drawn from Dirichlet(0.3), so that label shares and sizes differ (Hsu, Qi, Brown, 2019,
    arXiv:1909.06335). `feature`: rows sorted along the first principal direction of the standardized features, cut into
    equal runs. Raises ValueError for an unknown kind, or unless 1 ≤ clients ≤ rows.
    """
    if kind not in SPLITS:
        raise ValueError(f"kind: expected one of {', '.join(SPLITS)}, got {kind!r}")
    if not 1 <= clients <= len(y):
        raise ValueError(f"clients: expected between 1 and the number of rows {len(y)}, got {clients}")
    rng = np.random.default_rng(seed)
    if kind == "iid":
        parts = np.array_split(rng.permutation(len(y)), clients)
    elif kind == "feature":
        standard = prepare(X, (), intercept=False)(X)
        direction = np.linalg.svd(standard, full_matrices=False)[2][0]
        direction *= np.sign(direction[np.abs(direction).argmax()])
        parts = np.array_split(np.argsort(standard @ direction, kind="stable"), clients)
    else:
        parts = _by_label(y, clients, rng)
    return [np.sort(part) for part in parts]


def split_by_column(values: NDArray[Any]) -> Rows:
    """One client for each distinct value of a column, in sorted order of the values."""
    return [np.flatnonzero(values == value) for value in np.unique(values)]


def _by_label(y: NDArray[Any], clients: int, rng: np.random.Generator) -> Rows:
    if np.issubdtype(y.dtype, np.integer):
        labels = y
    else:
        labels = np.argsort(np.argsort(y, kind="stable"), kind="stable") * 5 // len(y)
    owner = np.empty(len(y), dtype=int)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        owner[rows] = rng.choice(clients, size=len(rows), p=rng.dirichlet(np.full(clients, 0.3)))
    for client in range(clients):
        # an empty client takes a row from the largest
        if not np.any(owner == client):
            owner[rng.choice(np.flatnonzero(owner == np.bincount(owner).argmax()))] = client
    return [np.flatnonzero(owner == client) for client in range(clients)]
