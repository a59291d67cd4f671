"""Coordinates in which a client's iterates are mixed and searched: a domain that is easy to stay in, unit scales.

Gaussians: (m, S) scaled by the diagonal of a reference precision D², (D(m − m_ref), D⁻¹ S D⁻¹); a convex combination of
points of the domain stays in it. Gamma: (log shape, log rate).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from badmm.checks import Array
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.distributions import Distribution, Gamma, Gaussian
from badmm.families.family import Natural


class GaussianCoordinates:
    """(m, S) relative to a reference Gaussian; a point is a vector (d + d,), (d + d²,) or, isotropic, (d,)."""

    def __init__(self, problem: ClientProblem, reference: Gaussian) -> None:
        self.problem, self.family = problem, problem.family
        precision = reference.precision
        diagonal = np.diag(precision) if precision.ndim == 2 else np.broadcast_to(precision, (reference.dim,))
        self._unit = np.sqrt(diagonal)
        self._center = reference.mean
        self._scale = np.outer(self._unit, self._unit) if precision.ndim == 2 else np.asarray(diagonal)

    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""
        assert isinstance(q, Gaussian)
        mean = (q.mean - self._center) * self._unit
        if self.family.fixed_precision is not None:
            return mean
        return np.concatenate([mean, (q.precision / self._scale).ravel()])

    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None outside the domain."""
        d = len(self._unit)
        mean = self._center + x[:d] / self._unit
        if not np.isfinite(x).all():
            return None
        if self.family.fixed_precision is not None:
            q = Gaussian._trusted(mean, np.asarray(self.family.fixed_precision))
            return self.family.natural(q), q
        precision = x[d:].reshape(self._scale.shape) * self._scale
        if precision.ndim == 1:
            if not (precision > 0).all():
                return None
            q = Gaussian._trusted(mean, precision)
        else:
            q = Gaussian._trusted(mean, 0.5 * (precision + precision.T))
            try:
                _ = q.cholesky
            except ValueError:
                return None
        return self.family.natural(q), q

    def step(self, at: Evaluation, target: Natural) -> Array | None:
        """Where one step of the map goes: a Newton step for the mean wherever the whole Hessian is known.

        With E[∇²ℓ] = H:  m⁺ = m − (H/ρ + S_c)⁻¹ (E[∇ℓ]/ρ + S_c m − ξ_c),  S⁺ = S_c + H/ρ. Under a full Gaussian this
        is the map itself. None where S⁺ is outside the domain.
        """
        q = at.posterior
        assert isinstance(q, Gaussian)
        if self.family.name == "full_gaussian" or at.hessian is None or at.hessian.ndim != 2:
            if not self.family.in_domain(target):
                return None
            return self.vector(self.family.posterior(target))
        precision = q.precision if self.family.fixed_precision is not None else target[1]
        if not (precision > 0).all():
            return None
        mean = self._newton_mean(at, q)
        if mean is None:
            return self.vector(self.family.posterior(target))
        return self.vector(Gaussian._trusted(mean, precision))

    def _newton_mean(self, at: Evaluation, q: Gaussian) -> Array | None:
        assert at.gradient is not None and at.hessian is not None
        problem = self.problem
        cavity = q.precision if len(problem.cavity) == 1 else problem.cavity[1]
        slope = at.gradient / problem.rho + cavity * q.mean - problem.cavity[0]
        matrix = at.hessian / problem.rho
        matrix[np.diag_indices_from(matrix)] += cavity
        try:
            return np.asarray(q.mean - cho_solve(cho_factor(matrix, lower=True), slope))
        except LinAlgError:
            return None


class GammaCoordinates:
    """(log shape, log rate), so that every vector is a point of the domain."""

    def __init__(self, problem: ClientProblem, reference: Gamma) -> None:
        self.family = problem.family

    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""
        assert isinstance(q, Gamma)
        return np.log(np.concatenate([q.shape, q.rate]))

    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None where the exponential leaves the number range."""
        with np.errstate(over="ignore", under="ignore"):
            values = np.exp(x)
        if not (np.isfinite(values).all() and (values > 0).all()):
            return None
        q = Gamma._trusted(*np.split(values, 2))
        return self.family.natural(q), q

    def step(self, at: Evaluation, target: Natural) -> Array | None:
        """The map itself; None where it leaves the domain."""
        if not self.family.in_domain(target):
            return None
        return self.vector(self.family.posterior(target))


Coordinates = GaussianCoordinates | GammaCoordinates


def coordinates(problem: ClientProblem, reference: Distribution) -> Coordinates:
    """The coordinates that suit the problem's family."""
    if isinstance(reference, Gamma):
        return GammaCoordinates(problem, reference)
    return GaussianCoordinates(problem, reference)
