"""Weights of rows and offsets of predictors: what they mean, for every regression, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import badmm
from badmm import Gaussian
from badmm.likelihoods import LinearRegression, LogisticRegression, PoissonRegression, SoftmaxRegression

RNG = np.random.default_rng(11)
X = RNG.normal(size=(9, 3))
CASES: dict[str, tuple[Callable[..., Any], np.ndarray, int]] = {
    "linear": (lambda X, y, **rows: LinearRegression(X, y, 0.4, **rows), RNG.normal(size=9), 1),
    "logistic": (LogisticRegression, RNG.integers(0, 2, 9), 1),
    "poisson": (PoissonRegression, RNG.poisson(2.0, 9), 1),
    "softmax": (lambda X, y, **rows: SoftmaxRegression(X, y, 3, **rows), RNG.integers(0, 3, 9), 3),
}
PRECISIONS = [2.0, np.linspace(1.0, 3.0, 3), X.T @ X + np.eye(3)]
MODES = ("auto", "delta", "monte_carlo")


def everything(client: Any, mean: np.ndarray, precision: Any, mode: str) -> np.ndarray:
    q = Gaussian(mean, precision)
    client = client.configured(mode, 2)
    parts = (*client.expectations(q), client.curvature(q)[2], client.loss(mean))
    return np.concatenate([np.ravel(part) for part in parts])


def point(classes: int, rows: int = 3) -> np.ndarray:
    return np.linspace(-0.7, 0.9, rows * classes)


def widened(precision: Any, classes: int) -> Any:
    """The precision of every class's coefficients."""
    if np.ndim(precision) == 0:
        return precision
    return np.kron(precision, np.eye(classes)) if np.ndim(precision) == 2 else np.repeat(precision, classes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", PRECISIONS, ids=["iso", "diag", "full"])
@pytest.mark.parametrize("name", CASES)
def test_a_whole_weight_is_a_row_given_that_often(name: str, precision: Any, mode: str) -> None:
    make, y, classes = CASES[name]
    times = np.array([1, 2, 0, 3, 1, 0, 1, 4, 1])
    weighted = make(X, y, weights=times)
    repeated = make(np.repeat(X, times, axis=0), np.repeat(y, times))
    at = point(classes), widened(precision, classes), mode
    assert everything(weighted, *at) == pytest.approx(everything(repeated, *at), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("mode", ["auto", "delta"])
@pytest.mark.parametrize("name", CASES)
def test_an_offset_is_a_feature_whose_coefficient_is_known(name: str, mode: str) -> None:
    make, y, classes = CASES[name]
    rows = len(X)
    offset = np.linspace(-1.0, 1.5, rows * classes).reshape(rows, classes)
    shifted = make(X, y, offset=offset if classes > 1 else offset[:, 0])
    # a feature a class, each seen by that class alone, cannot be written as one column: the same offset for all classes
    # leaves a softmax where it is, so that its offset is compared class by class
    for c in range(classes):
        one = np.zeros((rows, classes))
        one[:, c] = offset[:, c]
        client = shifted if classes == 1 else make(X, y, offset=one)
        known = np.zeros((1, classes))
        known[0, c] = 1.0
        extended = make(np.column_stack([X, offset[:, c]]), y)
        mean = point(classes)
        precision = np.full(3 * classes, 2.0)
        q = Gaussian(mean, precision)
        whole = Gaussian(np.concatenate([mean, known.ravel()]), np.concatenate([precision, np.full(classes, 1e300)]))
        got, wanted = client.configured(mode).expectations(q), extended.configured(mode).expectations(whole)
        for ours, other in zip(got, wanted, strict=True):
            kept = other if np.ndim(other) == 0 else other[: 3 * classes]
            assert ours == pytest.approx(kept, rel=1e-12, abs=1e-12)


def test_a_row_of_weight_zero_adds_nothing_where_its_loss_overflows() -> None:
    wild = np.vstack([X, 1e4 * np.ones(3)])
    mean, q = np.ones(3), Gaussian(np.ones(3), 2.0)
    kept = PoissonRegression(X, np.ones(9)).expectations(q)
    silent = PoissonRegression(wild, np.ones(10), weights=[1.0] * 9 + [0.0])
    for ours, other in zip(silent.expectations(q), kept, strict=True):
        assert ours == pytest.approx(other, rel=1e-13)
    assert np.isfinite(silent.loss(mean))


def test_exposures_of_a_poisson_regression_are_offsets() -> None:
    exposure = RNG.uniform(0.5, 4.0, 40)
    counts = RNG.poisson(3.0 * exposure)
    client = PoissonRegression(np.ones((40, 1)), counts, offset=np.log(exposure))
    prior = Gaussian(np.zeros(1), np.full((1, 1), 1e-8))
    found = badmm.solve([client], family="full_gaussian", prior=prior, expectation="delta")
    assert np.exp(found.posterior.mean[0]) == pytest.approx(counts.sum() / exposure.sum(), rel=1e-6)


def test_weighted_linear_regression_is_solved_in_closed_form() -> None:
    y, weights, offset = RNG.normal(size=9), RNG.uniform(0.1, 3.0, 9), RNG.normal(size=9)
    parts = [
        LinearRegression(X[k], y[k], 0.7, weights=weights[k], offset=offset[k]) for k in np.arange(9).reshape(3, 3)
    ]
    prior = Gaussian(np.zeros(3), np.eye(3))
    found = badmm.solve(parts, family="full_gaussian", prior=prior).posterior
    assert isinstance(found, Gaussian)
    precision = np.eye(3) + (X.T * weights) @ X / 0.7
    assert found.precision == pytest.approx(precision, rel=1e-12)
    assert found.mean == pytest.approx(np.linalg.solve(precision, X.T @ (weights * (y - offset)) / 0.7), rel=1e-10)


BAD = {
    "negative weight": ({"weights": [1.0] * 8 + [-0.5]}, "weights: expected non-negative, got -0.5 at index 8"),
    "weight that is no number": ({"weights": [1.0] * 8 + [np.nan]}, "weights: expected finite, got nan at index 8"),
    "too few weights": ({"weights": np.ones(8)}, r"weights: expected shape \(9,\) to match X, got \(8,\)"),
    "weights of text": ({"weights": ["1"] * 9}, "weights: expected real numbers, got '1' at index 0"),
    "one weight": ({"weights": 2.0}, r"weights: expected 1 axes, got shape \(\)"),
    "infinite offset": ({"offset": "inf"}, "offset: expected finite, got -inf at index"),
    "offset of another length": ({"offset": "short"}, r"offset: expected shape \(9"),
    "offset of other axes": ({"offset": "axes"}, r"offset: expected . axes, got shape \(9, 1, 1\)"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    make, y, classes = CASES[name]
    shape = (9, classes) if classes > 1 else (9,)
    offsets = {
        "inf": np.where(np.arange(9 * classes).reshape(shape) == 4, -np.inf, 0.0),
        "short": np.ones((5, *shape[1:])),
        "axes": np.ones((9, 1, 1)),
    }
    given = {key: offsets[value] if isinstance(value, str) else value for key, value in arguments.items()}
    with pytest.raises(ValueError, match=message):
        make(X, y, **given)
