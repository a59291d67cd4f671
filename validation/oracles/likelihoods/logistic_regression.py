"""l = sum_i log(1 + exp(a_i)) - y_i a_i."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath

from badmm.likelihoods import LogisticRegression

from ...calls import Array
from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Narrow and wide predictors."""
    rng = generator("logistic regression")
    for label, scale in (("narrow", 0.5), ("wide", 6.0)):
        X, y = scale * rng.normal(size=(7, 3)), rng.integers(0, 2, 7)
        yield Predictor(label, LogisticRegression(X, y), X, loss(y))


def loss(y: Array) -> Callable[[Any, int], Any]:
    """The loss of a row at its predictor."""
    return lambda a, i: mpmath.log1p(mpmath.exp(a)) - int(y[i]) * a
