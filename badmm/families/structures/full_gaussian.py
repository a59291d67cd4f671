"""The Gaussian with a precision matrix: one matrix over the whole of θ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from badmm.checks import Array
from badmm.families.factored import FactoredGaussian
from badmm.families.family import Natural
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import Precision


class FullGaussian(FactoredGaussian):
    """Gaussians whose precision is a symmetric positive definite matrix."""

    structure = MatrixPrecision
    mixing_memory = 8
    """A matrix is large, and fewer rounds suffice."""

    def parts(self, operator: Precision) -> Sequence[MatrixPrecision]:
        """S itself."""
        assert isinstance(operator, MatrixPrecision)
        return (operator,)

    def cut(self, vectors: Array) -> Sequence[Array]:
        """One part."""
        return (vectors,)

    def matrices(self, own: Array) -> Sequence[Array]:
        """One matrix."""
        return (own,)

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
