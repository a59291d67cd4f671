"""Losses that see θ only through a = xᵀθ + offset: one class, whatever the loss; what differs is derived.

`derive/likelihoods/<name>.py` states f(a; y, …); its kernels are `badmm_kernels.load_likelihood(name)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
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


BLOCK, LEAST_ROWS = 1 << 17, 256
"""Numbers of X in a block, which stay in a core's cache with what is made of them, and rows of one at least."""
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

    def _moments(self, ns: Any, posterior: Gaussian, rows: slice) -> Moments:
        X = self.X[rows]
        data = [response[rows] for response in self.responses.values()]
        rest: dict[str, Any] = {
            "weight": None if self.weights is None else self.weights[rows],
            "offset": None if self.offset is None else self.offset[rows],
            **self.parameters,
        }
        if self._mode == "monte_carlo":
            total = np.zeros((3, len(X)))
            for theta in posterior.transform(self.noise):
                total += ns.loss(X @ theta, *data, **rest)
            value, slope, curvature = total / len(self.noise)
            return value, slope, curvature
        center = X @ posterior.mean
        if self._mode == "delta":
            found: Moments = ns.loss(center, *data, **rest)
        else:
            found = ns.expected_loss(center, posterior.predictor_variance(X), *data, **rest)
        return found

    def _blocks(self) -> Iterator[slice]:
        size = max(LEAST_ROWS, BLOCK // self.dim)
        return (slice(start, start + size) for start in range(0, len(self.X), size))

    def _sums(self, posterior: Gaussian, second: _Sum | None = None) -> tuple[float, Array]:
        """E[ℓ] and E[∇ℓ], block by block of rows: what the passes over a block share stays in the cache.

        `second` takes every block with its E[f″].
        """
        ns, loss, gradient = self.kernels, self._constant, np.zeros(self.dim)
        # an overflowing loss is the caller's to refuse
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in self._blocks():
                X = self.X[rows]
                value, slope, weight = self._moments(ns, posterior, rows)
                loss += float(np.sum(value))
                gradient += X.T @ slope
                if second is not None:
                    second.add(X, weight)
        return loss, gradient

    def gradient(self, posterior: Gaussian) -> tuple[float, Array]:
        """(E[ℓ], E[∇ℓ] (d,))."""
        return self._sums(posterior)

    def expectations(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], E[∇ℓ] (d,), E[∇²ℓ]): a vector (d,) under a vector precision, else a matrix (d, d)."""
        second = WeightedGram(self.dim) if posterior.whole_hessian else WeightedSquares(self.dim)
        return *self._sums(posterior, second), second.total

    def curvature(self, posterior: Gaussian) -> Expected:
        """As `expectations`, with the whole Hessian (d, d) under every precision."""
        gram = WeightedGram(self.dim)
        return *self._sums(posterior, gram), gram.total

    def growth(self, family: FamilyGeometry) -> Array | None:
        """Xᵀ diag(w g) X where f″ tends to g > 0 on both sides, else None."""
        least = min(self.kernels.growth(**self.parameters))
        if not 0 < least < np.inf:
            return None
        gram = WeightedGram(self.dim)
        for rows in self._blocks():
            X = self.X[rows]
            gram.add(X, np.full(len(X), least) if self.weights is None else least * self.weights[rows])
        return gram.total


class WeightedSquares:
    """Σ X² ᵀ weight (d,) over blocks of rows: the diagonal of `WeightedGram`."""

    def __init__(self, dim: int) -> None:
        self.total: Array = np.zeros(dim)

    def add(self, X: Array, weight: Array) -> None:
        """Add a block X (n, d) with weights (n,)."""
        self.total += (X * X).T @ weight


class WeightedGram:
    """Σ Xᵀ diag(weight) X over blocks of rows, as (√w X)ᵀ(√w X): half the operations of a product, and symmetric to
    the last bit. Of a loss that is not convex the rows of either sign go apart.
    """

    def __init__(self, dim: int) -> None:
        self._lower = np.zeros((dim, dim), order="F")

    def add(self, X: Array, weight: Array) -> None:
        """Add a block X (n, d) with weights (n,)."""
        negative = weight < 0
        if negative.any():
            self._add(X[negative], -weight[negative], -1.0)
            X, weight = X[~negative], weight[~negative]
        self._add(X, weight, 1.0)

    def _add(self, X: Array, weight: Array, sign: float) -> None:
        if len(X):
            half = X * np.sqrt(weight)[:, None]
            self._lower = dsyrk(sign, half.T, beta=1.0, c=self._lower, lower=1, overwrite_c=1)

    @property
    def total(self) -> Array:
        """The sum (d, d)."""
        found = self._lower + self._lower.T  # the other triangle is 0
        np.einsum("ii->i", found)[:] *= 0.5
        return np.asarray(found)


_Sum = WeightedGram | WeightedSquares


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
