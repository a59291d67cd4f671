"""Federated variational inference with Bayesian ADMM."""

from badmm import likelihoods
from badmm.checks import ClientError, LostClientError, ServerDomainError
from badmm.distributions import Gamma, Gaussian
from badmm.history import Result, RoundRecord, SolverState
from badmm.solve import solve

__all__ = [
    "ClientError",
    "Gamma",
    "Gaussian",
    "LostClientError",
    "Result",
    "RoundRecord",
    "ServerDomainError",
    "SolverState",
    "likelihoods",
    "solve",
]
