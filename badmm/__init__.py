"""Federated variational inference with Bayesian ADMM."""

from badmm import likelihoods
from badmm.checks import ClientError, LostClientError, ServerDomainError
from badmm.families.distributions import Gamma, Gaussian
from badmm.rounds.history import Result, RoundRecord, SolverState
from badmm.solve import solve
from badmm_kernels import __version__

__all__ = [
    "ClientError",
    "Gamma",
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
