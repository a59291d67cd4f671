"""Federated Newton reproduces IRLS on the pooled rows iterate for iterate, and agrees with the other methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

import badmm
from badmm import Gaussian
from badmm.likelihoods import LogisticRegression, PoissonRegression, SoftmaxRegression

RNG = np.random.default_rng(8)
X = np.column_stack([np.ones(240), RNG.normal(size=(240, 3))])
LABELS = (RNG.random(240) < expit(X @ [0.5, 1.0, -1.0, 0.3])).astype(int)
COUNTS = RNG.poisson(np.exp(X @ [0.2, 0.4, -0.3, 0.1]))
CLASSES = RNG.integers(0, 3, 240)
PARTS = np.array_split(np.argsort(LABELS, kind="stable"), 5)
PRECISION = 0.7


def logistic(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = expit(X @ theta)
    return X.T @ (p - LABELS), (X.T * (p * (1 - p))) @ X


def poisson(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rate = np.exp(X @ theta)
    return X.T @ (rate - COUNTS), (X.T * rate) @ X


def multinomial(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = softmax(X @ theta.reshape(4, 3), axis=1)
    gradient = X.T @ (p - np.eye(3)[CLASSES])
    weights = np.einsum("nc,ce->nce", p, np.eye(3)) - np.einsum("nc,ne->nce", p, p)
    return gradient.ravel(), np.einsum("ni,nce,nj->icje", X, weights, X).reshape(12, 12)


PROBLEMS: dict[str, tuple[Any, Any]] = {
    "logistic": (logistic, lambda part: LogisticRegression(X[part], LABELS[part])),
    "poisson": (poisson, lambda part: PoissonRegression(X[part], COUNTS[part])),
    "softmax": (multinomial, lambda part: SoftmaxRegression(X[part], CLASSES[part], 3)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_iterates_are_those_of_irls(name: str) -> None:
    derivatives, make = PROBLEMS[name]
    clients = [make(part) for part in PARTS]
    theta = np.zeros(clients[0].dim)
    iterates: list[np.ndarray] = []
    for _ in range(8):
        gradient, hessian = derivatives(theta)
        precision = hessian + PRECISION * np.eye(len(theta))
        theta = theta - np.linalg.solve(precision, gradient + PRECISION * theta)
        iterates.append(theta)
    ours: list[Any] = []
    result = badmm.solve(
        clients,
        family="full_gaussian",
        prior=Gaussian(np.zeros(len(theta)), PRECISION),
        method="newton",
        expectation="delta",
        rounds=8,
        tol=0,
        callbacks=[lambda state: ours.append(state.posterior)],
    )
    assert len(ours) == len(iterates)
    for q, expected in zip(ours, iterates, strict=True):
        assert q.mean == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert isinstance(result.posterior, Gaussian)
    assert result.posterior.precision == pytest.approx(precision, rel=1e-8)
    assert all(record.evaluations == 0 for record in result.history)


@pytest.mark.parametrize("family", ["full_gaussian", "diagonal_gaussian"])
def test_its_fixed_point_is_that_of_the_default(family: str) -> None:
    clients = [LogisticRegression(X[part], LABELS[part]) for part in PARTS]
    prior = Gaussian(np.zeros(4), PRECISION)
    newton = badmm.solve(clients, family=family, prior=prior, method="newton", damping=0.7, rounds=200)
    default = badmm.solve(clients, family=family, prior=prior)
    assert newton.converged
    assert newton.posterior.mean == pytest.approx(default.posterior.mean, abs=1e-7)
    for mine, theirs in zip(newton.duals, default.duals, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


def test_conjugate_clients_need_one_round() -> None:
    clients = [badmm.likelihoods.LinearRegression(X[part], X[part] @ [1.0, 2, 3, 4], 1.0) for part in PARTS]
    prior = Gaussian(np.zeros(4), PRECISION)
    result = badmm.solve(clients, family="full_gaussian", prior=prior, method="newton", rounds=2)
    assert result.converged
    assert isinstance(result.posterior, Gaussian)
    assert result.posterior.precision == pytest.approx(X.T @ X + PRECISION * np.eye(4), rel=1e-12)


def test_absent_clients_keep_their_dual() -> None:
    clients = [LogisticRegression(X[part], LABELS[part]) for part in PARTS]
    prior = Gaussian(np.zeros(4), PRECISION)
    all_of_them = badmm.solve(clients, family="full_gaussian", prior=prior, method="newton")
    options = {"method": "newton", "participation": 0.6, "rounds": 60, "tol": 0}
    some = badmm.solve(clients, family="full_gaussian", prior=prior, **options)  # type: ignore[arg-type]
    assert some.posterior.mean == pytest.approx(all_of_them.posterior.mean, abs=1e-7)


@pytest.mark.parametrize(("setting", "value"), [("rho", 1.0), ("alpha", 0.5), ("damping", 1.5)])
def test_other_step_sizes_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=setting):
        badmm.solve(
            [LogisticRegression(X, LABELS)],
            family="full_gaussian",
            prior=Gaussian(np.zeros(4), 1.0),
            method="newton",
            **{setting: value},  # type: ignore[arg-type]
        )
