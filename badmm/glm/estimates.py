"""Estimates of θ from clients and a prior: the mode, the variational posterior, the conjugate one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from badmm.checks import Array, ClientError, UnfinishedRunError
from badmm.families.distributions import Gaussian
from badmm.families.structures.gaussian_gamma import GaussianGamma
from badmm.glm.mode import posterior_mode
from badmm.rounds.history import Result
from badmm.solve import solve

NO_ROWS = 1e-10
"""Twice the rows that a flat prior on the noise counts for."""


@dataclass(frozen=True)
class Estimate:
    """θ: its mean (d,), a scale matrix (d, d), and the degrees of freedom of Student's t around it, ∞ for a normal."""

    mean: Array
    scale: Array
    freedom: float
    solved: Result

    @property
    def inflation(self) -> float:
        """Var over scale, ν/(ν − 2); infinite for ν ≤ 2."""
        if self.freedom == np.inf:
            return 1.0
        return self.freedom / (self.freedom - 2.0) if self.freedom > 2 else np.inf

    @cached_property
    def covariance(self) -> Array:
        """Cov θ (d, d)."""
        return self.scale * self.inflation

    def quantile(self, level: float) -> float:
        """Deviations √scale that a central interval of this level reaches to either side."""
        return float(stdtrit(self.freedom, 0.5 + 0.5 * level))

    def below(self, z: Array) -> Array:
        """P(t ≤ z) of a coefficient z deviations √scale away from its mean."""
        return np.asarray(stdtr(self.freedom, z))


def at_mode(result: Result, precision: Array | None = None) -> Estimate:
    """The mean and the precision of a Gaussian result, or another precision (d, d)."""
    q = result.posterior
    assert isinstance(q, Gaussian)
    spread = q if precision is None else Gaussian(q.mean, precision)
    return Estimate(q.mean, spread.covariance, np.inf, result)


def mode(clients: Sequence[Any], prior: Gaussian, names: Sequence[str], chosen: Mapping[str, Any]) -> Result:
    """`posterior_mode`, with errors that name a site."""
    return _named(names, lambda: posterior_mode(clients, prior, chosen))


def variational(
    clients: Sequence[Any], prior: Gaussian, names: Sequence[str], start: Result, chosen: Mapping[str, Any]
) -> Estimate:
    """The full Gaussian of the largest evidence bound, from the mode."""
    # duals of the mode: no client meets the wide prior alone
    options: dict[str, Any] = {"start": start.natural, "duals": start.duals, **chosen}
    return at_mode(_named(names, lambda: solve(clients, family="full_gaussian", prior=prior, **options)))


def conjugate(
    clients: Sequence[Any], prior: Gaussian, rate: float, names: Sequence[str], chosen: Mapping[str, Any]
) -> Estimate:
    """θ and the noise together, exactly after one round, which a second confirms; θ | τ has the prior's precision × τ.

    The noise precision has the density 1/τ but for `rate`, which keeps an exact fit proper.
    """
    joint = GaussianGamma(prior.mean, prior.precision, NO_ROWS, rate)
    result = _named(names, lambda: solve(clients, family="gaussian_gamma", prior=joint, **chosen))
    q = result.posterior
    assert isinstance(q, GaussianGamma)
    return Estimate(q.mean, q.rate / q.shape * q.operator.covariance, 2.0 * q.shape, result)


def _named(names: Sequence[str], run: Callable[[], Result]) -> Result:
    try:
        return run()
    except ClientError as error:
        raise UnfinishedRunError(f"site {names[error.client]!r}: {error.reason}") from error
