"""Newton's method for a client's problem in charts where a convex loss makes it convex.

Gaussians: θ = m + C(u + (I + W) z) around the iterate, C = S^{-1/2}, W lower triangular within the structure of the
precision (diagonal under a diagonal one, absent where it is fixed). E[ℓ] is convex in (u, W) for convex ℓ (Challis &
Barber, JMLR 2013, section 3), so is ρ KL, and their gradient needs only E[∇ℓ] and E[∇²ℓ] (Stein):

    F_u = Cᵀ(E[∇ℓ]/ρ + S_c m − ξ_c)
    F_W = tril(Cᵀ(E[∇²ℓ]/ρ + S_c)C (I + W)) − diag(1/(1 + W_ii))

Other families: unconstrained coordinates x of λ; F is the residual of the map over dλ/dx. Jacobian products are finite
differences of F inside GMRES, so any client will do; the line search lowers ‖F‖, which for a strictly convex problem
always succeeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, gmres

from badmm.checks import Array
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factorised import Factorised
from badmm.families.factorising import FactorisingFamily, SlotChart
from badmm.families.family import Natural
from badmm.families.gaussian import GaussianFamily

DIFFERENCE = 1e-6
"""Length of the finite difference in chart units, where the posterior has unit scale."""
STEPS = 50
LONGEST = 50.0
"""Steps of a coordinate beyond this are refused: e⁵⁰ times the iterate is no local move."""


class LocalChart(ABC):
    """Local coordinates x around one distribution, x = 0 at its centre, and the equations F(x) = 0."""

    size: int

    @abstractmethod
    def distribution(self, x: Array) -> Distribution | None:
        """The distribution at x; None outside the chart."""

    @abstractmethod
    def equations(self, x: Array, at: Evaluation) -> Array:
        """F at x, given the client's answer there."""

    def precondition(self, f: Array) -> Array:
        """An approximation of F′(0)⁻¹ f."""
        return f


class MomentChart(LocalChart):
    """(u, W) around a Gaussian, W within the structure of its precision."""

    def __init__(self, problem: ClientProblem, family: GaussianFamily, center: Evaluation) -> None:
        q = center.posterior
        assert isinstance(q, Gaussian)
        self.family, self.center, self.rho, self.d = family, q, problem.rho, q.dim
        self.size = q.dim + q.operator.spread_size
        self._xi, self._cavity = family.canonical(problem.cavity)
        self._mean_factor = self._factor(center)

    def _factor(self, at: Evaluation) -> tuple[Array, bool] | None:
        """Cholesky factor of the mean's block of F′(0), where the whole Hessian is known and it is definite."""
        if at.curvature is None:
            return None
        try:
            return cho_factor(self.center.operator.congruence(self._cavity.plus(at.curvature / self.rho)), lower=True)
        except np.linalg.LinAlgError:
            return None

    def distribution(self, x: Array) -> Distribution | None:
        """m + C u and covariance C(I+W)(I+W)ᵀCᵀ; None where 1 + W_ii is not positive."""
        if not np.isfinite(x).all():
            return None
        operator = self.center.operator.spread(x[self.d :])
        return (
            None
            if operator is None
            else Gaussian.of(self.center.mean + self.center.operator.root(x[: self.d]), operator)
        )

    def equations(self, x: Array, at: Evaluation) -> Array:
        """(F_u, F_W) at x."""
        q, operator = at.posterior, self.center.operator
        assert isinstance(q, Gaussian)
        gradient, hessian = at.gradient, at.hessian
        if gradient is None:
            gradient, hessian = self.family.moments(at.natural_gradient, q)
        slope = operator.root_transpose(gradient / self.rho + self._cavity.matvec(q.mean) - self._xi)
        if operator.spread_size == 0:
            return slope
        assert hessian is not None
        target = self._cavity.shifted(hessian / self.rho).array
        return np.concatenate([slope, operator.spread_equations(x[self.d :], target)])

    def precondition(self, f: Array) -> Array:
        """The mean's block exactly, half the rest: near the solution −diag(1/(1+W)) and the product each give 1."""
        out = np.array(f)
        if self._mean_factor is not None:
            out[: self.d] = cho_solve(self._mean_factor, f[: self.d])
        return out


class NaturalChart(LocalChart):
    """Steps in the family's unconstrained coordinates of λ."""

    def __init__(self, problem: ClientProblem, family: FactorisingFamily, center: Evaluation) -> None:
        q = center.posterior
        assert isinstance(q, Factorised)
        self.problem = problem
        self._chart = SlotChart(family, q)
        self._origin = self._chart.of_natural(center.natural)
        self.size = len(self._origin)

    def distribution(self, x: Array) -> Distribution | None:
        """The distribution at the origin's coordinates plus x; None where that leaves the number range."""
        if not (np.abs(x) < LONGEST).all():
            return None
        found = self._chart.point(self._origin + x)
        return None if found is None else found[1]

    def equations(self, x: Array, at: Evaluation) -> Array:
        """(λ − map(λ)) over dλ/dx."""
        slots = zip(at.natural, self.problem.target(at), self._chart.derivative(at.natural), strict=True)
        return np.concatenate([(here - goal) / unit for here, goal, unit in slots])


def _chart(problem: ClientProblem, center: Evaluation) -> LocalChart:
    family = problem.family
    if isinstance(family, GaussianFamily):
        return MomentChart(problem, family, center)
    assert isinstance(family, FactorisingFamily)
    return NaturalChart(problem, family, center)


def newton(problem: ClientProblem, start: Evaluation, max_evaluations: int) -> Iterator[Evaluation]:
    """Iterates from `start` with falling ‖F‖; ends where no step lowers it or the evaluations are spent."""
    at = start
    for _ in range(STEPS):
        chart = _chart(problem, at)
        zero = np.zeros(chart.size)
        f = chart.equations(zero, at)
        direction = _direction(problem, chart, f, max_evaluations)
        found = _line_search(problem, chart, f, direction, max_evaluations)
        if found is None:
            return
        at = found
        yield at


def _evaluate(problem: ClientProblem, chart: LocalChart, x: Array) -> tuple[Evaluation, Array] | None:
    q = chart.distribution(x)
    if q is None:
        return None
    try:
        natural: Natural = problem.family.natural(q)
    except ValueError:
        # a trial precision that is definite in exact arithmetic but not after rounding
        return None
    at = problem.try_evaluate(natural, q)
    return None if at is None else (at, chart.equations(x, at))


def _direction(problem: ClientProblem, chart: LocalChart, f: Array, max_evaluations: int) -> Array:
    """−F′⁻¹F by preconditioned GMRES, to a tolerance that tightens with ‖F‖ (Eisenstat & Walker 1996)."""

    def product(v: Array) -> Array:
        size = float(np.linalg.norm(v))
        if size == 0 or problem.evaluations >= max_evaluations:
            return np.array(v)
        step = DIFFERENCE / size
        there = _evaluate(problem, chart, step * v)
        return np.array(v) if there is None else (there[1] - f) / step

    n = chart.size
    operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
    inverse = LinearOperator((n, n), matvec=chart.precondition, dtype=np.float64)
    forcing = min(0.1, max(1e-4, float(np.linalg.norm(f))))
    solution, _ = gmres(operator, -f, M=inverse, rtol=forcing, restart=min(n, 25), maxiter=1)
    return np.asarray(solution)


def _line_search(
    problem: ClientProblem, chart: LocalChart, f: Array, direction: Array, max_evaluations: int
) -> Evaluation | None:
    size = float(np.linalg.norm(f))
    t = 1.0
    while t > 1e-6 and problem.evaluations < max_evaluations:
        found = _evaluate(problem, chart, t * direction)
        if found is not None and float(np.linalg.norm(found[1])) < size * (1 - 1e-4 * t):
            return found[0]
        t *= 0.5
    return None
