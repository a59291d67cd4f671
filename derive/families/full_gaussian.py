"""Gaussian with a full precision matrix: T(θ) = (θ, −½θθᵀ), λ = (S m, S)."""

import sympy as sp

from ..calculus.family import DIMENSION as d, Family, Slot

theta, xi, m, mu1 = (sp.MatrixSymbol(name, d, 1) for name in ("theta", "xi", "m", "mu"))
S, mu2 = (sp.MatrixSymbol(name, d, d) for name in ("S", "M"))

FAMILY = Family(
    name="full_gaussian",
    title="Full-covariance Gaussian",
    citation="Khan & Rue, The Bayesian learning rule, JMLR 2023, arXiv:2107.04562; notation of arXiv:2506.13150",
    theta=theta,
    support=(-sp.oo, sp.oo),
    statistics=(theta, -theta * theta.T / 2),
    base_measure=(2 * sp.pi) ** (-d / 2),
    natural=(Slot("precision_mean", xi, "real"), Slot("precision", S, "spd")),
    log_partition=sp.Trace(xi.T * S.I * xi) / 2 - sp.log(sp.Determinant(S)) / 2,
    standard=(Slot("mean", m, "real"), Slot("precision", S, "spd")),
    natural_of_standard=(S * m, S),
    expectation=(Slot("mean", mu1, "real"), Slot("half_negative_second_moment", mu2, "symmetric")),
)
