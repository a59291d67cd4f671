"""l = sum over chunks of rows: the pooled rows' loss, here of logistic and of Poisson regression."""

from __future__ import annotations

from collections.abc import Iterator

from badmm.likelihoods import LogisticRegression, PoissonRegression, Streamed

from ...points import generator
from ..likelihood import Predictor
from . import logistic_regression, poisson_regression


def cases() -> Iterator[Predictor]:
    """Seven rows in chunks of three, of which the last has one row."""
    rng = generator("streamed")
    X, y, counts = rng.normal(size=(7, 3)), rng.integers(0, 2, 7), rng.poisson(2.0, 7)
    parts = [slice(k, k + 3) for k in range(0, 7, 3)]
    logistic = Streamed(lambda: (LogisticRegression(X[p], y[p]) for p in parts))
    yield Predictor("logistic regression", logistic, X, logistic_regression.loss(y))
    poisson = Streamed(lambda: (PoissonRegression(X[p], counts[p]) for p in parts))
    yield Predictor("Poisson regression", poisson, X, poisson_regression.loss(counts))
