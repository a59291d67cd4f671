"""Losses that see θ only through a = xᵀθ + offset: one class, whatever the loss; what differs is derived.

`derive/likelihoods/<name>.py` states f(a; y, …); its kernels are `badmm_kernels.load_likelihood(name)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg.blas import dsyrk

import badmm_kernels
from badmm import checks
from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.families.family import FamilyGeometry
from badmm.likelihoods.base import Expected, GaussianLikelihood

Moments = tuple[Array, Array, Array]
"""f, f′ and f″ of every row, or their expectations, times its weight."""


def _positive(value: ArrayLike, name: str) -> Array:
    array = checks.real_array(value, name, 1)
    checks.require(array > 0, array, name, "positive")
    return array


SUPPORTS: dict[str, Callable[[ArrayLike, str], Array]] = {
    "real": lambda value, name: checks.real_array(value, name, 1),
    "positive": _positive,
    "count": lambda value, name: checks.counts(value, name),
    "binary": lambda value, name: checks.labels(value, None, 2, name).astype(np.float64),
}
"""A check for each support of a response."""


class GeneralizedLinear(GaussianLikelihood):
    """ℓ(θ) = Σ_i w_i f(a_i; y_i), a_i = x_iᵀθ + o_i; X (n, d), weights w (n,) ≥ 0 (default 1), offset o (n,) (0).

    Arguments: X, the responses (n,), the parameters (positive numbers), then `weights` and `offset`; a subclass names
    its loss, and the signature follows. E[∇ℓ] = Xᵀ w E[f′], E[∇²ℓ] = Xᵀ diag(w E[f″]) X with
    a_i ~ N(x_iᵀm + o_i, x_iᵀS⁻¹x_i). `auto` and `quadrature` integrate over a_i to 1e-13, `delta` takes
    a_i = x_iᵀm + o_i (E[ℓ] is then ℓ(m)), `monte_carlo` averages over fixed draws of θ. A weight of 2 is a row given
    twice, a weight of 0 a row left out. Raises `ValueError` for X that is not two-dimensional and finite, a response
    outside its support, weights that are negative or not finite, offsets that are not finite, other lengths.
    """

    loss_name: ClassVar[str | ModuleType] = ""
    X: Array
    weights: Array | None
    offset: Array | None
    columns: tuple[str, ...] | None
    """Names of the features where X is a data frame; `badmm.solve` refuses clients whose names differ."""
    responses: dict[str, Array]
    parameters: dict[str, float]

    def __init_subclass__(cls, loss: str | ModuleType = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if loss:
            cls.loss_name = loss
            cls.__signature__ = _signature(*_rows_of(loss))  # type: ignore[attr-defined]

    def __init__(
        self,
        X: ArrayLike,
        *values: Any,
        weights: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        **named: Any,
    ) -> None:
        responses, parameters = _rows_of(self.loss_name)
        given = _signature(responses, parameters).bind(X, *values, weights=weights, offset=offset, **named).arguments
        self.X, self.columns = checks.design(X), checks.column_names(X)
        n, self.dim = self.X.shape
        self.responses = {name: _response(given[name], name, support, n) for name, support in responses}
        self.parameters = {name: checks.positive_number(given[name], name) for name, _ in parameters}
        self.weights, self.offset = checks.row_weights(weights, n), checks.row_offset(offset, (n,))
        constants = self.kernels.constant(*self.responses.values(), weight=self.weights, **self.parameters)
        self._constant = float(np.sum(constants))

    @property
    def kernels(self) -> Any:
        """The loss's kernels."""
        return _kernels_of(self.loss_name)

    @property
    def y(self) -> Array:
        """The first response (n,)."""
        return next(iter(self.responses.values()))

    def _moments(self, posterior: Gaussian) -> Moments:
        ns = self.kernels
        rest: dict[str, Any] = {"weight": self.weights, "offset": self.offset, **self.parameters}
        data = tuple(self.responses.values())
        if self._mode == "monte_carlo":
            total = np.zeros((3, len(self.X)))
            for theta in posterior.transform(self.noise):
                total += ns.loss(self.X @ theta, *data, **rest)
            value, slope, curvature = total / len(self.noise)
            return value, slope, curvature
        center = self.X @ posterior.mean
        if self._mode == "delta":
            found: Moments = ns.loss(center, *data, **rest)
        else:
            found = ns.expected_loss(center, posterior.predictor_variance(self.X), *data, **rest)
        return found

    def expectations(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], E[∇ℓ] (d,), E[∇²ℓ]): a vector (d,) under a vector precision, else a matrix (d, d)."""
        # an overflowing loss is the caller's to refuse
        with np.errstate(over="ignore", invalid="ignore"):
            value, slope, weight = self._moments(posterior)
            hessian = self._gram(weight) if posterior.whole_hessian else (self.X * self.X).T @ weight
            return float(np.sum(value)) + self._constant, self.X.T @ slope, hessian

    def curvature(self, posterior: Gaussian) -> Expected:
        """As `expectations`, with the whole Hessian (d, d) under every precision."""
        with np.errstate(over="ignore", invalid="ignore"):
            value, slope, weight = self._moments(posterior)
            return float(np.sum(value)) + self._constant, self.X.T @ slope, self._gram(weight)

    def growth(self, family: FamilyGeometry) -> Array | None:
        """Xᵀ diag(w g) X where f″ tends to g > 0 on both sides, else None."""
        least = min(self.kernels.growth(**self.parameters))
        if not 0 < least < np.inf:
            return None
        return self._gram(np.full(len(self.X), least) if self.weights is None else least * self.weights)

    def _gram(self, weight: Array) -> Array:
        """Xᵀ diag(weight) X; of a loss that is not convex the rows of either sign apart."""
        negative = weight < 0
        if negative.any():
            return _half_gram(self.X[~negative], weight[~negative]) - _half_gram(self.X[negative], -weight[negative])
        return _half_gram(self.X, weight)


def _half_gram(X: Array, weight: Array) -> Array:
    """(√w X)ᵀ(√w X): half the operations of a product, and symmetric to the last bit."""
    if len(X) == 0:
        return np.zeros((X.shape[1], X.shape[1]))
    lower = dsyrk(1.0, (X * np.sqrt(weight)[:, None]).T, lower=1)
    return np.asarray(lower + np.tril(lower, -1).T)


def _kernels_of(loss: str | ModuleType) -> ModuleType:
    return loss if isinstance(loss, ModuleType) else badmm_kernels.load_likelihood(loss)


def _rows_of(loss: str | ModuleType) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """A loss's responses with their supports and its parameters with their meanings."""
    if isinstance(loss, ModuleType):
        return loss.RESPONSES, loss.PARAMETERS
    return badmm_kernels.LIKELIHOODS[loss]


def _signature(responses: tuple[tuple[str, str], ...], parameters: tuple[tuple[str, str], ...]) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["X", *(name for name, _ in responses), *(name for name, _ in parameters)]
    required = [inspect.Parameter(name, kind) for name in names]
    return inspect.Signature([*required, *(inspect.Parameter(n, kind, default=None) for n in ("weights", "offset"))])


def _response(value: ArrayLike, name: str, support: str, n: int) -> Array:
    array = SUPPORTS[support](value, name)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},) to match X, got {array.shape}")
    return array


def regression(kernels: ModuleType, name: str = "Regression") -> type[GeneralizedLinear]:
    """The class of a likelihood from the namespace of its kernels, such as one of a user's own file."""
    return type(name, (GeneralizedLinear,), {"__doc__": kernels.__doc__}, loss=kernels)


class LogisticRegression(GeneralizedLinear, loss="logistic"):
    """Labels y ∈ {0, 1} with log-odds a: f = log(1 + eᵃ) − y a. See `GeneralizedLinear`."""


class ProbitRegression(GeneralizedLinear, loss="probit"):
    """Labels y ∈ {0, 1} with P(y = 1) = Φ(a). See `GeneralizedLinear`."""


class CloglogRegression(GeneralizedLinear, loss="cloglog"):
    """Labels y ∈ {0, 1} with P(y = 0) = exp(−eᵃ): the complementary log-log link. See `GeneralizedLinear`."""


class PoissonRegression(GeneralizedLinear, loss="poisson"):
    """Counts y of mean eᵃ; the offset of an exposure is its logarithm. See `GeneralizedLinear`."""


class NegativeBinomialRegression(GeneralizedLinear, loss="negative_binomial"):
    """Counts y of mean eᵃ and variance eᵃ + e²ᵃ/r, r = `dispersion`. See `GeneralizedLinear`."""


class GammaRegression(GeneralizedLinear, loss="gamma"):
    """y > 0 of mean eᵃ and variance e²ᵃ/k, k = `shape`. See `GeneralizedLinear`."""


class ExponentialSurvival(GeneralizedLinear, loss="exponential_survival"):
    """Times t > 0 of hazard eᵃ; `event` is 1 for a failure and 0 for a censored time. See `GeneralizedLinear`."""


class WeibullSurvival(GeneralizedLinear, loss="weibull_survival"):
    """Times t > 0 of hazard k tᵏ⁻¹ eᵃ, k = `shape`; `event` as in `ExponentialSurvival`. See `GeneralizedLinear`."""


class StudentTRegression(GeneralizedLinear, loss="student_t"):
    """y = a + scale · t with ν degrees of freedom. The loss is not convex: a client may have several solutions.

    See `GeneralizedLinear`.
    """


class HuberRegression(GeneralizedLinear, loss="huber"):
    """r²/2 for |r| ≤ threshold and linear beyond, r = (y − a)/scale; a loss, not a density. See `GeneralizedLinear`."""
