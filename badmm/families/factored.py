"""Gaussians whose precision carries a factor: λ = (S m, S) shares its operator with the posterior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Self

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.families.family import Natural
from badmm.families.gaussian import GaussianFamily
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import Precision
from badmm_kernels.cpu import linalg


class FactoredNatural(tuple[Array, ...]):
    """(ξ, S) with the operator S, whose factor is computed on first use and shared with the posterior, and the mean
    once it is known.
    """

    make: Callable[[Array], Precision]
    mean: Array | None = None

    @classmethod
    def of(cls, slots: Sequence[Array], make: Callable[[Array], Precision]) -> Self:
        """λ from its slots; `make` gives the operator of an array."""
        found = cls(slots)
        found.make = make
        return found

    @cached_property
    def operator(self) -> Precision:
        """S with its factor."""
        return self.make(self[1])


class FactoredGaussian(GaussianFamily):
    """Gaussians over matrices, or blocks of them, that are factored once each."""

    def parameter(self, slots: Sequence[Array]) -> FactoredNatural:
        """λ that carries its factor."""
        return slots if isinstance(slots, FactoredNatural) else FactoredNatural.of(slots, self.operator.like)

    def canonical(self, natural: Natural) -> tuple[Array, Precision]:
        """(ξ, S) of λ."""
        return natural[0], self.parameter(natural).operator

    def natural(self, distribution: Gaussian) -> Natural:
        """(S m, S); the distribution's factor goes along."""
        operator = distribution.operator
        operator.check()
        found = self.parameter((operator.matvec(distribution.mean), operator.array))
        found.__dict__["operator"] = operator
        found.mean = distribution.mean
        return found

    def posterior(self, natural: Natural) -> Gaussian:
        """The Gaussian with natural parameter λ, which shares its factor.

        Raises `ValueError` where S is not symmetric positive definite, and warns where no digit of S⁻¹ξ can be trusted.
        """
        if not isinstance(natural, FactoredNatural):
            # what comes from outside is checked by the kernels: shapes, symmetry, condition
            mean, _ = self.ns.standard_from_natural(*natural)
            return Gaussian.of(np.asarray(mean), self.operator.like(natural[1]))
        mean = self._mean(natural)
        for part in self.parts(natural.operator):
            linalg.check_condition("precision", part.cholesky, part.array, stacklevel=3)
        return Gaussian.of(mean, natural.operator)

    def _mean(self, natural: FactoredNatural) -> Array:
        """S⁻¹ξ, solved once; raises `ValueError` where S is not positive definite."""
        if natural.mean is None:
            pieces = zip(self.parts(natural.operator), self.cut(natural[0]), strict=True)
            natural.mean = np.concatenate([part.solve(xi) for part, xi in pieces])
        return natural.mean

    def trial_points(self) -> AbstractContextManager[None]:
        """Nearly singular precisions pass without a warning."""
        return linalg.trial_points()

    def in_domain(self, natural: Natural) -> bool:
        """Whether λ is finite and S has a Cholesky factor."""
        return all(np.isfinite(slot).all() for slot in natural) and self.canonical(natural)[1].is_definite

    def whiten(self, natural: Natural, directions: Natural) -> Array:
        """L⁻¹(dξ − dS m) and L⁻¹ dS L⁻ᵀ/√2, matrix by matrix: F⁻¹ weighs dλ by the statistics' dual."""
        at = self.parameter(natural)
        means, (d_xi, d_s) = self.cut(self._mean(at)), directions
        rows = []
        pieces = (self.parts(at.operator), means, self.cut(d_xi), self.matrices(d_s))
        for part, mean, xi, matrix in zip(*pieces, strict=True):
            rows.append(part.root_transpose((xi - matrix @ mean).T).T)
            rows.append(part.congruence(matrix).reshape(len(matrix), -1) / np.sqrt(2))
        return np.concatenate(rows, axis=1)

    def fisher_bound(self, natural: Natural) -> float:
        """v(1 + ‖m‖²) + v²/2 with v the largest variance.

        F acts on (dξ, dS) as dm = Σ(dξ − dS m), and a second slot of at most v²/2 + v‖m‖².
        """
        q = self.posterior(natural)
        v = q.operator.largest_variance
        return v * (1.0 + float(q.mean @ q.mean)) + 0.5 * v**2

    @abstractmethod
    def parts(self, operator: Precision) -> Sequence[MatrixPrecision]:
        """The matrices that S is made of, each with its factor."""

    @abstractmethod
    def cut(self, vectors: Array) -> Sequence[Array]:
        """The parts (..., b) of vectors (..., d) that the matrices act on."""

    @abstractmethod
    def matrices(self, own: Array) -> Sequence[Array]:
        """The matrices (..., b, b) of arrays (..., n) of the structure."""
