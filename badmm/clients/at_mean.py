"""Losses that are taken at the posterior's mean (delta method): Newton's method on the mean, with few curvatures.

    F(m) = ∇ℓ(m)/ρ + S_c m − ξ_c = 0,   S = S_c + ∇²ℓ(m)/ρ                 (ξ_c, S_c) the cavity

The mean solves an equation of its own, and the precision follows from it. ∇²ℓ costs d times as much as ∇ℓ, and a factor
d³/3. S_g = S_c − η_S/ρ is that precision with the curvature of the client's last solution in place of ∇²ℓ(m), and its
factor serves all clients. So steps are Newton's with the precision at hand, S_g first, while they shorten F well;
∇²ℓ is evaluated where they do not, where a step is long, and at the solution. Near the rounds' fixed point a client
costs one ∇²ℓ and one factor per round, as in federated Newton.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from badmm.checks import Array
from badmm.clients.problem import EPSILON, ClientProblem, Evaluation, Slope
from badmm.clients.tolerance import FAR, LOST_RESIDUAL, ROUNDINGS, SMALL, STALLED, Tolerance
from badmm.families.distributions import Gaussian
from badmm.families.family import Natural
from badmm.families.gaussian import GaussianFamily
from badmm.families.matrix_precision import MatrixPrecision
from badmm.families.precision import Precision

SHORTEST = 1e-4
"""Shares of a Newton step below this are no steps: other searches take over."""
STALE = 0.1
"""A step that shortens F by less than to this share asks for the curvature anew: four gradients cost about as much."""


@dataclass(frozen=True)
class Solved:
    """λ_k, the residual ‖F‖ in posterior standard deviations, and whether that would fall with more evaluations."""

    natural: Natural
    residual: float
    early: bool


class MeanSearch:
    """The search for one client's mean, from the client at λ_g."""

    def __init__(self, problem: ClientProblem, tolerance: Tolerance, start: Slope) -> None:
        assert isinstance(problem.family, GaussianFamily)
        self.problem, self.family, self.tolerance, self.at = problem, problem.family, tolerance, start
        self.known = start if isinstance(start, Evaluation) else None
        """The last point with its curvature."""
        self._xi, self._cavity = self.family.canonical(problem.cavity)
        self._from = start.posterior.mean
        self._precision: Precision = self.family.operator
        self._metric: MatrixPrecision | None = None
        self._fresh, self._ratio = False, 0.0

    def run(self) -> Solved | None:
        """The solution; None where the steps end before it, and others may go on from what is `known`."""
        share = 1.0
        if not self._begin():
            return None
        while True:
            slope = self._slope(self.at)
            step, length = self._newton(slope)
            early = self._is_early(length)
            if early or self._is_rounding(length, slope):
                if self._fresh or not self.family.precision_varies:
                    return self._solved(length, early)
                if not self._renew():
                    return None
                continue
            whole = length > FAR or not self.problem.bound.gives_slope
            if not np.isfinite(length) or share < SHORTEST or self._spent(whole):
                return None
            there = self._tried(self.at.posterior.mean - share * step, whole)
            if there is not None and self._accepts(there, length):
                self.at, self._fresh = there, False
                share = min(1.0, 4.0 * share)
                if (isinstance(there, Evaluation) or self._ratio > STALE) and not self._renew():
                    return None
            elif not self._fresh:
                if not self._renew():
                    return None
            elif there is None or length > FAR:
                share *= 0.25
            else:
                return None  # F falls no further

    def _begin(self) -> bool:
        """Take S_g for the precision where it has a curvature of the client's, else evaluate that."""
        knows = self.family.keeps_curvature and bool(self.problem.dual[1].any())
        if isinstance(self.at, Evaluation) or not knows:
            return self._renew()
        metric = self.family.canonical(self.problem.natural_global)[1]
        assert isinstance(metric, MatrixPrecision)
        self._precision = self._metric = metric
        return True

    def _renew(self) -> bool:
        """Take the precision that belongs to the mean, with the client's curvature there; whether it is definite."""
        if not isinstance(self.at, Evaluation):
            if self._spent(True):
                return False
            there = self.problem.try_at(self._gaussian(self.at.posterior.mean))
            if there is None:
                return False
            self.at = there
        self.known = self.at
        if self.at.curvature is None:
            return False
        rho, precision = self.problem.rho, self._cavity
        if self.family.precision_varies:
            assert self.at.hessian is not None
            precision = precision.shifted(self.at.hessian / rho)
        metric = precision
        if not self.family.keeps_curvature:
            metric = MatrixPrecision(self._cavity.plus(self.at.curvature / rho), self.family.dim)
        assert isinstance(metric, MatrixPrecision)
        self._precision, self._metric, self._fresh = precision, metric, True
        return metric.is_definite and precision.is_definite

    def _spent(self, whole: bool) -> bool:
        """Whether no evaluation is left, or none beside the first of ∇²ℓ."""
        kept = not whole and self.known is None
        return self.problem.evaluations + kept >= self.tolerance.max_evaluations

    def _gaussian(self, mean: Array) -> Gaussian:
        """Any Gaussian with this mean: its precision does not matter to the client."""
        q = self.at.posterior
        assert isinstance(q, Gaussian)
        return Gaussian.of(mean, q.operator)

    def _tried(self, mean: Array, whole: bool) -> Slope | None:
        q = self._gaussian(mean)
        return self.problem.try_at(q) if whole else self.problem.try_slope(q)

    def _slope(self, at: Slope) -> Array:
        """F(m)."""
        assert at.gradient is not None
        return np.asarray(at.gradient / self.problem.rho + self._cavity.matvec(at.posterior.mean) - self._xi)

    def _newton(self, slope: Array) -> tuple[Array, float]:
        """The step −F′⁻¹F but for its sign, and the length of F in posterior standard deviations."""
        assert self._metric is not None
        step = self._metric.solve(slope)
        if self._metric is self._precision:
            return step, float(np.sqrt(max(0.0, float(slope @ step))))
        return step, float(np.linalg.norm(self._precision.root_transpose(slope)))

    def _accepts(self, there: Slope, length: float) -> bool:
        """Whether a step from `at`, of whose Newton step this is the length, leads on: far from the solution by the
        objective in the mean, near it by F, which does not cancel.
        """
        _, after = self._newton(self._slope(there))
        ratio = after / length
        if length > FAR:
            accepted = self.problem.objective(there) < self.problem.objective(self.at)
        else:
            accepted = ratio < 1.0
        if accepted:
            self._ratio = ratio
        return accepted

    def _is_early(self, length: float) -> bool:
        """Whether a residual is within the relative tolerance of how far the mean has moved."""
        if length > self.tolerance.relative * FAR:
            return False
        moved = self.at.posterior.mean - self._from
        return length <= self.tolerance.relative * float(np.sqrt(moved @ self._precision.matvec(moved)))

    def _is_rounding(self, length: float, slope: Array) -> bool:
        """Whether a residual is within the absolute tolerance, or cannot be told from 0."""
        if length <= self.tolerance.absolute:
            return True
        if not length < (LOST_RESIDUAL if self._ratio > STALLED else SMALL):
            return False
        assert self._metric is not None and self.at.gradient is not None
        size = np.abs(self.at.posterior.mean)
        cavity = self._cavity.times(np.abs(self._cavity.array), size)
        terms = np.abs(self.at.gradient) / self.problem.rho + np.abs(self._xi) + cavity
        error = EPSILON * (terms + np.abs(self._metric.array) @ size)
        return length <= ROUNDINGS * self._newton(np.where(slope < 0, -error, error))[1]

    def _solved(self, length: float, early: bool) -> Solved:
        natural = self.family.natural(Gaussian.of(self.at.posterior.mean, self._precision))
        return Solved(natural, length, early)
