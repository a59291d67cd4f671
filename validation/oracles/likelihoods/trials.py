"""k_i successes in n_i trials with probability theta."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath

from badmm.likelihoods import Trials

from ...points import generator
from ..likelihood import Rate


def cases() -> Iterator[Rate]:
    """Two probabilities with trials of their own."""
    rng = generator("trials")
    trials = rng.integers(1, 12, (4, 2))
    successes = rng.integers(0, trials + 1)

    def loss(column: int) -> Callable[[Any], Any]:
        pairs = list(zip(successes[:, column].tolist(), trials[:, column].tolist(), strict=True))
        return lambda t: (
            -mpmath.fsum(
                mpmath.log(mpmath.binomial(n, k)) + k * mpmath.log(t) + (n - k) * mpmath.log1p(-t) for k, n in pairs
            )
        )

    yield Rate("two probabilities", Trials(successes, trials), [loss(0), loss(1)], "beta")
