"""Local coordinates x around a client's iterate, and the gradient F(x) of its objective over ρ in them.

Gaussians: mean m + C u and covariance C(I + W + Wᵀ)Cᵀ around the iterate, C = S^{-1/2}, W lower triangular within the
structure of the precision (diagonal under a diagonal one, absent where it is fixed). The gradient needs only E[∇ℓ] and
E[∇²ℓ] (Bonnet, Price):

    F_u = Cᵀ(E[∇ℓ]/ρ + S_c m − ξ_c)
    F_W = tril(Cᵀ(E[∇²ℓ]/ρ + S_c)C − (I + W + Wᵀ)⁻¹)

For a convex ℓ the objective is convex in the mean and a Cholesky factor of the covariance (Challis & Barber, JMLR 2013,
section 3): it has one stationary point, in these coordinates too. A covariance is linear in them, and so is the log of
E[e^a] = exp(p + v/2): the valley along which a site without events widens is straight.

Other families: unconstrained coordinates x of λ, F = (dλ/dx)ᵀ F(λ) (λ − map(λ)), F(λ) the Fisher information. Either
way a unit of x is about a posterior standard deviation, whatever the units of θ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from badmm.checks import Array
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factorised import Factorised
from badmm.families.factorising import FactorisingFamily, SlotChart
from badmm.families.gaussian import GaussianFamily

LONGEST = 50.0
"""Steps of a coordinate beyond this are refused: e⁵⁰ times the iterate is no local move."""


class LocalChart(ABC):
    """Local coordinates around one evaluation, x = 0 at its distribution."""

    size: int
    hessian: Array | None = None
    """F′(0) where it is known exactly and needs no evaluation."""

    @abstractmethod
    def distribution(self, x: Array) -> Distribution | None:
        """The distribution at x; None outside the chart."""

    @abstractmethod
    def equations(self, x: Array, at: Evaluation) -> Array:
        """F at x, given the client's answer there."""

    @abstractmethod
    def precondition(self, f: Array) -> Array:
        """M⁻¹ f for a positive definite M near F′(0)."""


class MeanChart(LocalChart):
    """u alone, m + C u at the iterate's own precision."""

    def __init__(self, problem: ClientProblem, family: GaussianFamily, center: Evaluation) -> None:
        q = center.posterior
        assert isinstance(q, Gaussian)
        self.family, self.center, self.rho, self.d = family, q, problem.rho, q.dim
        self.size = q.dim
        self._xi, self._cavity = family.canonical(problem.cavity)
        self._inverse: tuple[Array, bool] | None = None
        if center.curvature is not None:
            self.hessian = q.operator.congruence(self._cavity.plus(center.curvature / self.rho))
            # where a loss is not convex the trust region alone bounds the step
            with suppress(np.linalg.LinAlgError):
                self._inverse = cho_factor(self.hessian, lower=True)

    def distribution(self, x: Array) -> Distribution | None:
        """m + C u."""
        return self._at_mean(x, self.center) if np.isfinite(x).all() else None

    def _at_mean(self, u: Array, shape: Gaussian) -> Gaussian:
        return Gaussian.of(self.center.mean + self.center.operator.root(u), shape.operator)

    def equations(self, x: Array, at: Evaluation) -> Array:
        """F_u."""
        return self._slope(at, self._moments(at)[0])

    def _moments(self, at: Evaluation) -> tuple[Array, Array | None]:
        """E[∇ℓ] and the structure's part of E[∇²ℓ]."""
        assert isinstance(at.posterior, Gaussian)
        if at.gradient is not None:
            return at.gradient, at.hessian
        return self.family.moments(at.natural_gradient, at.posterior)

    def _slope(self, at: Evaluation, gradient: Array) -> Array:
        assert isinstance(at.posterior, Gaussian)
        slope = gradient / self.rho + self._cavity.matvec(at.posterior.mean) - self._xi
        return self.center.operator.root_transpose(slope)

    def precondition(self, f: Array) -> Array:
        """By the factor of F′, where it has one."""
        return np.asarray(f if self._inverse is None else cho_solve(self._inverse, f))


class MomentChart(MeanChart):
    """(u, W) around a Gaussian whose precision varies, W within its structure."""

    def __init__(self, problem: ClientProblem, family: GaussianFamily, center: Evaluation) -> None:
        super().__init__(problem, family, center)
        self.hessian = None  # that of W is not known
        self.size += self.center.operator.spread_size
        self._scale = self.center.operator.spread_curvature

    def _target(self, hessian: Array | None) -> Array:
        """E[∇²ℓ]/ρ + S_c."""
        assert hessian is not None
        return self._cavity.shifted(hessian / self.rho).array

    def distribution(self, x: Array) -> Distribution | None:
        """m + C u and covariance C(I + W + Wᵀ)Cᵀ; None where that is not positive definite."""
        if not np.isfinite(x).all():
            return None
        operator = self.center.operator.spread(x[self.d :])
        return None if operator is None else self._at_mean(x[: self.d], Gaussian.of(self.center.mean, operator))

    def equations(self, x: Array, at: Evaluation) -> Array:
        """(F_u, F_W)."""
        gradient, hessian = self._moments(at)
        spread = self.center.operator.spread_equations(x[self.d :], self._target(hessian))
        return np.concatenate([self._slope(at, gradient), spread])

    def precondition(self, f: Array) -> Array:
        """The mean's block exactly, W's at a constant E[∇²ℓ]."""
        return np.concatenate([super().precondition(f[: self.d]), f[self.d :] / self._scale])


class NaturalChart(LocalChart):
    """Steps in the family's unconstrained coordinates of λ."""

    def __init__(self, problem: ClientProblem, family: FactorisingFamily, center: Evaluation) -> None:
        q = center.posterior
        assert isinstance(q, Factorised)
        self.problem, self.family = problem, family
        chart = family.chart(q)
        assert isinstance(chart, SlotChart)
        self._chart = chart
        self._origin = self._chart.of_natural(center.natural)
        self.size = len(self._origin)
        # the Hessian of ρ KL over ρ, a small matrix per coordinate of θ
        roots = chart.roots(center.natural)
        self._metric = np.einsum("jip,kip->pjk", roots, roots)

    def distribution(self, x: Array) -> Distribution | None:
        """The distribution at the origin's coordinates plus x; None where that leaves the number range."""
        if not (np.abs(x) < LONGEST).all():
            return None
        found = self._chart.point(self._origin + x)
        return None if found is None else found[1]

    def equations(self, x: Array, at: Evaluation) -> Array:
        """(dλ/dx)ᵀ F (λ − map(λ))."""
        change = tuple(here - goal for here, goal in zip(at.natural, self.problem.target(at), strict=True))
        whitened = np.stack(self.family.ns.whiten(at.natural, change, **self.family.fixed))
        return np.asarray(np.einsum("jip,ip->jp", self._chart.roots(at.natural), whitened)).ravel()

    def precondition(self, f: Array) -> Array:
        """By the Fisher information of each coordinate."""
        return np.linalg.solve(self._metric, f.reshape(-1, len(self._metric)).T[:, :, None])[:, :, 0].T.ravel()


def chart_around(problem: ClientProblem, center: Evaluation) -> LocalChart:
    """The chart of a problem's family."""
    family = problem.family
    if isinstance(family, GaussianFamily):
        return (MomentChart if family.precision_varies else MeanChart)(problem, family, center)
    assert isinstance(family, FactorisingFamily)
    return NaturalChart(problem, family, center)


def mean_chart(problem: ClientProblem, center: Evaluation) -> LocalChart:
    """The chart of a Gaussian's mean, its precision held."""
    assert isinstance(problem.family, GaussianFamily)
    return MeanChart(problem, problem.family, center)
