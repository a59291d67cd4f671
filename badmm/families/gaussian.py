"""What all Gaussian families share: clients give E[∇ℓ] and E[∇²ℓ] (Bonnet, Price), and members are (m, S)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factorising import FactorisingFamily
from badmm.families.family import Chart, FamilyGeometry, Growth, Natural, arrays
from badmm.families.precision import DiagonalPrecision, Precision, ScalarPrecision

PRECISION = "precision"
"""The standard parameter that is S, by the name that it has in every Gaussian family's kernels."""


class GaussianFamily(FamilyGeometry):
    """Gaussians whose precisions have one structure; `precision_varies` is False where S is a fixed parameter."""

    takes_expectations = True
    structure: type[Precision]
    operator: Precision
    """The prior's S: what stands for the structure where an array is given its own."""

    @classmethod
    def distribution(cls, ns: Any) -> type[Distribution]:
        """Gaussian, whatever the structure."""
        return Gaussian

    def structured(self, operator: Precision) -> Precision:
        """The same S in the family's structure; raises `ValueError` where it cannot hold it."""
        return self.structure.adopted(operator)

    @property
    def keeps_curvature(self) -> bool:  # type: ignore[override]
        """Whether S is a whole matrix."""
        return self.structure.keeps_curvature

    @property
    def precision_varies(self) -> bool:
        """Whether S is a parameter of the family."""
        return PRECISION not in self.fixed

    def adopt(self, prior: Distribution) -> Distribution:
        """The prior with its precision in the family's structure."""
        if not isinstance(prior, Gaussian):
            raise ValueError(f"prior: expected badmm.Gaussian for family {self.name!r}, got {type(prior).__name__}")
        try:
            self.operator = self.structured(prior.operator)
        except ValueError as error:
            what, _, got = str(error).partition(", got ")
            raise ValueError(f"prior: {what} for family {self.name!r}, got {got}") from None
        self.fixed = {name: float(self.operator.array) for name in self.ns.FIXED}
        return Gaussian.of(prior.mean, self.operator)

    @abstractmethod
    def canonical(self, natural: Natural) -> tuple[Array, Precision]:
        """(ξ, S) of λ, which need not be in the domain."""

    def natural_gradient(self, q: Distribution, gradient: Array, hessian: Array | None) -> Natural:
        """(g − H m, −H): Bonnet and Price; `hessian` the structure's part of E[∇²ℓ]."""
        assert isinstance(q, Gaussian)
        return arrays(self.ns.natural_gradient(q.mean, gradient, hessian))

    def moments(self, natural_gradient: Natural, q: Gaussian) -> tuple[Array, Array | None]:
        """E[∇ℓ] and the structure's part of E[∇²ℓ], from ∇_μ L: H = −∇₂, g = ∇₁ + H m."""
        if not self.precision_varies:
            return natural_gradient[0], None
        hessian = -natural_gradient[1]
        return natural_gradient[0] + q.operator.times(hessian, q.mean), hessian

    @property
    def hessian_shape(self) -> tuple[int, ...]:
        """The shape of the E[∇²ℓ] that a client's `expectations` gives; it may give None where S is fixed."""
        return (self.dim,) * (1 + self.operator.whole_hessian)

    def required_rho(self, natural_global: Natural, dual: Natural, growth: Growth, enough: float = -np.inf) -> float:
        """The largest eigenvalue of −(η_S + G∞) in units of S_g."""
        operator = self.canonical(natural_global)[1]
        eta = dual[1] if self.precision_varies else np.zeros(self.dim)
        if isinstance(growth, tuple):
            eta, growth = eta + growth[1] if self.precision_varies else eta, None
        return operator.largest_ratio(-eta if growth is None else -_total(operator.whole(eta), growth), enough)

    def linear(self, coefficients: Mapping[str, Array]) -> Natural | None:
        """As for every family; a quadratic form whose matrix has the family's structure is one of its statistics."""
        given = dict(coefficients)
        form = given.pop("theta*theta.T", None)
        if form is not None and self.precision_varies:
            own = self.operator.own(form)
            if not np.array_equal(self.operator.like(own).plus(np.zeros_like(form)), form):
                return None
            return super().linear({**given, str(self.ns.STATISTICS[1][0]): own})
        return super().linear(coefficients)

    def chart(self, reference: Distribution) -> Chart:
        """(m, S) in units of a reference's diagonal precision."""
        assert isinstance(reference, Gaussian)
        return MeanPrecisionChart(self, reference)


def _total(left: Array, right: Array) -> Array:
    """The sum of diagonals (d,) and matrices (d, d): a diagonal where both are."""
    if left.ndim == right.ndim:
        return np.asarray(left + right)
    return np.asarray(sum(np.diag(part) if part.ndim == 1 else part for part in (left, right)))


class MeanPrecisionChart(Chart):
    """(D(m − m_ref), D⁻¹SD⁻¹), D² the reference's diagonal precision: convex combinations stay in the domain."""

    def __init__(self, family: GaussianFamily, reference: Gaussian) -> None:
        self.family, self._reference = family, reference
        self._unit = np.sqrt(reference.operator.diagonal)

    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""
        assert isinstance(q, Gaussian)
        mean = (q.mean - self._reference.mean) * self._unit
        return np.concatenate([mean, q.operator.coordinates(self._reference.operator)])

    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None outside the domain."""
        if not np.isfinite(x).all():
            return None
        d = len(self._unit)
        operator = self._reference.operator.at_coordinates(x[d:])
        if operator is None:
            return None
        q = Gaussian.of(self._reference.mean + x[:d] / self._unit, operator)
        return self.family.natural(q), q


class FactorisingGaussian(GaussianFamily, FactorisingFamily):
    """Independent coordinates: a diagonal precision, or one number where the family fixes it."""

    def __init__(self, ns: Any, prior: Distribution) -> None:
        fixed = PRECISION in ns.FIXED
        self.structure = ScalarPrecision if fixed else DiagonalPrecision
        # rounds overshoot along correlations, which only a free diagonal tries to make up for
        self.mixed_damping = 1.0 if fixed else 0.7
        super().__init__(ns, prior)

    def natural(self, distribution: Any) -> Natural:
        """(S m, S), or S m alone where S is fixed."""
        standard = (distribution.mean, distribution.precision)[: len(self.ns.STANDARD)]
        return arrays(self.ns.natural_from_standard(*standard, **self.fixed))

    def posterior(self, natural: Natural) -> Gaussian:
        """The Gaussian with natural parameter λ; raises `ValueError` outside the domain."""
        standard = arrays(self.ns.standard_from_natural(*natural, **self.fixed))
        return Gaussian.of(standard[0], self.canonical((natural[0], *standard[1:]))[1])

    def canonical(self, natural: Natural) -> tuple[Array, Precision]:
        """(ξ, S) of λ."""
        array = natural[1] if self.precision_varies else np.asarray(self.fixed[PRECISION])
        return natural[0], self.operator.like(array)
