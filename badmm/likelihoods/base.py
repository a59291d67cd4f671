"""What every likelihood of the package shares: how its expectations are taken, and the client protocol.

A client of `badmm.solve` is any object with one of

* ``expectations(posterior) -> (expected_loss, expected_gradient, expected_hessian)`` for the Gaussian families:
  E_q[ℓ] (float), E_q[∇ℓ] (d,), and E_q[∇²ℓ] as a vector (d,) for `diagonal_gaussian`, a matrix (d, d) for
  `full_gaussian`, a matrix or None for `isotropic_gaussian`;
* ``natural_gradient(posterior) -> natural-shaped tuple``: ∇_μ E_q[ℓ], for any family.

Optional, and used where present: ``curvature(posterior)`` (as `expectations` but with the whole matrix under a diagonal
family too, for faster client steps), ``constant_natural_gradient(family, dim)`` (the constant ∇_μ E_q[ℓ] where it is
linear in μ, else None), ``growth(family, dim)`` (G∞ with ℓ ≥ ½θᵀG∞θ − O(‖θ‖), for the existence condition),
``expected_loss(posterior)`` (for clients without `expectations`), ``dim`` (the length of θ), and
``configured(expectation, seed)`` (a copy that takes its expectations that way).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Literal, Self

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Gaussian

Expectation = Literal["auto", "quadrature", "delta", "monte_carlo"]
EXPECTATIONS: tuple[Expectation, ...] = ("auto", "quadrature", "delta", "monte_carlo")
Expected = tuple[float, Array, Array]


class GaussianLikelihood(ABC):
    """A loss ℓ(θ), θ (d,), whose expectations are taken under a Gaussian."""

    dim: int
    samples = 128
    """Draws of θ for `monte_carlo`."""
    _mode: Expectation = "auto"
    _seed = 0
    _noise: Array | None = None

    def configured(self, expectation: Expectation, seed: int = 0) -> Self:
        """A copy that takes its expectations in this way; the data are shared, the draws are fixed by the seed.

        Raises `ValueError` for a way that this likelihood does not have.
        """
        if expectation not in EXPECTATIONS:
            raise ValueError(f"expectation: expected one of {', '.join(EXPECTATIONS)}, got {expectation!r}")
        self._accepts(expectation)
        other = copy.copy(self)
        other._mode, other._seed, other._noise = expectation, seed, None
        return other

    def _accepts(self, expectation: Expectation) -> None:  # noqa: B027 - most accept every way
        """Raise `ValueError` where the way of taking expectations is not available."""

    @property
    def noise(self) -> Array:
        """The standard normal draws (samples, d), the same at every call: a client's problem stays one function."""
        if self._noise is None:
            half = np.random.default_rng(self._seed).standard_normal(((self.samples + 1) // 2, self.dim))
            # antithetic pairs make linear terms exact
            self._noise = np.concatenate([half, -half])
        return self._noise

    @abstractmethod
    def curvature(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], E[∇ℓ] (d,), E[∇²ℓ] (d, d)) under the posterior."""

    @abstractmethod
    def expectations(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], E[∇ℓ], E[∇²ℓ]) under the posterior; the Hessian's diagonal (d,) under a vector precision."""

    def loss(self, theta: Array) -> float:
        """ℓ(θ) at one θ (d,)."""
        point = Gaussian(theta, 1.0)
        return self.configured("delta").expectations(point)[0]

    def growth(self, family: str, dim: int) -> Array | None:
        """G∞ of the existence condition; None: ℓ grows at most linearly in some direction."""
        return None

    def constant_natural_gradient(self, family: str, dim: int) -> tuple[Array, ...] | None:
        """∇_μ E_q[ℓ] where it does not depend on q, else None."""
        return None
