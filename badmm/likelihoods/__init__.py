"""Losses ℓ_k(θ) of clients, and the protocol that any other client meets (see `badmm.likelihoods.base`)."""

from badmm.likelihoods.base import EXPECTATIONS, Expectation, GaussianLikelihood
from badmm.likelihoods.glm import (
    CloglogRegression,
    ExponentialSurvival,
    GammaRegression,
    HuberRegression,
    LogisticRegression,
    NegativeBinomialRegression,
    PoissonRegression,
    ProbitRegression,
    StudentTRegression,
    WeibullSurvival,
    regression,
)
from badmm.likelihoods.noise import GaussianRegression
from badmm.likelihoods.quadratic import LinearRegression, Quadratic
from badmm.likelihoods.rates import (
    ConjugateLoss,
    ConjugateRate,
    ExponentialRate,
    NormalVariance,
    PoissonRate,
    Trials,
)
from badmm.likelihoods.softmax import SoftmaxRegression
from badmm.likelihoods.streamed import Streamed

__all__ = [
    "EXPECTATIONS",
    "CloglogRegression",
    "ConjugateLoss",
    "ConjugateRate",
    "Expectation",
    "ExponentialRate",
    "ExponentialSurvival",
    "GammaRegression",
    "GaussianLikelihood",
    "GaussianRegression",
    "HuberRegression",
    "LinearRegression",
    "LogisticRegression",
    "NegativeBinomialRegression",
    "NormalVariance",
    "PoissonRate",
    "PoissonRegression",
    "ProbitRegression",
    "Quadratic",
    "SoftmaxRegression",
    "Streamed",
    "StudentTRegression",
    "Trials",
    "WeibullSurvival",
    "regression",
]
