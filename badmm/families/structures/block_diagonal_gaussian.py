"""The Gaussian whose precision is block-diagonal: coordinates within a block are correlated, blocks are independent.

λ = (S m, S) holds S as its blocks, flat and one after the other: Σ b² numbers, of which a message has Σ b(b+1)/2. A
block is a full Gaussian's matrix, with its operator and its kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

import badmm_kernels
from badmm.checks import Array, positive_integer
from badmm.families.distributions import Distribution
from badmm.families.factored import FactoredGaussian
from badmm.families.family import Choice, FamilyGeometry, Natural
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import Precision
from badmm.families.slots import SlotKernels

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Blocks:
    """Where blocks of these sizes lie: along θ (d,), in a matrix (d, d), and in their flat array (n,), n = Σ b²."""

    sizes: tuple[int, ...]

    @cached_property
    def theta(self) -> list[slice]:
        """The coordinates of each block."""
        return _slices(self.sizes)

    @cached_property
    def flat(self) -> list[slice]:
        """The entries of each block in the flat array."""
        return _slices([size * size for size in self.sizes])

    @property
    def dim(self) -> int:
        """d."""
        return sum(self.sizes)

    @cached_property
    def entries(self) -> tuple[Index, Index]:
        """Row and column in the matrix (d, d) of each entry of the flat array."""
        grids = [
            np.indices((size, size)).reshape(2, -1) + at.start for size, at in zip(self.sizes, self.theta, strict=True)
        ]
        rows, columns = np.concatenate(grids, axis=1)
        return rows, columns

    @cached_property
    def mirror(self) -> Index:
        """Where the flat array holds the transposed entry of each of its entries."""
        starts = [np.arange(size * size).reshape(size, size).T.ravel() + at.start for size, at in self._sized]
        return np.concatenate(starts)

    @cached_property
    def lower(self) -> Index:
        """The entries of the flat array on and below the diagonals."""
        rows, columns = self.entries
        return np.flatnonzero(rows >= columns)

    @cached_property
    def alike(self) -> list[tuple[Index, Index]]:
        """The blocks of each size as a stack: places (B, b) in θ and (B, b, b) in the flat array."""
        found = []
        for b in sorted(set(self.sizes)):
            which = [k for k, size in enumerate(self.sizes) if size == b]
            theta = np.array([self.theta[k].start for k in which])[:, None] + np.arange(b)
            flat = np.array([self.flat[k].start for k in which])[:, None] + np.arange(b * b)
            found.append((theta, flat.reshape(-1, b, b)))
        return found

    @property
    def _sized(self) -> Iterable[tuple[int, slice]]:
        return zip(self.sizes, self.flat, strict=True)

    def vectors(self, array: Array) -> list[Array]:
        """The parts (..., b) of vectors (..., d)."""
        return [array[..., at] for at in self.theta]

    def matrices(self, flat: Array) -> list[Array]:
        """The blocks (..., b, b) of flat arrays (..., n)."""
        return [flat[..., at].reshape(*flat.shape[:-1], size, size) for size, at in self._sized]

    def of_matrix(self, matrix: Array) -> Array:
        """The flat array of a matrix's blocks."""
        return np.asarray(matrix[self.entries])

    def matrix(self, flat: Array) -> Array:
        """The matrix (d, d) of a flat array, 0 outside the blocks."""
        out = np.zeros((self.dim, self.dim))
        out[self.entries] = flat
        return out


def _slices(lengths: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *lengths]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


class BlockPrecision(Precision):
    """S block by block; `array` is flat (n,)."""

    whole_hessian = True

    def __init__(self, array: Array, blocks: Blocks) -> None:
        super().__init__(array, blocks.dim)
        self.blocks = blocks

    @cached_property
    def parts(self) -> list[MatrixPrecision]:
        """The blocks as operators, each with its factor."""
        return [MatrixPrecision(matrix, len(matrix)) for matrix in self.blocks.matrices(self.array)]

    def _joined(self, parts: Sequence[Precision | None]) -> Precision | None:
        """The operator of new blocks; None where one is."""
        found = [part.array.ravel() for part in parts if part is not None]
        return self.like(np.concatenate(found)) if len(found) == len(parts) else None

    def _each(self, apply: Callable[[MatrixPrecision, Array], Array], vectors: Array) -> Array:
        pairs = zip(self.parts, self.blocks.vectors(vectors), strict=True)
        return np.concatenate([apply(part, vector) for part, vector in pairs], axis=-1)

    def _spreads(self, w: Array) -> list[Array]:
        return np.split(w, np.cumsum([part.spread_size for part in self.parts])[:-1])

    @property
    def shown(self) -> Array:
        """The matrix (d, d)."""
        return self.blocks.matrix(self.array)

    @property
    def is_definite(self) -> bool:
        """Whether every block has a Cholesky factor."""
        return all(part.is_definite for part in self.parts)

    def check(self) -> None:
        """Raise `ValueError` where a block is not positive definite."""
        for part in self.parts:
            part.check()

    def like(self, array: Array) -> BlockPrecision:
        """Other blocks of these sizes."""
        return BlockPrecision(array, self.blocks)

    def own(self, matrix: Array) -> Array:
        """The blocks."""
        return self.blocks.of_matrix(matrix)

    def whole(self, own: Array) -> Array:
        """The matrix (d, d)."""
        return self.blocks.matrix(own)

    def times(self, array: Array, vector: Array) -> Array:
        """Block by block."""
        pairs = zip(self.blocks.matrices(array), self.blocks.vectors(vector), strict=True)
        return np.concatenate([matrix @ part for matrix, part in pairs])

    def plus(self, matrix: Array) -> Array:
        """The matrix with the blocks added."""
        out = np.array(matrix)
        out[self.blocks.entries] += self.array
        return out

    @property
    def diagonal(self) -> Array:
        """The diagonals of the blocks."""
        return np.concatenate([part.diagonal for part in self.parts])

    @property
    def variance(self) -> Array:
        """The diagonals of the blocks' inverses."""
        return np.concatenate([part.variance for part in self.parts])

    @property
    def covariance(self) -> Array:
        """The inverses of the blocks in a matrix (d, d)."""
        return np.asarray(block_diag(*(part.covariance for part in self.parts)))

    def trace(self, own: Array) -> float:
        """The sum over blocks."""
        return sum(part.trace(matrix) for part, matrix in zip(self.parts, self.blocks.matrices(own), strict=True))

    def quadratic(self, X: Array) -> Array:
        """The sum over blocks."""
        pairs = zip(self.parts, self.blocks.vectors(X), strict=True)
        return np.asarray(sum(part.quadratic(columns) for part, columns in pairs))

    def root(self, rows: Array) -> Array:
        """L⁻ᵀz, block by block."""
        return self._each(MatrixPrecision.root, rows)

    def root_transpose(self, vector: Array) -> Array:
        """L⁻¹v, block by block."""
        return self._each(MatrixPrecision.root_transpose, vector)

    def congruence(self, matrix: Array) -> Array:
        """L⁻¹AL⁻ᵀ for a matrix (d, d): rows first, then columns."""
        half = np.vstack([p.inverse_cholesky @ matrix[at] for p, at in zip(self.parts, self.blocks.theta, strict=True)])
        whole = [half[:, at] @ p.inverse_cholesky.T for p, at in zip(self.parts, self.blocks.theta, strict=True)]
        return np.hstack(whole)

    def largest_ratio(self, numerator: Array, enough: float = -np.inf) -> float:
        """The largest over blocks; a matrix (d, d) is whitened as a whole."""
        if numerator.shape == (self.dim, self.dim):
            return float(np.linalg.eigvalsh(self.congruence(numerator))[-1])
        of_blocks = numerator.shape == self.array.shape
        pieces = self.blocks.matrices(numerator) if of_blocks else self.blocks.vectors(numerator)
        return max(part.largest_ratio(piece, enough) for part, piece in zip(self.parts, pieces, strict=True))

    @property
    def largest_variance(self) -> float:
        """The largest over blocks."""
        return max(part.largest_variance for part in self.parts)

    @property
    def spread_size(self) -> int:
        """Σ b(b+1)/2."""
        return sum(part.spread_size for part in self.parts)

    def spread(self, w: Array) -> Precision | None:
        """Block by block."""
        return self._joined([part.spread(x) for part, x in zip(self.parts, self._spreads(w), strict=True)])

    def spread_equations(self, w: Array, target: Array) -> Array:
        """Block by block."""
        pieces = zip(self.parts, self._spreads(w), self.blocks.matrices(target), strict=True)
        return np.concatenate([part.spread_equations(x, matrix) for part, x, matrix in pieces])

    @property
    def spread_curvature(self) -> Array:
        """Block by block."""
        return np.concatenate([part.spread_curvature for part in self.parts])

    def coordinates(self, reference: Precision) -> Array:
        """Block by block."""
        assert isinstance(reference, BlockPrecision)
        return np.concatenate([a.coordinates(b) for a, b in zip(self.parts, reference.parts, strict=True)])

    def at_coordinates(self, x: Array) -> Precision | None:
        """Block by block."""
        pieces = [x[at] for at in self.blocks.flat]
        return self._joined([part.at_coordinates(piece) for part, piece in zip(self.parts, pieces, strict=True)])


class BlockKernels(SlotKernels):
    """The full Gaussian's kernels on stacks of blocks of one size."""

    NAME = "block_diagonal_gaussian"
    NATURAL, STANDARD = ("precision_mean", "precision"), ("mean", "precision")
    STATISTICS = (("theta", 1.0), ("theta*theta.T", -0.5))

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self._full = blocks, badmm_kernels.load("full_gaussian")

    def _mapped(self, name: str, *vectors: Array, matrices: Array) -> Natural:
        """(vector, flat array) of a kernel with vector arguments and, last, a matrix; leading axes as given."""
        out = np.empty(vectors[0].shape), np.empty(matrices.shape)
        for theta, flat in self.blocks.alike:
            found = getattr(self._full, name)(*(vector[..., theta] for vector in vectors), matrices[..., flat])
            out[0][..., theta], out[1][..., flat] = found
        return out

    def standard_from_natural(self, precision_mean: Array, precision: Array) -> Natural:
        """(m, S)."""
        return self._mapped("standard_from_natural", precision_mean, matrices=precision)

    def expectation_from_natural(self, precision_mean: Array, precision: Array) -> Natural:
        """(m, −½S⁻¹ − ½mmᵀ), the blocks of the second slot."""
        return self._mapped("expectation_from_natural", precision_mean, matrices=precision)

    def natural_gradient(self, mean: Array, gradient: Array, hessian: Array) -> Natural:
        """(g − H m, −H), H the blocks of the expected Hessian."""
        return self._mapped("natural_gradient", mean, gradient, matrices=hessian)

    def log_partition(self, precision_mean: Array, precision: Array) -> float:
        """The sum over blocks."""
        stacks = self.blocks.alike
        return sum(self._full.log_partition(precision_mean[theta], precision[flat]) for theta, flat in stacks)

    def kl(self, natural_q: Natural, natural_p: Natural) -> float:
        """The sum over blocks."""
        q, p = natural_q, natural_p
        return sum(self._full.kl((q[0][t], q[1][f]), (p[0][t], p[1][f])) for t, f in self.blocks.alike)


class BlockDiagonalFamily(FactoredGaussian):
    """Gaussians whose precision has blocks along its diagonal and is 0 elsewhere."""

    structure = BlockPrecision
    # rounds overshoot along correlations between blocks, as under the diagonal family
    mixed_damping = 0.7

    @property
    def blocks(self) -> Blocks:
        """Where the blocks lie."""
        found: Blocks = self.ns.blocks
        return found

    def structured(self, operator: Precision) -> Precision:
        """S with its blocks; raises `ValueError` where it has entries outside them."""
        matrix = operator.plus(np.zeros((operator.dim, operator.dim)))
        own = self.blocks.of_matrix(matrix)
        if not np.array_equal(self.blocks.matrix(own), matrix):
            place = tuple(int(i) for i in np.argwhere(self.blocks.matrix(own) != matrix)[0])
            raise ValueError(f"expected 0 outside the blocks of the precision, got {matrix[place]:g} at index {place}")
        return BlockPrecision(own, self.blocks)

    def parts(self, operator: Precision) -> Sequence[MatrixPrecision]:
        """The blocks."""
        assert isinstance(operator, BlockPrecision)
        return operator.parts

    def cut(self, vectors: Array) -> Sequence[Array]:
        """Block by block."""
        return self.blocks.vectors(vectors)

    def matrices(self, own: Array) -> Sequence[Array]:
        """The blocks."""
        return self.blocks.matrices(own)

    def pack(self, natural: Natural) -> Array:
        """ξ and the lower triangles of the blocks."""
        return np.concatenate([natural[0], natural[1][self.blocks.lower]])

    def _slots(self, message: Array) -> Natural:
        flat = np.zeros(self.shapes[1])
        flat[self.blocks.lower] = message[self.dim :]
        rows, columns = self.blocks.entries
        return message[: self.dim], np.where(rows >= columns, flat, flat[self.blocks.mirror])

    def symmetrised(self, stacked: Natural) -> Natural:
        """Stacks whose blocks are symmetric to the last bit."""
        return stacked[0], 0.5 * (stacked[1] + stacked[1][..., self.blocks.mirror])


@dataclass(frozen=True)
class BlockDiagonalGaussian(Choice):
    """Gaussians with a block-diagonal precision.

    blocks: the sizes of consecutive blocks, which sum to d, or one size that divides d. Raises `ValueError` for what is
    not that.
    """

    blocks: int | Sequence[int]

    def __post_init__(self) -> None:
        given: Any = self.blocks
        listed = not isinstance(given, str) and isinstance(given, Iterable)
        sizes = tuple(positive_integer(b, "blocks") for b in given) if listed else positive_integer(given, "blocks")
        object.__setattr__(self, "blocks", sizes)

    def bind(self, prior: Distribution) -> FamilyGeometry:
        """The family over θ of the prior's length."""
        return BlockDiagonalFamily(BlockKernels(Blocks(self._sizes(prior.dim))), prior)

    def _sizes(self, dim: int) -> tuple[int, ...]:
        sizes = (self.blocks,) * (dim // self.blocks) if isinstance(self.blocks, int) else tuple(self.blocks)
        if sum(sizes) != dim:
            what = "a size that divides" if isinstance(self.blocks, int) else "sizes that sum to"
            raise ValueError(f"blocks: expected {what} {dim} (the prior's length), got {self.blocks}")
        return sizes


STRUCTURE, CHOICE, KERNELS = BlockDiagonalFamily, BlockDiagonalGaussian, BlockKernels
