"""Newton's method for a client's problem in charts where a convex loss makes it convex.

Gaussians: θ = m + C(u + (I + W) z) around the iterate, C = L⁻ᵀ with S = LLᵀ, W lower triangular (diagonal family:
diagonal; isotropic: absent). E[ℓ] is convex in (u, W) for convex ℓ (Challis & Barber, JMLR 2013, section 3), so is
ρ KL, and their gradient needs only E[∇ℓ] and E[∇²ℓ] (Stein):

    F_u = Cᵀ(E[∇ℓ]/ρ + S_c m − ξ_c)
    F_W = tril(Cᵀ(E[∇²ℓ]/ρ + S_c)C (I + W)) − diag(1/(1 + W_ii))

Gamma: log shape, log rate; F is the residual of the map over λ. Jacobian products are finite differences of F inside
GMRES, so any client will do; the line search lowers ‖F‖, which for a strictly convex problem always succeeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.sparse.linalg import LinearOperator, gmres

from badmm.checks import Array
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.distributions import Distribution, Gamma, Gaussian
from badmm.families.family import Natural

DIFFERENCE = 1e-6
"""Length of the finite difference in chart units, where the posterior has unit scale."""
STEPS = 50


class Chart(ABC):
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


class GaussianChart(Chart):
    """(u, W) around a Gaussian."""

    def __init__(self, problem: ClientProblem, center: Evaluation) -> None:
        q = center.posterior
        assert isinstance(q, Gaussian)
        self.problem, self.center = problem, q
        self.rho = problem.rho
        d = q.dim
        self.kind = q.precision.ndim
        # C as a matrix for the full family, as a vector otherwise
        if self.kind == 2:
            self.root = q.inverse_cholesky.T
            self._lower = np.tril_indices(d)
        else:
            self.root = np.broadcast_to(1.0 / np.sqrt(q.precision), (d,))
        self.d = d
        self.size = d + (0, d, d * (d + 1) // 2)[self.kind]
        self._mean_factor = self._factor(center)

    def _factor(self, at: Evaluation) -> tuple[Array, bool] | None:
        """Cholesky factor of the mean's block of F′(0), where the whole Hessian is known and it is definite."""
        hessian = at.hessian
        if hessian is None or hessian.ndim != 2:
            return None
        block = self._congruence(hessian / self.rho + self._cavity_matrix())
        try:
            return cho_factor(block, lower=True)
        except np.linalg.LinAlgError:
            return None

    def _cavity_matrix(self) -> Array:
        if self.kind == 0:
            return self.center.precision * np.eye(self.d)
        precision = self.problem.cavity[1]
        return precision if precision.ndim == 2 else np.diag(precision)

    def _congruence(self, matrix: Array) -> Array:
        if self.kind == 2:
            return np.asarray(self.root.T @ matrix @ self.root)
        return np.asarray(self.root[:, None] * matrix * self.root)

    def distribution(self, x: Array) -> Distribution | None:
        """m + C u and covariance C(I+W)(I+W)ᵀCᵀ; None where 1 + W_ii is not positive."""
        d, w = self.d, x[self.d :]
        if not np.isfinite(x).all():
            return None
        if self.kind < 2:
            if (w <= -1).any():
                return None
            precision = self.center.precision / (1.0 + w) ** 2 if self.kind == 1 else self.center.precision
            return Gaussian._trusted(self.center.mean + self.root * x[:d], precision)
        inner = self._inner(w)
        if (np.diag(inner) <= 0).any():
            return None
        # (I+W)⁻¹ Lᵀ is a square root of the precision
        half = solve_triangular(inner, self.center.cholesky.T, lower=True)
        return Gaussian._trusted(self.center.mean + self.root @ x[:d], half.T @ half)

    def _inner(self, w: Array) -> Array:
        inner = np.eye(self.d)
        inner[self._lower] += w
        return inner

    def equations(self, x: Array, at: Evaluation) -> Array:
        """(F_u, F_W) at x."""
        q = at.posterior
        assert isinstance(q, Gaussian)
        gradient, hessian = _moments(at, q)
        cavity = q.precision if self.kind == 0 else self.problem.cavity[1]
        product = cavity @ q.mean if self.kind == 2 else cavity * q.mean
        slope = gradient / self.rho + product - self.problem.cavity[0]
        if self.kind == 0:
            return np.asarray(self.root * slope)
        w = x[self.d :]
        assert hessian is not None
        if self.kind == 1:
            diagonal = np.diag(hessian) if hessian.ndim == 2 else hessian
            spread = self.root**2 * (diagonal / self.rho + cavity) * (1.0 + w) - 1.0 / (1.0 + w)
            return np.concatenate([self.root * slope, spread])
        inner = self._inner(w)
        matrix = self._congruence(hessian / self.rho + cavity) @ inner
        matrix[np.diag_indices(self.d)] -= 1.0 / np.diag(inner)
        return np.concatenate([self.root.T @ slope, matrix[self._lower]])

    def precondition(self, f: Array) -> Array:
        """The mean's block exactly, half the rest: near the solution −diag(1/(1+W)) and the product each give 1."""
        out = np.array(f)
        if self._mean_factor is not None:
            out[: self.d] = cho_solve(self._mean_factor, f[: self.d])
        return out


class GammaChart(Chart):
    """Steps in log shape and log rate."""

    def __init__(self, problem: ClientProblem, center: Evaluation) -> None:
        q = center.posterior
        assert isinstance(q, Gamma)
        self.problem, self.center = problem, q
        self.size = 2 * q.dim

    def distribution(self, x: Array) -> Distribution | None:
        """shape·eˣ, rate·eʸ; None where that leaves the number range."""
        if not (np.abs(x) < 50).all():
            return None
        a, b = np.split(np.exp(x), 2)
        return Gamma._trusted(self.center.shape * a, self.center.rate * b)

    def equations(self, x: Array, at: Evaluation) -> Array:
        """(λ − map(λ)) / λ."""
        target = self.problem.target(at)
        return np.concatenate([(here - goal) / here for here, goal in zip(at.natural, target, strict=True)])


def _moments(at: Evaluation, q: Gaussian) -> tuple[Array, Array | None]:
    """E[∇ℓ], E[∇²ℓ], from the natural gradient where the client gave that: H = −∇₂, g = ∇₁ + H m."""
    if at.gradient is not None:
        return at.gradient, at.hessian
    if len(at.natural_gradient) == 1:
        return at.natural_gradient[0], None
    hessian = -at.natural_gradient[1]
    return at.natural_gradient[0] + (hessian @ q.mean if hessian.ndim == 2 else hessian * q.mean), hessian


def newton(problem: ClientProblem, start: Evaluation, max_evaluations: int) -> Iterator[Evaluation]:
    """Iterates from `start` with falling ‖F‖; ends where no step lowers it or the evaluations are spent."""
    at = start
    for _ in range(STEPS):
        chart: Chart = GammaChart(problem, at) if isinstance(at.posterior, Gamma) else GaussianChart(problem, at)
        zero = np.zeros(chart.size)
        f = chart.equations(zero, at)
        direction = _direction(problem, chart, f, max_evaluations)
        found = _line_search(problem, chart, f, direction, max_evaluations)
        if found is None:
            return
        at = found
        yield at


def _evaluate(problem: ClientProblem, chart: Chart, x: Array) -> tuple[Evaluation, Array] | None:
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


def _direction(problem: ClientProblem, chart: Chart, f: Array, max_evaluations: int) -> Array:
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
    problem: ClientProblem, chart: Chart, f: Array, direction: Array, max_evaluations: int
) -> Evaluation | None:
    size = float(np.linalg.norm(f))
    t = 1.0
    while t > 1e-6 and problem.evaluations < max_evaluations:
        found = _evaluate(problem, chart, t * direction)
        if found is not None and float(np.linalg.norm(found[1])) < size * (1 - 1e-4 * t):
            return found[0]
        t *= 0.5
    return None
