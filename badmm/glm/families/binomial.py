"""Binary responses with the logit link."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

from badmm.checks import Array
from badmm.glm.families.base import ResponseFamily, Responses, average, total
from badmm.likelihoods import LogisticRegression
from badmm.likelihoods.base import GaussianLikelihood


class BinomialResponse(ResponseFamily):
    """y ∈ {0, 1}, logit P(y = 1) = a."""

    name, link, ratio = "binomial", "logit", "odds ratio"
    counts_events = True
    levels_taken = (2, 2)

    def modelled(self, response: str, levels: tuple[Any, ...]) -> str:
        """The level that counts as 1."""
        return f", P({response} = {levels[1]!r})" if levels else ""

    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """0 or 1."""
        return (y == 0) | (y == 1), "0 or 1"

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Logistic regression."""
        return LogisticRegression(X, y, weights=weights, offset=offset)

    def start(self, parts: Iterable[Responses]) -> float:
        """The logit of the share of events, less the mean offset."""
        rows, events = total(parts), sum(s.weights @ s.y for s in parts)
        return float(np.log((events + 0.5) / (rows - events + 0.5))) - average(parts, lambda s: s.offset)

    def mean(self, a: Array) -> Array:
        """1/(1 + e⁻ᵃ)."""
        return np.asarray(expit(a))

    def deviances(self, y: Array, mu: Array, dispersion: float) -> Array:
        """−2 log P(y)."""
        return -2.0 * self.log_likelihoods(y, mu, dispersion)

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """log P(y)."""
        return np.asarray(xlogy(y, mu) + xlogy(1.0 - y, 1.0 - mu))

    def never_falls(self, y: Array, move: Array, slack: float) -> bool:
        """a rises where y = 1 and falls where y = 0."""
        return bool((np.where(y > 0.5, move, -move) >= -slack).all())
