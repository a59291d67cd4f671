"""The posterior mode over sites, with the curvature there: what "map" estimates are, and where posteriors start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from badmm.checks import ClientError, ServerDomainError
from badmm.families.distributions import Gaussian
from badmm.rounds.history import Result
from badmm.solve import solve

NEWTON_ROUNDS = 30
"""Newton's method needs fewer, but for separated responses: a round for each unit of the predictor."""


def posterior_mode(clients: Sequence[Any], prior: Gaussian, chosen: Mapping[str, Any]) -> Result:
    """The mode and the curvature there: federated Newton, or the default method where its full steps go astray."""
    options: dict[str, Any] = {"family": "full_gaussian", "prior": prior, "expectation": "delta"}
    try:
        found = solve(clients, **options, **{**chosen, "method": "newton", "rounds": NEWTON_ROUNDS})
        if found.converged:
            return found
    except (ClientError, ServerDomainError, ValueError):
        pass  # steps beyond the number range: the default method's are bounded
    return solve(clients, **options, **chosen)
