"""Federated variational inference with Bayesian ADMM."""

from typing import Any

from badmm import likelihoods
from badmm.checks import ClientError, LostClientError, ServerDomainError
from badmm.families import registry
from badmm.families.classes import class_name
from badmm.families.distributions import Gaussian
from badmm.rounds.history import Result, RoundRecord, SolverState
from badmm.solve import solve
from badmm_kernels import __version__


def __getattr__(name: str) -> Any:
    """Return the distribution class of a family (`badmm.Gamma`), or its choice (`badmm.BlockDiagonalGaussian`)."""
    found = registry.exported(name)
    if found is None:
        raise AttributeError(f"module 'badmm' has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    classes = [class_name(family) for family in registry.names()]
    return sorted([*__all__, *(name for name in classes if registry.exported(name))])


__all__ = [
    "ClientError",
    "Gaussian",
    "LostClientError",
    "Result",
    "RoundRecord",
    "ServerDomainError",
    "SolverState",
    "__version__",
    "likelihoods",
    "solve",
]
