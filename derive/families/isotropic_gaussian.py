"""Gaussian with one fixed precision s, one coordinate: T(θ) = θ, λ = s m. Bayesian ADMM over it is classic ADMM."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, xi, m, mu = sp.symbols("theta xi m mu", real=True)
s = sp.Symbol("s", positive=True)

FAMILY = Family(
    name="isotropic_gaussian",
    title="Isotropic Gaussian of fixed precision",
    citation="Möllenhoff et al., Federated ADMM from Bayesian Duality, ICLR 2026, arXiv:2506.13150, section 3",
    theta=theta,
    support=(-sp.oo, sp.oo),
    statistics=(theta,),
    base_measure=sp.sqrt(s / (2 * sp.pi)) * sp.exp(-s * theta**2 / 2),
    natural=(Slot("precision_mean", xi, "real"),),
    log_partition=xi**2 / (2 * s),
    standard=(Slot("mean", m, "real"),),
    natural_of_standard=(s * m,),
    expectation=(Slot("mean", mu, "real"),),
    fixed=(Slot("precision", s, "positive"),),
)
