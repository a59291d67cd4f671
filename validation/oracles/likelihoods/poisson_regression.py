"""l = sum_i exp(a_i) - y_i a_i + log y_i!."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath

from badmm.likelihoods import PoissonRegression

from ...calls import Array
from ...points import generator
from ..likelihood import Predictor


def cases() -> Iterator[Predictor]:
    """Small and larger counts."""
    rng = generator("poisson regression")
    X, y = 0.7 * rng.normal(size=(6, 3)), rng.integers(0, 9, 6)
    yield Predictor("counts", PoissonRegression(X, y), X, loss(y))


def loss(y: Array) -> Callable[[Any, int], Any]:
    """The loss of a row at its predictor."""
    return lambda a, i: mpmath.exp(a) - int(y[i]) * a + mpmath.log(mpmath.fac(int(y[i])))
