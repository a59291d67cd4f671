"""What a generalized linear model needs of a response's distribution: loss, mean, deviance, log-likelihood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln, logsumexp, xlogy

from badmm.checks import Array
from badmm.likelihoods import LinearRegression, LogisticRegression, PoissonRegression
from badmm.likelihoods.base import GaussianLikelihood


class Responses(Protocol):
    """One site's responses with their weights and offsets, each (n,)."""

    @property
    def y(self) -> Array:
        """y."""

    @property
    def weights(self) -> Array:
        """w."""

    @property
    def offset(self) -> Array:
        """What the predictor has beside xᵀθ."""


class ResponseFamily(ABC):
    """y given a predictor a = xᵀθ + offset, by its canonical link; weights w count rows."""

    name: ClassVar[str]
    link: ClassVar[str]
    ratio: ClassVar[str | None] = None
    """What exp(θ) is called."""
    known_dispersion: ClassVar[bool] = True

    @abstractmethod
    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """Which responses the family may have, and what they are called."""

    @abstractmethod
    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """The loss of one site's rows."""

    @abstractmethod
    def start(self, parts: Sequence[Responses]) -> float:
        """An intercept near that of the intercept alone, from sums over the sites' rows."""

    @abstractmethod
    def mean(self, a: Array) -> Array:
        """E[y] at predictors a."""

    @abstractmethod
    def deviances(self, y: Array, mu: Array) -> Array:
        """Each row's part of the deviance."""

    @abstractmethod
    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """Each row's log density."""


class GaussianResponse(ResponseFamily):
    """y ~ N(a, φ), φ unknown."""

    name, link, known_dispersion = "gaussian", "identity", False

    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """Any finite number."""
        return np.isfinite(y), "finite values"

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Least squares over 2φ."""
        return LinearRegression(X, y, dispersion, weights=weights, offset=offset)

    def start(self, parts: Sequence[Responses]) -> float:
        """The mean of y − offset."""
        return float(sum(s.weights @ (s.y - s.offset) for s in parts) / sum(s.weights.sum() for s in parts))

    def mean(self, a: Array) -> Array:
        """a."""
        return a

    def deviances(self, y: Array, mu: Array) -> Array:
        """(y − μ)²."""
        return np.square(y - mu)

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """−(y − μ)²/(2φ) − ½ log(2πφ)."""
        return np.asarray(-0.5 * (np.square(y - mu) / dispersion + np.log(2 * np.pi * dispersion)))


class BinomialResponse(ResponseFamily):
    """y ∈ {0, 1}, logit P(y = 1) = a."""

    name, link, ratio = "binomial", "logit", "odds ratio"

    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """0 or 1."""
        return (y == 0) | (y == 1), "0 or 1"

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Logistic regression."""
        return LogisticRegression(X, y, weights=weights, offset=offset)

    def start(self, parts: Sequence[Responses]) -> float:
        """The logit of the share of events, less the mean offset."""
        total = sum(s.weights.sum() for s in parts)
        events = sum(s.weights @ s.y for s in parts)
        return float(np.log((events + 0.5) / (total - events + 0.5)) - sum(s.weights @ s.offset for s in parts) / total)

    def mean(self, a: Array) -> Array:
        """1/(1 + e⁻ᵃ)."""
        return np.asarray(expit(a))

    def deviances(self, y: Array, mu: Array) -> Array:
        """−2 log P(y)."""
        return -2.0 * self.log_likelihoods(y, mu, 1.0)

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """log P(y)."""
        return np.asarray(xlogy(y, mu) + xlogy(1.0 - y, 1.0 - mu))


class PoissonResponse(ResponseFamily):
    """y ~ Poisson(eᵃ)."""

    name, link, ratio = "poisson", "log", "rate ratio"

    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """A whole number of at least 0."""
        return (y >= 0) & (y == np.floor(y)), "non-negative whole numbers"

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Poisson regression."""
        return PoissonRegression(X, y, weights=weights, offset=offset)

    def start(self, parts: Sequence[Responses]) -> float:
        """log Σ w y − log Σ w e^offset, half an event at least."""
        events = sum(s.weights @ s.y for s in parts)
        return float(
            np.log(max(events, 0.5)) - logsumexp([logsumexp(s.offset, b=s.weights) for s in parts if len(s.y)])
        )

    def mean(self, a: Array) -> Array:
        """eᵃ."""
        return np.exp(a)

    def deviances(self, y: Array, mu: Array) -> Array:
        """2 (y log(y/μ) − y + μ)."""
        return np.asarray(2.0 * (xlogy(y, y) - xlogy(y, mu) - y + mu))

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """y log μ − μ − log y!."""
        return np.asarray(xlogy(y, mu) - mu - gammaln(y + 1.0))


FAMILIES: dict[str, ResponseFamily] = {f.name: f for f in (GaussianResponse(), BinomialResponse(), PoissonResponse())}


def response_family(name: object) -> ResponseFamily:
    """The family of that name; raises `ValueError`."""
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {name!r:.80}")
    return FAMILIES[name]
