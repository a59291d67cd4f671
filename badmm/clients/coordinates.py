"""The coordinates in which a client's iterates are mixed, and one step of its map in them."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from badmm.checks import Array
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.family import Natural
from badmm.families.gaussian import GaussianFamily


class ChartedProblem:
    """A family's chart around a reference, with the steps of one problem."""

    def __init__(self, problem: ClientProblem, reference: Distribution) -> None:
        self.problem, self.family = problem, problem.family
        self._chart = problem.family.chart(reference)

    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""
        return self._chart.vector(q)

    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None outside the domain."""
        return self._chart.point(x)

    def goal(self, at: Evaluation, target: Natural) -> Distribution | None:
        """Where one step of the map goes; None where that is outside the domain.

        A posterior that cannot hold the whole curvature H = E[∇²ℓ] takes it into the mean's step where it is known:
        m⁺ = m − (H/ρ + S_c)⁻¹ (E[∇ℓ]/ρ + S_c m − ξ_c), S⁺ that of the map. Elsewhere the map does so by itself.
        """
        q, family = at.posterior, self.family
        if at.curvature is not None:
            assert isinstance(family, GaussianFamily) and isinstance(q, Gaussian)
            if not q.operator.keeps_curvature:
                _, precision = family.canonical(target)
                mean = self._newton_mean(at, q, family) if precision.is_definite else None
                if mean is not None:
                    return Gaussian.of(mean, precision)
        return family.inside(target)

    def _newton_mean(self, at: Evaluation, q: Gaussian, family: GaussianFamily) -> Array | None:
        assert at.gradient is not None and at.curvature is not None
        rho = self.problem.rho
        xi, cavity = family.canonical(self.problem.cavity)
        slope = at.gradient / rho + cavity.matvec(q.mean) - xi
        try:
            return np.asarray(q.mean - cho_solve(cho_factor(cavity.plus(at.curvature / rho), lower=True), slope))
        except LinAlgError:
            return None
