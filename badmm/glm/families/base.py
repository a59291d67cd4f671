"""What a generalized linear model needs of a response's distribution: loss, mean, deviance, log-likelihood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from badmm.checks import Array
from badmm.likelihoods.base import GaussianLikelihood

ROUNDING = 8 * np.finfo(float).eps
"""Residuals relative to the responses that rounding leaves of an exact fit."""


class Responses(Protocol):
    """Some rows' responses with their weights and offsets, each (n,). What takes several may pass over them often."""

    @property
    def y(self) -> Array:
        """y."""

    @property
    def weights(self) -> Array:
        """w."""

    @property
    def offset(self) -> Array:
        """What the predictor has beside xᵀθ."""


def total(parts: Iterable[Responses]) -> float:
    """Σ w over the sites."""
    return float(sum(part.weights.sum() for part in parts))


def average(parts: Iterable[Responses], value: Callable[[Responses], Array]) -> float:
    """Σ w v / Σ w over the sites' rows."""
    return float(sum(part.weights @ value(part) for part in parts) / total(parts))


class ResponseFamily(ABC):
    """y given a predictor a = xᵀθ + offset; weights w count rows.

    `dispersion` is the one number beside the mean that a density may have: φ, or α of the negative binomial. Without
    one it is 1.
    """

    name: ClassVar[str]
    link: ClassVar[str]
    ratio: ClassVar[str | None] = None
    """What exp(θ) is called."""
    dispersion: ClassVar[str | None] = None
    """What the dispersion is, for families that have one."""
    by_likelihood: ClassVar[bool] = False
    """Whether the dispersion is a parameter of the likelihood, counted by AIC, or one of a quasi-likelihood."""
    conjugate: ClassVar[Any] = None
    """The loss that is conjugate to coefficients and noise together (`badmm.GaussianGamma`), where there is one."""
    counts_events: ClassVar[bool] = False
    """Whether y is a number of events."""
    takes_offset: ClassVar[bool] = True
    levels_taken: ClassVar[tuple[int, int]] = (0, 0)
    """The fewest and the most levels that a response may have instead of numbers."""

    @property
    def width(self) -> int:
        """Predictors per row."""
        return 1

    def of_levels(self, levels: tuple[Any, ...]) -> Self:
        """The family for a response with these levels, the first of which is the reference."""
        return self

    def coefficients(self, terms: Sequence[str]) -> tuple[str, ...]:
        """The coefficients' names, predictor by predictor."""
        return tuple(terms)

    def modelled(self, response: str, levels: tuple[Any, ...]) -> str:
        """What is modelled of a response with levels."""
        return ""

    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """Which responses the family may have, and what they are called."""
        return np.isfinite(y), "finite values"

    @abstractmethod
    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """The loss of one site's rows."""

    @abstractmethod
    def start(self, parts: Iterable[Responses]) -> Any:
        """Intercepts (width,) near those of the intercept alone, from sums over the sites' rows."""

    @abstractmethod
    def mean(self, a: Array) -> Array:
        """E[y] at predictors a."""

    @abstractmethod
    def deviances(self, y: Array, mu: Array, dispersion: float) -> Array:
        """Each row's part of the deviance."""

    @abstractmethod
    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """Each row's log density."""

    def unit(self, parts: Iterable[Responses]) -> float:
        """The variance of a predictor of unit scale."""
        return 1.0

    def first_dispersion(self, parts: Iterable[Responses]) -> float:
        """Where the search for the dispersion starts."""
        return 1.0

    def least_dispersion(self, parts: Iterable[Responses]) -> float:
        """What rounding leaves of an exact fit."""
        return ROUNDING**2

    def next_dispersion(
        self, parts: Iterable[Responses], means: Iterable[Array], dispersion: float, freedom: float
    ) -> float:
        """The dispersion that goes with these means: Pearson's Σ w (y − μ)²/V(μ) over the residual freedom."""
        squares = zip(parts, means, strict=True)
        return float(sum(s.weights @ (np.square(s.y - mu) / self.variance(mu)) for s, mu in squares) / freedom)

    def variance(self, mu: Array) -> Array:
        """V(μ) = Var[y]/φ of a family with a dispersion φ."""
        return np.ones_like(mu)

    def density_dispersion(self, dispersion: float, deviance: float, rows: float) -> float:
        """The dispersion at which an estimated density is reported."""
        return dispersion

    def expected_curvature(self, mu: Array, dispersion: float) -> Array | None:
        """E_y[f″(a; y)] (n,) under the model; None where f″ does not depend on y, as under canonical links."""
        return None

    def never_falls(self, y: Array, move: Array, slack: float) -> bool:
        """Whether no row's likelihood falls along a direction that moves the predictors (n,) or (n, width) so."""
        return False

    def bounds(self, a: Array, covariance: Array, reach: float) -> tuple[Array, Array, Array]:
        """E[y] at predictors a (n, width) of covariance (n, width, width), and its bounds `reach` deviations away."""
        center, move = a[:, 0], reach * np.sqrt(covariance[:, 0, 0])
        return self.mean(center), self.mean(center - move), self.mean(center + move)
