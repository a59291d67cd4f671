"""The Gaussian with a precision matrix: λ = (S m, S) carries the Cholesky factor of S, so that it is factored once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.families.family import Natural
from badmm.families.gaussian import GaussianFamily
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import Precision
from badmm_kernels.cpu import linalg


class FullNatural(tuple[Array, ...]):
    """(ξ, S) with the operator S, whose factor is computed on first use and shared with the posterior."""

    @cached_property
    def operator(self) -> MatrixPrecision:
        """S with its factor."""
        return MatrixPrecision(self[1], len(self[0]))


class FullGaussian(GaussianFamily):
    """Gaussians whose precision is a symmetric positive definite matrix."""

    structure = MatrixPrecision
    mixing_memory = 8
    """A matrix is large, and fewer rounds suffice."""

    def parameter(self, slots: Sequence[Array]) -> FullNatural:
        """λ that carries its factor."""
        return slots if isinstance(slots, FullNatural) else FullNatural(slots)

    def canonical(self, natural: Natural) -> tuple[Array, Precision]:
        """(ξ, S) of λ."""
        return natural[0], self.parameter(natural).operator

    def natural(self, distribution: Gaussian) -> Natural:
        """(S m, S); the distribution's factor goes along."""
        distribution.operator.check()
        found = FullNatural((distribution.operator.matvec(distribution.mean), distribution.precision))
        found.__dict__["operator"] = distribution.operator
        return found

    def posterior(self, natural: Natural) -> Gaussian:
        """The Gaussian with natural parameter λ, which shares its factor.

        Raises `ValueError` where S is not symmetric positive definite, and warns where no digit of S⁻¹ξ can be trusted.
        """
        if not isinstance(natural, FullNatural):
            # what comes from outside is checked by the kernels: shapes, symmetry, condition
            mean, _ = self.ns.standard_from_natural(*natural)
            return Gaussian.of(np.asarray(mean), MatrixPrecision(natural[1], len(natural[0])))
        operator = natural.operator
        mean = operator.solve(natural[0])
        linalg.check_condition("precision", operator.cholesky, operator.array, stacklevel=3)
        return Gaussian.of(mean, operator)

    def trial_points(self) -> AbstractContextManager[None]:
        """Nearly singular precisions pass without a warning."""
        return linalg.trial_points()

    def in_domain(self, natural: Natural) -> bool:
        """Whether λ is finite and S has a Cholesky factor."""
        return all(np.isfinite(slot).all() for slot in natural) and self.canonical(natural)[1].is_definite

    def whiten(self, natural: Natural, directions: Natural) -> Array:
        """L⁻¹(dξ − dS m) and L⁻¹ dS L⁻ᵀ/√2: F⁻¹ weighs dλ by the covariance of the statistics' dual."""
        q = self.posterior(natural)
        d_xi, d_s = directions
        operator = q.operator
        mean = operator.root_transpose((d_xi - d_s @ q.mean).T).T
        spread = np.stack([operator.congruence(one).ravel() for one in d_s])
        return np.concatenate([mean, spread / np.sqrt(2)], axis=1)

    def fisher_bound(self, natural: Natural) -> float:
        """v(1 + ‖m‖²) + v²/2 with v the largest variance.

        F acts on (dξ, dS) as dm = Σ(dξ − dS m), and a second slot of at most v²/2 + v‖m‖².
        """
        q = self.posterior(natural)
        v = q.operator.largest_variance
        return v * (1.0 + float(q.mean @ q.mean)) + 0.5 * v**2

    def pack(self, natural: Natural) -> Array:
        """ξ and the lower triangle of S."""
        return np.concatenate([natural[0], natural[1][np.tril_indices(len(natural[0]))]])

    def _slots(self, message: Array) -> Natural:
        d = self.dim
        lower = np.zeros((d, d))
        lower[np.tril_indices(d)] = message[d:]
        return message[:d], lower + np.tril(lower, -1).T

    def symmetrised(self, stacked: Natural) -> Natural:
        """Stacks whose matrices are symmetric to the last bit, which BLAS need not keep."""
        return stacked[0], 0.5 * (stacked[1] + np.swapaxes(stacked[1], -1, -2))


STRUCTURE = FullGaussian
