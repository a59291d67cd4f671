"""The suite of problems: federated logistic, Poisson and softmax regressions on scikit-learn's data, easy to hostile.

Every problem is deterministic and small (d ≤ 90), so that its solution can be computed centrally to the last digits and
every method can run on it. Names are kind/data/split-clients, for example ``logistic/cancer/label-20``. Clients have
iid shares, differ in their labels (Dirichlet(0.3) shares, or sorted until most hold one class), or differ in their
features (cut along the first principal component); a few problems are hostile on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from badmm.data import tables as data

Array = NDArray[np.float64]
Rows = Sequence[NDArray[np.intp]]
_SYNTHETIC = "synthetic counts, real features"
Kind = Literal["logistic", "poisson", "softmax"]


@dataclass(frozen=True)
class SuiteProblem:
    """Rows X[k] (n_k, p) and targets y[k] (n_k,) per client, and a prior N(0, I/prior_precision).

    kind: the loss, log(1 + eᵃ) − y a (logistic, y ∈ {0, 1}) or eᵃ − y a (Poisson, y a count) at a = Xθ, or
    −log softmax(XΘ)_y with θ = Θ (p, num_classes) flattened row-major.
    """

    name: str
    kind: Kind
    X: tuple[Array, ...]
    y: tuple[NDArray[Any], ...]
    prior_precision: float
    num_classes: int = 1
    note: str = ""

    @property
    def num_clients(self) -> int:
        """Number of clients K."""
        return len(self.X)

    @property
    def dim(self) -> int:
        """Length d of θ."""
        return self.X[0].shape[1] * self.num_classes

    def pooled(self) -> tuple[Array, NDArray[Any]]:
        """Return the rows and targets of all clients, concatenated."""
        return np.concatenate(self.X), np.concatenate(self.y)

    @cached_property
    def loss(self) -> bytes:
        """Digest of the pooled loss and the prior: equal for problems that split the same rows differently."""
        X, y = self.pooled()
        rows = np.column_stack([X, y])
        digest = blake2b(f"{self.kind} {self.prior_precision} {self.num_classes}".encode())
        digest.update(rows[np.lexsort(rows.T)].tobytes())
        return digest.digest()

    def clients(self) -> list[Any]:
        """Return one likelihood of `badmm.likelihoods` per client."""
        from badmm import likelihoods

        if self.kind == "softmax":
            return [likelihoods.SoftmaxRegression(X, y, self.num_classes) for X, y in zip(self.X, self.y, strict=True)]
        make = likelihoods.LogisticRegression if self.kind == "logistic" else likelihoods.PoissonRegression
        return [make(X, y) for X, y in zip(self.X, self.y, strict=True)]

    def prior(self, family: str) -> Any:
        """Return the prior as a member of the family."""
        from badmm.families.distributions import Gaussian

        shape: dict[str, Any] = {
            "isotropic_gaussian": 1.0,
            "diagonal_gaussian": np.ones(self.dim),
            "full_gaussian": np.eye(self.dim),
        }
        return Gaussian(np.zeros(self.dim), self.prior_precision * shape[family])

    def expectation(self, family: str) -> Literal["auto", "delta"]:
        """Return the rule for E_q: "delta" under the isotropic family (a MAP estimate), else "auto"."""
        return "delta" if family == "isotropic_gaussian" else "auto"


def _problem(
    name: str, kind: Kind, X: Array, y: NDArray[Any], rows: Rows, precision: float, classes: int = 1, note: str = ""
) -> SuiteProblem:
    parts = tuple(np.ascontiguousarray(X[part]) for part in rows)
    return SuiteProblem(name, kind, parts, tuple(y[part] for part in rows), precision, classes, note)


def split_sorted(y: NDArray[Any], clients: int) -> list[NDArray[np.intp]]:
    """Split rows sorted by target into equal parts, so that most clients hold one class."""
    return list(np.array_split(np.argsort(y, kind="stable"), clients))


def split_sizes(count: int, sizes: Sequence[int], seed: int) -> list[NDArray[np.intp]]:
    """Split rows at random into clients of the given sizes; rows may remain unused."""
    if sum(sizes) > count:
        raise ValueError(f"sizes: expected a sum of at most the number of rows {count}, got {sum(sizes)}")
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum(sizes)
    return [np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


@cache
def _standardized(name: str) -> tuple[Array, NDArray[Any]]:
    loaded = data.load_dataset(name)
    return data.prepare(loaded.X, loaded.names)(loaded.X), loaded.y


@cache
def _digits(components: int, rows: int) -> tuple[Array, NDArray[Any]]:
    loaded = data.load_dataset("digits")
    prepared = data.prepare(loaded.X, loaded.names, components=components)(loaded.X)
    return prepared[:rows], loaded.y[:rows]


def _cancer_problems() -> list[SuiteProblem]:
    X, y = _standardized("breast_cancer")
    found = []
    for split in data.SPLITS:
        for clients in (5, 10, 20, 50):
            rows = data.split(split, X[:, 1:], y, clients, seed=clients)
            found.append(_problem(f"logistic/cancer/{split}-{clients}", "logistic", X, y, rows, 1.0))
    return found


def _hostile_problems() -> list[SuiteProblem]:
    X, y = _standardized("breast_cancer")
    rng = np.random.default_rng(7)
    tiny = [int(size) for size in rng.integers(1, 6, size=30)]
    uneven = (380, 120, 40, 16, 8, 3, 1, 1)
    separable = (X[:, 1:6] @ np.array([3.0, -2.0, 1.0, 2.0, 1.0]) > 0.5).astype(int)
    digit_X, digit_y = _digits(8, 600)

    def cancer(name: str, rows: Rows, note: str) -> SuiteProblem:
        return _problem(f"logistic/cancer/{name}", "logistic", X, y, rows, 1.0, note=note)

    return [
        cancer("one-class-12", split_sorted(y, 12), "one class a client"),
        cancer("tiny-30", split_sizes(len(y), tiny, 3), "1 to 5 points a client"),
        cancer("uneven-8", split_sizes(len(y), uneven, 4), "380 points to 1"),
        _problem(
            "logistic/separable/feature-10",
            "logistic",
            X[:, :6],
            separable,
            data.split("feature", X[:, 1:6], separable, 10),
            0.1,
            note="separable labels, prior precision 0.1",
        ),
        _problem(
            "softmax/digits/one-class-10",
            "softmax",
            digit_X,
            digit_y,
            split_sorted(digit_y, 10),
            1.0,
            10,
            note="about one digit a client",
        ),
    ]


def _synthetic_counts(name: str, dataset: str, scale: float) -> list[SuiteProblem]:
    """Return Poisson regressions on real features; the counts are drawn with coefficients of the given scale."""
    X, _ = _standardized(dataset)
    rng = np.random.default_rng(11)
    y = rng.poisson(np.exp(X @ np.concatenate([[1.0], rng.normal(size=X.shape[1] - 1) * scale])))
    found = []
    for split, clients in (("iid", 5), ("iid", 20), ("label", 10), ("feature", 10)):
        # real-valued targets are split by fifths of their ranks
        rows = data.split(split, X[:, 1:], y.astype(float), clients, seed=clients)
        found.append(_problem(f"poisson/{name}/{split}-{clients}", "poisson", X, y, rows, 1.0, note=_SYNTHETIC))
    return found


def _poisson_problems() -> list[SuiteProblem]:
    found = _synthetic_counts("diabetes", "diabetes", 0.3)

    images = data.load_dataset("digits").X[:900]
    # the target is the number of set pixels in one 4 × 4 block of the original image; the features are the other blocks
    centre, others = images[:, 28].astype(int), np.delete(images, 28, axis=1)
    features = data.prepare(others, tuple("x" * others.shape[1]), components=10)(others)
    for split, clients in (("iid", 10), ("feature", 10)):
        rows = data.split(split, features[:, 1:], centre, clients, seed=clients)
        found.append(_problem(f"poisson/pixel/{split}-{clients}", "poisson", features, centre, rows, 1.0))

    import sklearn.datasets as collection

    body = collection.load_linnerud()
    features = data.prepare(body.target, tuple(body.target_names))(body.target)
    sit_ups = body.data[:, 1].astype(int)
    rows = split_sorted(sit_ups, 5)
    found.append(_problem("poisson/situps/sorted-5", "poisson", features, sit_ups, rows, 1.0, note="counts to 251"))
    return found


@cache
def stress_problems() -> tuple[SuiteProblem, ...]:
    """Return Poisson regressions on 30 nearly collinear features under a prior that allows absurd rates.

    The predictor has prior standard deviations up to 21, so that the expected rate reaches e²⁰⁰, and the pooled
    precision scaled to a unit diagonal has a condition number near 3·10⁴: more than a diagonal family resolves in 40
    rounds.
    """
    return tuple(_synthetic_counts("cancer", "breast_cancer", 0.12))


def _softmax_problems() -> list[SuiteProblem]:
    X, y = _digits(8, 600)
    found = []
    for split, clients in (("iid", 5), ("iid", 20), ("label", 5), ("label", 20), ("feature", 10)):
        rows = data.split(split, X[:, 1:], y, clients, seed=clients)
        found.append(_problem(f"softmax/digits/{split}-{clients}", "softmax", X, y, rows, 1.0, 10))

    import sklearn.datasets as collection

    wine = collection.load_wine()
    X, y = data.prepare(wine.data, tuple(wine.feature_names))(wine.data), wine.target
    rows = data.split("label", X[:, 1:], y, 10, seed=2)
    found.append(_problem("softmax/wine/label-10", "softmax", X, y, rows, 0.1, 3, note="prior precision 0.1"))
    return found


@cache
def problems() -> tuple[SuiteProblem, ...]:
    """Return all problems of the suite."""
    groups: tuple[Callable[[], list[SuiteProblem]], ...] = (
        _cancer_problems,
        _poisson_problems,
        _softmax_problems,
        _hostile_problems,
    )
    return tuple(problem for group in groups for problem in group())


def problem(name: str) -> SuiteProblem:
    """Return the problem of a name, in the suite or among the stress problems; raise ValueError for another name."""
    for candidate in (*problems(), *stress_problems()):
        if candidate.name == name:
            return candidate
    raise ValueError(f"name: expected one of the names of problems() and stress_problems(), got {name!r}")
