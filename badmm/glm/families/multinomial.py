"""Responses with several levels in no order: softmax regression against the first one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax, logit, softmax, xlogy

from badmm.checks import Array
from badmm.glm.families.base import ResponseFamily, Responses
from badmm.likelihoods import SoftmaxRegression
from badmm.likelihoods.base import GaussianLikelihood

MOST_LEVELS = 100
"""Levels of a response: each but the first has a coefficient for every term."""


@dataclass(frozen=True)
class MultinomialResponse(ResponseFamily):
    """log P(y = c)/P(y = 0) = a_c for every level c but the first, whose predictor is 0.

    Expectations are those of the delta method: the posterior is the mode with the curvature there.
    """

    name, link, ratio = "multinomial", "logit", "odds ratio"
    takes_offset = False
    levels_taken = (3, MOST_LEVELS)
    levels: tuple[Any, ...] = ()

    @property
    def width(self) -> int:
        """A predictor for every level but the first."""
        return len(self.levels) - 1

    def of_levels(self, levels: tuple[Any, ...]) -> Self:
        """The family of these levels."""
        return replace(self, levels=levels)

    def coefficients(self, terms: Sequence[str]) -> tuple[str, ...]:
        """'level: term', level by level."""
        return tuple(f"{level}: {term}" for level in self.levels[1:] for term in terms)

    def modelled(self, response: str, levels: tuple[Any, ...]) -> str:
        """The reference."""
        return f", {response} against {levels[0]!r}"

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Softmax regression with a reference."""
        return SoftmaxRegression(X, y, len(self.levels), weights=weights, reference=0)

    def start(self, parts: Iterable[Responses]) -> Array:
        """The logarithms of the levels' shares over the first one's, each with half a row more."""
        rows = np.sum([np.bincount(s.y.astype(int), s.weights, len(self.levels)) for s in parts], axis=0) + 0.5
        return np.log(rows[1:] / rows[0])

    def mean(self, a: Array) -> Array:
        """P(y = c) (n, levels) at predictors a (n, levels − 1)."""
        return np.asarray(softmax(_with_reference(a), axis=1))

    def deviances(self, y: Array, mu: Array, dispersion: float) -> Array:
        """−2 log P(y)."""
        return -2.0 * self.log_likelihoods(y, mu, dispersion)

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """log P(y)."""
        return np.asarray(xlogy(1.0, mu[np.arange(len(y)), y.astype(int)]))

    def never_falls(self, y: Array, move: Array, slack: float) -> bool:
        """The predictor of the row's own level rises no less than any other."""
        moves = _with_reference(move)
        own = moves[np.arange(len(y)), y.astype(int)]
        return bool((own >= moves.max(axis=1, initial=-np.inf) - slack).all())

    def bounds(self, a: Array, covariance: Array, reach: float) -> tuple[Array, Array, Array]:
        """P(y = c) (n, levels), with bounds of its logit by its gradient δ_cj − [j ≠ c] p_j/(1 − p_c) in a_j."""
        log_p = log_softmax(_with_reference(a), axis=1)
        p = np.exp(log_p)
        own = np.eye(p.shape[1], dtype=bool)
        slope = np.where(own, 1.0, -p[:, None, :] / -np.expm1(log_p)[:, :, None])[:, :, 1:]
        move = reach * np.sqrt(np.einsum("ncj,njk,nck->nc", slope, covariance, slope))
        center = logit(p)
        return p, 1.0 / (1.0 + np.exp(move - center)), 1.0 / (1.0 + np.exp(-move - center))


def _with_reference(a: Array) -> Array:
    return np.hstack([np.zeros((len(a), 1)), a])
