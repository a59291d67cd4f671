"""What every likelihood of the package shares, and the protocols that any other client meets.

A client of `badmm.solve` is an object that `GivesExpectations` (Gaussian families) or `GivesNaturalGradient` (every
family) describes. The other protocols are optional capabilities, used where present; so are `dim`, the length of θ,
`configured(expectation, seed)`, a copy that takes its expectations that way, and `at_mean`, whether its derivatives
depend on the posterior's mean alone.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.families.family import FamilyGeometry, Natural

Expectation = Literal["auto", "quadrature", "delta", "monte_carlo"]
EXPECTATIONS: tuple[Expectation, ...] = ("auto", "quadrature", "delta", "monte_carlo")
Expected = tuple[float, Array, Array]


@runtime_checkable
class GivesExpectations(Protocol):
    """A client of the Gaussian families."""

    def expectations(self, posterior: Gaussian) -> tuple[float, Array, Array | None]:
        """(E_q[ℓ], E_q[∇ℓ] (d,), E_q[∇²ℓ]): a matrix (d, d) where `posterior.whole_hessian`, else its diagonal (d,).

        The Hessian may be None under a Gaussian of fixed precision.
        """
        ...


@runtime_checkable
class GivesNaturalGradient(Protocol):
    """A client of any family."""

    def natural_gradient(self, posterior: Any) -> Natural:
        """∇_μ E_q[ℓ], one array per slot of the family's natural parameter."""
        ...


@runtime_checkable
class GivesCurvature(Protocol):
    """A client that knows the whole Hessian under a diagonal Gaussian too, for faster client steps."""

    def curvature(self, posterior: Gaussian) -> Expected:
        """As `expectations`, always with E_q[∇²ℓ] (d, d)."""
        ...


@runtime_checkable
class GivesGradient(Protocol):
    """A client whose loss is taken at the mean, and whose gradient costs much less than its Hessian."""

    def gradient(self, posterior: Gaussian) -> tuple[float, Array]:
        """(E_q[ℓ], E_q[∇ℓ] (d,))."""
        ...


@runtime_checkable
class GivesConstantNaturalGradient(Protocol):
    """A client whose E_q[ℓ] is linear in the μ of some families: conjugate to them, and solved in one step."""

    def constant_natural_gradient(self, family: FamilyGeometry) -> Natural | None:
        """∇_μ E_q[ℓ] where it does not depend on q, else None; `family.linear` gives it from ℓ's coefficients."""
        ...


@runtime_checkable
class GivesGrowth(Protocol):
    """A client whose loss helps the existence condition."""

    def growth(self, family: FamilyGeometry) -> Array | None:
        """G∞ with ℓ(θ) ≥ ½θᵀG∞θ − O(‖θ‖), (d, d) or its diagonal (d,); None where ℓ grows at most linearly."""
        ...


@runtime_checkable
class GivesExpectedLoss(Protocol):
    """A client without `expectations` that gives the objective."""

    def expected_loss(self, posterior: Any) -> float:
        """E_q[ℓ] in nats."""
        ...


Client = GivesExpectations | GivesNaturalGradient


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

    @property
    def at_mean(self) -> bool:
        """Whether E[∇ℓ] and E[∇²ℓ] depend on the posterior's mean alone, as under the delta method."""
        return self._mode == "delta"

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

    def growth(self, family: FamilyGeometry) -> Array | None:
        """G∞ of the existence condition; None: ℓ grows at most linearly in some direction."""
        return None

    def constant_natural_gradient(self, family: FamilyGeometry) -> Natural | None:
        """∇_μ E_q[ℓ] where it does not depend on q, else None."""
        return None
