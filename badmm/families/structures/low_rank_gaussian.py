"""The Gaussian whose precision is a diagonal plus a matrix of low rank: S = diag(D) + UUᵀ ≻ 0, U (d, r).

It is a curved family: its λ form a manifold in those of the full Gaussian, with tangents (x, A) at (ξ, S), x any vector
and A = diag(δ) + VUᵀ + UVᵀ. Clients hold full λ_k and η_k; what is sent is of the manifold's size, d(r + 2) numbers:

    down   λ_g = (ξ, D, U)
    up     (x − Bm, diag(ΣBΣ), ΣBΣU) of a contribution (x, B), Σ = S⁻¹: what the tangents at λ_g see of it. These are
           linear in B, so that sums of messages are messages of sums.

The server makes them the tangent that is nearest in the Fisher metric, and its line the member with the least KL(q‖·):
the server line minimises (1 + ρK) KL(q‖λ) over q in the family, λ the unconstrained line. The mean is kept; S solves

    min over D, U of  log det S + tr(Ŝ S⁻¹),  that is  diag(Σ(S − Ŝ)Σ) = 0,  Σ(S − Ŝ)ΣU = 0

(maximum-likelihood factor analysis with the precision in the covariance's place; D may have entries of either sign). So
a fixed point of the rounds, λ_k = λ_g and η_k = ∇L_k, is stationary for Σ_k L_k + KL(q‖p_0) over the family. What is
lost: of each curvature what no tangent at λ_g sees. The problem is not convex: there may be several such points. Rounds
far from one may not lead there where the rank is well below what the losses' curvatures need: take a larger one then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from badmm.checks import Array, cholesky_factor, positive_integer
from badmm.families.distributions import Distribution
from badmm.families.factored import FactoredNatural
from badmm.families.family import Choice, FamilyGeometry, Natural
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import DiagonalPrecision, Precision
from badmm.families.slots import RenamedKernels
from badmm.families.structures.full_gaussian import FullGaussian

NEAREST_STEPS, NEAREST = 200, 1e-13
"""Steps to the nearest member, and the length of the last one in the Fisher metric."""
DEFINITE = 1e-10
"""The smallest eigenvalue over the largest of a matrix that counts as definite."""
CUT = 1e-13
"""Singular values below this share of the largest are rounding."""
SEED = 0
"""Of the directions that a member without its full rank looks along."""


class LowRank:
    """S = diag(D) + UUᵀ with the geometry of its manifold."""

    def __init__(self, diagonal: Array, factor: Array) -> None:
        self.diagonal, self.factor = diagonal, factor

    @cached_property
    def matrix(self) -> Array:
        """S (d, d)."""
        out = self.factor @ self.factor.T
        out[np.diag_indices_from(out)] += self.diagonal
        return out

    @cached_property
    def covariance(self) -> Array | None:
        """Σ = S⁻¹; None where S is not positive definite."""
        lower = cholesky_factor(self.matrix)
        return None if lower is None else np.asarray(cho_solve((lower, True), np.eye(len(lower))))

    @cached_property
    def basis(self) -> Array:
        """U with unit columns, and fixed directions in place of columns that are 0: what the tangents are made of."""
        lengths = np.linalg.norm(self.factor, axis=0)
        found = np.random.default_rng(SEED).standard_normal(self.factor.shape)
        found[:, lengths > 0] = self.factor[:, lengths > 0]
        return np.asarray(found / np.linalg.norm(found, axis=0))

    def seen(self, matrix: Array) -> Array:
        """(diag(ΣBΣ), ΣBΣU) of a symmetric B, flat."""
        sigma = self.covariance
        assert sigma is not None
        white = sigma @ matrix @ sigma
        return np.concatenate([np.diag(white), (white @ self.basis).ravel()])

    def tangent(self, seen: Array) -> tuple[Array, Array]:
        """(δ, V) of the tangent diag(δ) + VUᵀ + UVᵀ that is seen as given, U the basis.

        With G = ΣU, M = UᵀG and R = Σ − GM⁻¹Gᵀ: (R∘R) δ = diag(ΣBΣ) − 2 (Y∘G)1 at δ = 0, then ΣV = Y, where
        Y = (W − ½ GM⁻¹UᵀW) M⁻¹ and W = ΣBΣU − Σ diag(δ) G.
        """
        sigma, u, d = self.covariance, self.basis, len(self.diagonal)
        assert sigma is not None
        g = sigma @ u
        inner = cho_factor(u.T @ g, lower=True)

        def solved(w: Array) -> Array:
            half = w - 0.5 * g @ cho_solve(inner, u.T @ w)
            return np.asarray(cho_solve(inner, half.T).T)

        want = seen[d:].reshape(u.shape)
        rest = sigma - g @ cho_solve(inner, g.T)
        right = seen[:d] - 2.0 * np.sum(solved(want) * g, axis=1)
        delta = np.linalg.lstsq(rest * rest, right, rcond=CUT)[0]
        y = solved(want - sigma @ (delta[:, None] * g))
        return delta, np.asarray(self.matrix @ y)

    def completed(self, seen: Array) -> Array:
        """A symmetric matrix (d, d) that is seen as given: positive definite wherever the given is that of such a one.

        ΣBΣ is K + R diag(w) R with K = W (UᵀW)⁻¹ Wᵀ, which has the given product with U, R as in `tangent`, RU = 0, and
        w from the diagonal. Of a B that is not definite along U it is the tangent.
        """
        sigma, u, d = self.covariance, self.basis, len(self.diagonal)
        assert sigma is not None
        w = seen[d:].reshape(u.shape)
        inner = 0.5 * (u.T @ w + w.T @ u)
        sizes = np.linalg.eigvalsh(inner)
        if not sizes[0] > DEFINITE * abs(sizes[-1]):
            return self.matrix_of(*self.tangent(seen))
        g = sigma @ u
        along = u @ np.linalg.solve(u.T @ g, g.T)
        rest = sigma - g @ np.linalg.solve(u.T @ g, g.T)
        half = np.linalg.solve(np.linalg.cholesky(inner), w.T).T
        weights = np.linalg.lstsq(rest * rest, seen[:d] - np.sum(half**2, axis=1), rcond=CUT)[0]
        left = self.matrix @ half
        across = np.eye(d) - along
        found = left @ left.T + (across * weights) @ across.T
        return 0.5 * (found + found.T)

    def matrix_of(self, delta: Array, v: Array) -> Array:
        """The tangent diag(δ) + VUᵀ + UVᵀ (d, d), U the basis."""
        half = v @ self.basis.T
        out = half + half.T
        out[np.diag_indices_from(out)] += delta
        return np.asarray(out)

    def moved(self, delta: Array, v: Array, step: float) -> LowRank:
        """The member at D + δ and U + V, a step along a tangent; the columns of its U are orthogonal."""
        lengths = np.linalg.norm(self.factor, axis=0)
        factor = self.factor + step * v / np.where(lengths > 0, lengths, np.inf)
        left, sizes, _ = np.linalg.svd(factor, full_matrices=False)
        return LowRank(self.diagonal + step * delta, left * sizes)


def nearest(target: Array, rank: int, start: LowRank | None = None) -> LowRank:
    """argmin of KL(N(·, S⁻¹)‖N(·, Ŝ⁻¹)) over S = diag(D) + UUᵀ, by steps along Fisher-nearest tangents.

    target: Ŝ (d, d), positive definite. start: where the search begins, if it has the full rank; else at principal
    components of Ŝ in units of the diagonal of Ŝ⁻¹.
    """
    at = _first(target, rank) if start is None or not np.linalg.norm(start.factor, axis=0).all() else start
    value = _objective(at, target)
    for _ in range(NEAREST_STEPS):
        seen = at.seen(target - at.matrix)
        delta, v = at.tangent(seen)
        assert at.covariance is not None
        white = at.covariance @ at.matrix_of(delta, v)
        length = np.sqrt(max(0.5 * float(np.sum(white * white.T)), 0.0))
        step, found = 1.0, None
        while step > 1e-6:
            tried = at.moved(delta, v, step)
            new = _objective(tried, target)
            # the slope along the tangent is −2 length²
            if new <= value - 0.1 * step * length**2 or (length < 1e-5 and new < np.inf):
                found, value = tried, new
                break
            step *= 0.5
        if found is None:
            break
        at = found
        if length < NEAREST:
            break
    return at


def _objective(at: LowRank, target: Array) -> float:
    """log det S + tr(Ŝ S⁻¹); infinite where S is not positive definite."""
    if at.covariance is None:
        return float("inf")
    return float(np.linalg.slogdet(at.matrix)[1] + np.sum(target * at.covariance))


def _first(target: Array, rank: int) -> LowRank:
    """The scaled principal components: D = 1/diag(Ŝ⁻¹), U D-scaled eigenvectors of eigenvalues above 1."""
    diagonal = 1.0 / np.diag(np.linalg.inv(target))
    root = np.sqrt(diagonal)
    values, vectors = eigh(target / np.outer(root, root), subset_by_index=[len(root) - rank, len(root) - 1])
    return LowRank(diagonal, root[:, None] * vectors * np.sqrt(np.maximum(values - 1.0, 0.0)))


class LowRankNatural(FactoredNatural):
    """λ that knows its D and U, or finds them where it comes without."""

    rank: int

    @cached_property
    def member(self) -> LowRank:
        """D and U."""
        matrix = self[1]
        if np.array_equal(matrix, np.diag(np.diag(matrix))):
            return LowRank(np.diag(matrix).copy(), np.zeros((len(matrix), self.rank)))
        return nearest(matrix, self.rank)


class LowRankFamily(FullGaussian):
    """Gaussians with S = diag(D) + UUᵀ; λ_k, η_k and sums are those of the full Gaussian."""

    # rounds overshoot along the correlations that are lost, as under the diagonal family
    mixed_damping = 0.7

    keeps_curvature = False

    @property
    def rank(self) -> int:
        """r."""
        return int(self.ns.rank)

    def structured(self, operator: Precision) -> Precision:
        """A number or a diagonal: U = 0."""
        return MatrixPrecision(np.diag(DiagonalPrecision.adopted(operator).diagonal), operator.dim)

    def parameter(self, slots: Sequence[Array]) -> LowRankNatural:
        """λ that carries its factor, and knows D and U."""
        if isinstance(slots, LowRankNatural):
            return slots
        found = LowRankNatural.of(slots, self.operator.like)
        found.rank = self.rank
        return found

    def _of(self, xi: Array, member: LowRank) -> LowRankNatural:
        found = self.parameter((xi, member.matrix))
        found.__dict__["member"] = member
        return found

    def closest(self, natural: Natural, before: Natural) -> Natural:
        """The member with the least KL(q‖λ), searched from the one before."""
        mean = self.posterior(self.parameter(natural)).mean
        member = nearest(natural[1], self.rank, self.parameter(before).member)
        return self._of(member.matrix @ mean, member)

    def pack(self, natural: Natural) -> Array:
        """ξ, D and U."""
        member = self.parameter(natural).member
        return np.concatenate([natural[0], member.diagonal, member.factor.ravel()])

    def _slots(self, message: Array) -> Natural:
        xi, diagonal, factor = np.split(message, [self.dim, 2 * self.dim])
        return self._of(xi, LowRank(diagonal, factor.reshape(self.dim, self.rank)))

    def pack_sum(self, total: Natural, at: Natural) -> Array:
        """What the tangents at λ_g see: x − Bm, diag(ΣBΣ), ΣBΣU."""
        here = self.parameter(at)
        moved = total[0] - total[1] @ self.posterior(here).mean
        return np.concatenate([moved, here.member.seen(total[1])])

    def unpack_sum(self, message: Array, at: Natural, rest: Natural) -> Natural:
        """A sum that the tangents at λ_g see as the clients'."""
        self._check_size(message)
        here = self.parameter(at)
        matrix = here.member.completed(message[self.dim :])
        return message[: self.dim] + matrix @ self.posterior(here).mean, matrix


@dataclass(frozen=True)
class LowRankGaussian(Choice):
    """Gaussians with precision diag(D) + UUᵀ, U (d, rank). Raises `ValueError` for a rank that is not in 1..d."""

    rank: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", positive_integer(self.rank, "rank"))

    def bind(self, prior: Distribution) -> FamilyGeometry:
        """The family with its prior, whose precision is a number or a diagonal."""
        if self.rank > prior.dim:
            raise ValueError(f"rank: expected at most {prior.dim} (the prior's length), got {self.rank}")
        return LowRankFamily(LowRankKernels(self.rank), prior)


class LowRankKernels(RenamedKernels):
    """The full Gaussian's kernels, with the rank."""

    NAME, BASE = "low_rank_gaussian", "full_gaussian"
    STANDARD, FIXED = ("mean", "precision"), ()

    def __init__(self, rank: int) -> None:
        self.rank = rank


STRUCTURE, CHOICE, KERNELS = LowRankFamily, LowRankGaussian, LowRankKernels
