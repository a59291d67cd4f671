"""Classic consensus ADMM, written from the textbook alone, to hold the solver's isotropic family against.

Boyd, Parikh, Chu, Peleato, Eckstein, *Distributed Optimization and Statistical Learning via ADMM*, 2011, section 7.1.1
(global variable consensus with regularization), scaled form, the global block first in every round:

    z    ← argmin g(z) + (K r/2) ‖z − mean_k(x_k + u_k)‖²      g(z) = (s/2) ‖z − m_0‖²
    x_k  ← argmin f_k(x) + (r/2) ‖x − z + u_k‖²
    u_k  ← u_k + x_k − z

from x_k = m_0, u_k = 0, so that the first z is m_0. r is the penalty, s the prior precision. All clients are stepped
together: rows are padded with zero weights to one length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ..problems import SuiteProblem

Array = NDArray[np.float64]


class Losses(Protocol):
    """K losses f_k with their gradients (K, d) and Hessians (K, d, d) at x (K, d)."""

    def derivatives(self, x: Array) -> tuple[Array, Array]:
        """Gradients and Hessians."""
        ...


@dataclass(frozen=True)
class QuadraticLosses:
    """f_k(x) = ½ xᵀH_k x − b_kᵀx, H (K, d, d), b (K, d)."""

    H: Array
    b: Array

    def derivatives(self, x: Array) -> tuple[Array, Array]:
        """H x − b and H."""
        return np.einsum("kij,kj->ki", self.H, x) - self.b, self.H


@dataclass(frozen=True)
class _Padded:
    """Rows X (K, n, p), targets y (K, n) and weights (K, n) that are 0 on padding."""

    X: Array
    y: NDArray[Any]
    weight: Array

    @classmethod
    def of(cls, X: Sequence[Array], y: Sequence[NDArray[Any]]) -> _Padded:
        longest = max(len(targets) for targets in y)
        rows = np.zeros((len(X), longest, X[0].shape[1]))
        targets, weight = np.zeros((len(X), longest), dtype=y[0].dtype), np.zeros((len(X), longest))
        for k, (features, labels) in enumerate(zip(X, y, strict=True)):
            rows[k, : len(labels)], targets[k, : len(labels)], weight[k, : len(labels)] = features, labels, 1.0
        return cls(rows, targets, weight)


@dataclass(frozen=True)
class LogisticLosses:
    """f_k(x) = Σ log(1 + eᵃ) − y a, a = X x."""

    data: _Padded

    def derivatives(self, x: Array) -> tuple[Array, Array]:
        """Xᵀ(σ(a) − y) and Xᵀ diag(σ(a)σ(−a)) X."""
        X = self.data.X
        a = np.einsum("knp,kp->kn", X, x)
        slope = self.data.weight * (expit(a) - self.data.y)
        curvature = self.data.weight * expit(a) * expit(-a)
        return np.einsum("knp,kn->kp", X, slope), np.matmul((X * curvature[..., None]).transpose(0, 2, 1), X)


@dataclass(frozen=True)
class PoissonLosses:
    """f_k(x) = Σ eᵃ − y a, a = X x."""

    data: _Padded

    def derivatives(self, x: Array) -> tuple[Array, Array]:
        """Xᵀ(eᵃ − y) and Xᵀ diag(eᵃ) X; entries that overflow are infinite."""
        X = self.data.X
        with np.errstate(over="ignore", invalid="ignore"):
            rate = self.data.weight * np.exp(np.einsum("knp,kp->kn", X, x))
            slope = rate - self.data.weight * self.data.y
            return np.einsum("knp,kn->kp", X, slope), np.matmul((X * rate[..., None]).transpose(0, 2, 1), X)


@dataclass(frozen=True)
class SoftmaxLosses:
    """f_k(x) = −Σ log softmax(X Θ)_y with x = Θ (p, C) flattened row-major."""

    data: _Padded
    num_classes: int

    def derivatives(self, x: Array) -> tuple[Array, Array]:
        """Blocks Σ_i x_i x_iᵀ (p_c δ_cc' − p_c p_c')."""
        X, classes = self.data.X, self.num_classes
        clients, _, p = X.shape
        logits = np.matmul(X, x.reshape(clients, p, classes))
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        odds /= odds.sum(axis=-1, keepdims=True)
        error = (odds - np.eye(classes)[self.data.y]) * self.data.weight[..., None]
        odds *= self.data.weight[..., None]
        H = np.zeros((clients, p, classes, p, classes))
        for c in range(classes):
            for other in range(c + 1):
                # the weights are 0 or 1, so that both factors may carry them
                mixed = odds[..., c] * ((c == other) - odds[..., other])
                H[:, :, c, :, other] = np.matmul((X * mixed[..., None]).transpose(0, 2, 1), X)
                H[:, :, other, :, c] = H[:, :, c, :, other]
        gradient = np.matmul(X.transpose(0, 2, 1), error)
        return gradient.reshape(clients, -1), H.reshape(clients, p * classes, p * classes)


@dataclass(frozen=True)
class GroupedLosses:
    """Clients of similar sizes batched together, so that little of a batch is padding."""

    groups: tuple[tuple[NDArray[np.intp], Losses], ...]

    def derivatives(self, x: Array) -> tuple[Array, Array]:
        """Gradients and Hessians, in the clients' own order."""
        slope, H = np.empty_like(x), np.empty((*x.shape, x.shape[1]))
        for members, losses in self.groups:
            slope[members], H[members] = losses.derivatives(x[members])
        return slope, H


def losses_of(problem: SuiteProblem) -> Losses:
    """The clients' losses of a problem of the suite."""
    # sizes within a factor of two share a batch
    scale = np.array([int(np.log2(len(y))) for y in problem.y])
    groups = []
    for value in np.unique(scale):
        members = np.flatnonzero(scale == value)
        padded = _Padded.of([problem.X[k] for k in members], [problem.y[k] for k in members])
        groups.append((members, _losses(problem, padded)))
    return GroupedLosses(tuple(groups))


def _losses(problem: SuiteProblem, padded: _Padded) -> Losses:
    if problem.kind == "logistic":
        return LogisticLosses(padded)
    return PoissonLosses(padded) if problem.kind == "poisson" else SoftmaxLosses(padded, problem.num_classes)


def proximal(losses: Losses, centre: Array, penalty: float, start: Array, tolerance: float = 0.0) -> Array:
    """argmin f_k(x) + (r/2) ‖x − centre_k‖² for every client by Newton steps, halved where the gradient does not fall.

    A client is done where a step is at most `tolerance` relative to its iterate, or cannot lower the gradient any more
    (at the default 0: machine precision).
    """
    x = start.copy()
    ridge = penalty * np.eye(x.shape[1])

    def gradient(x: Array) -> tuple[Array, Array]:
        slope, H = losses.derivatives(x)
        return slope + penalty * (x - centre), H

    slope, H = gradient(x)
    active = np.ones(len(x), dtype=bool)
    for _ in range(100):
        step = np.zeros_like(x)
        step[active] = np.linalg.solve(H[active] + ridge, slope[active][..., None])[..., 0]
        size = np.where(active, 1.0, 0.0)
        norm = np.linalg.norm(slope, axis=1)
        while True:
            trial = x - size[:, None] * step
            trial_slope, trial_H = gradient(trial)
            with np.errstate(invalid="ignore"):
                worse = active & ~(np.linalg.norm(trial_slope, axis=1) < norm) & (size > 0)
            if not worse.any():
                break
            size[worse] *= 0.5
            size[size < 1e-3] = 0.0
        moved = size > 0
        x, slope, H = trial, trial_slope, trial_H
        active &= moved & (np.linalg.norm(step, axis=1) > tolerance * np.linalg.norm(x, axis=1))
        if not active.any():
            break
    return x


@dataclass
class Iterate:
    """A round's z (d,), the clients' x (K, d) and scaled duals u (K, d) after it, and the next round's z."""

    round: int
    global_used: Array
    local: Array
    dual: Array
    global_next: Array


@dataclass
class ConsensusADMM:
    """The iteration; `penalty` is r, `prior_precision` s. Iterating yields one `Iterate` a round, for ever."""

    losses: Losses
    num_clients: int
    prior_mean: Array
    prior_precision: float
    penalty: float
    tolerance: float = 0.0
    local: Array = field(init=False)
    dual: Array = field(init=False)

    def __post_init__(self) -> None:
        self.local = np.tile(self.prior_mean, (self.num_clients, 1))
        self.dual = np.zeros_like(self.local)

    def global_block(self) -> Array:
        """z = (s m_0 + r Σ_k (x_k + u_k)) / (s + K r)."""
        s, r = self.prior_precision, self.penalty
        total = np.sum(self.local + self.dual, axis=0)
        return np.asarray((s * self.prior_mean + r * total) / (s + self.num_clients * r))

    def __iter__(self) -> Iterator[Iterate]:
        number = 0
        while True:
            number += 1
            z = self.global_block()
            self.local = proximal(self.losses, z - self.dual, self.penalty, self.local, self.tolerance)
            self.dual = self.dual + self.local - z
            yield Iterate(number, z, self.local, self.dual, self.global_block())


CLASSIC_LIMIT = 500
"""Rounds after which a penalty is given up."""
PENALTY_GRID = tuple(float(f"{10 ** (step / 2):.3g}") for step in range(-2, 7))
"""Penalties that are tried when tuning: two a decade from 0.1 to 1000."""
REFINEMENT = (10**-0.25, 10**0.25)
"""Factors that are then tried on each level's best penalty."""


@dataclass(frozen=True)
class Tuned:
    """The fewest rounds over the grid to each distance and the penalty that needs them; None: none gets there."""

    levels: tuple[float, ...]
    rounds: tuple[int | None, ...]
    penalties: tuple[float | None, ...]


@dataclass
class _Contest:
    """The best penalty so far for each level, on one problem with minimiser `mode`."""

    problem: SuiteProblem
    mode: Array
    levels: tuple[float, ...]
    limit: int
    rounds: list[int | None] = field(init=False)
    penalties: list[float | None] = field(init=False)

    def __post_init__(self) -> None:
        self.losses = losses_of(self.problem)
        self.rounds, self.penalties = [None] * len(self.levels), [None] * len(self.levels)

    def enter(self, penalty: float) -> None:
        """Run one penalty until the last level, or until it has used the rounds of the best so far."""
        case = self.problem
        # Newton's error is about the square of its last step, here 1e-12
        admm = ConsensusADMM(
            self.losses, case.num_clients, np.zeros(case.dim), case.prior_precision, penalty, tolerance=1e-6
        )
        reached, size = 0, np.linalg.norm(self.mode)
        for iterate in itertools.islice(admm, (self.rounds[-1] or self.limit + 1) - 1):
            error = np.linalg.norm(iterate.global_next - self.mode) / size
            while reached < len(self.levels) and error <= self.levels[reached]:
                known = self.rounds[reached]
                if known is None or iterate.round < known:
                    self.rounds[reached], self.penalties[reached] = iterate.round, penalty
                reached += 1
            if reached == len(self.levels):
                break


def tune(
    problem: SuiteProblem,
    mode: Array,
    levels: tuple[float, ...] = (1e-3, 1e-8),
    grid: Sequence[float] = PENALTY_GRID,
    limit: int = CLASSIC_LIMIT,
) -> Tuned:
    """Rounds until ‖z − m*‖₂ ≤ level ‖m*‖₂ with the best penalty of the grid and its refinement, level by level.

    `mode` is the minimiser m* of the pooled problem; `levels` fall. A penalty is given up after `limit` rounds, or as
    soon as it has used as many as the best so far needed to the last level.
    """
    contest = _Contest(problem, mode, levels, limit)
    # from the middle of the grid outwards: a good penalty found early makes the others cheap
    for penalty in sorted(grid, key=lambda r: abs(np.log(r))):
        contest.enter(penalty)
    best = {penalty for penalty in contest.penalties if penalty is not None}
    for penalty in sorted(float(f"{r * factor:.3g}") for r in best for factor in REFINEMENT):
        contest.enter(penalty)
    return Tuned(levels, tuple(contest.rounds), tuple(contest.penalties))
