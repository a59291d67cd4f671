"""Gaussian with diagonal precision, one coordinate: T(θ) = (θ, −½θ²), λ = (S m, S)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, xi, m, mu1, mu2 = sp.symbols("theta xi m mu1 mu2", real=True)
S = sp.Symbol("S", positive=True)

FAMILY = Family(
    name="diagonal_gaussian",
    title="Diagonal Gaussian",
    citation="Khan & Rue, The Bayesian learning rule, JMLR 2023, arXiv:2107.04562; notation of arXiv:2506.13150",
    theta=theta,
    support=(-sp.oo, sp.oo),
    statistics=(theta, -(theta**2) / 2),
    base_measure=1 / sp.sqrt(2 * sp.pi),
    natural=(Slot("precision_mean", xi, "real"), Slot("precision", S, "positive")),
    log_partition=xi**2 / (2 * S) - sp.log(S) / 2,
    standard=(Slot("mean", m, "real"), Slot("precision", S, "positive")),
    natural_of_standard=(S * m, S),
    expectation=(Slot("mean", mu1, "real"), Slot("half_negative_second_moment", mu2, "negative")),
)
