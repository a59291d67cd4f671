"""Losses ℓ_k(θ) of clients, and the protocol that any other client meets (see `badmm.likelihoods.base`)."""

from badmm.likelihoods.base import EXPECTATIONS, Expectation, GaussianLikelihood
from badmm.likelihoods.glm import GeneralizedLinear, LogisticRegression, PoissonRegression
from badmm.likelihoods.quadratic import LinearRegression, Quadratic
from badmm.likelihoods.rates import ConjugateRate, ExponentialRate, PoissonRate
from badmm.likelihoods.softmax import SoftmaxRegression

__all__ = [
    "EXPECTATIONS",
    "ConjugateRate",
    "Expectation",
    "ExponentialRate",
    "GaussianLikelihood",
    "GeneralizedLinear",
    "LinearRegression",
    "LogisticRegression",
    "PoissonRate",
    "PoissonRegression",
    "Quadratic",
    "SoftmaxRegression",
]
