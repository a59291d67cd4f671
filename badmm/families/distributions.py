"""The distributions that a user meets: priors and posteriors. Immutable; mean and precision, never second moments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from badmm.checks import Array, real_array
from badmm.families.operators import precision_of
from badmm.families.precision import Precision


class Distribution(ABC):
    """A member of a family over θ (d,)."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """d, the length of θ."""

    @property
    @abstractmethod
    def mean(self) -> Array:
        """E[θ] (d,)."""

    @property
    @abstractmethod
    def variance(self) -> Array:
        """Marginal variances (d,)."""

    @abstractmethod
    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws (count, d) with PCG64 under this seed."""

    @abstractmethod
    def parameters(self) -> dict[str, Array]:
        """The standard parameters by name: what a file holds, and what the class takes."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: a {type(self).__name__} cannot be changed")

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}={value!r}" for name, value in self.parameters().items())
        return f"{type(self).__name__}({listed})"


class Gaussian(Distribution):
    """N(mean, precision⁻¹) over θ of shape (d,).

    `precision` is a positive scalar (isotropic), a positive vector (d,) (diagonal) or a symmetric positive definite
    matrix (d, d) (full). A scalar mean is repeated where the precision has a length. Raises `ValueError` for anything
    else. Units: mean as θ, precision 1/θ².
    """

    _mean: Array
    operator: Precision
    """S with what its structure can do."""

    def __init__(self, mean: ArrayLike, precision: ArrayLike) -> None:
        m = real_array(mean, "mean", (0, 1))
        s = real_array(precision, "precision", (0, 1, 2))
        dim = len(m) if m.ndim else (len(s) if s.ndim else 1)
        self._set(np.broadcast_to(m, (dim,)).copy(), precision_of(s, dim))

    def _set(self, mean: Array, operator: Precision) -> None:
        self.__dict__.update(_mean=mean, operator=operator)

    @classmethod
    def of(cls, mean: Array, operator: Precision) -> Gaussian:
        """A Gaussian from a mean (d,) and an operator that need no check."""
        self = cls.__new__(cls)
        self._set(mean, operator)
        return self

    @property
    def dim(self) -> int:
        """d, the length of θ."""
        return len(self._mean)

    @property
    def mean(self) -> Array:
        """m (d,)."""
        return self._mean

    @property
    def precision(self) -> Array:
        """S: (), (d,) or (d, d)."""
        return self.operator.shown

    @property
    def whole_hessian(self) -> bool:
        """Whether E[∇²ℓ] is asked for as a matrix (d, d) under this precision, or as its diagonal (d,)."""
        return self.operator.whole_hessian

    @property
    def variance(self) -> Array:
        """Marginal variances (d,)."""
        return self.operator.variance

    @cached_property
    def covariance(self) -> Array:
        """S⁻¹ as a matrix (d, d)."""
        return self.operator.covariance

    def predictor_variance(self, X: Array) -> Array:
        """xᵀS⁻¹x (n,) for the rows of X (n, d)."""
        return self.operator.quadratic(X)

    def transform(self, noise: Array) -> Array:
        """m + S^{−1/2} z (n, d) for standard normal rows z of `noise` (n, d); L⁻ᵀ z for a matrix precision."""
        return np.asarray(self._mean + self.operator.root(noise))

    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws (count, d) with PCG64 under this seed."""
        return self.transform(np.random.default_rng(seed).standard_normal((count, self.dim)))

    def parameters(self) -> dict[str, Array]:
        """mean (d,) and precision (), (d,) or (d, d)."""
        return {"mean": self.mean, "precision": self.precision}
