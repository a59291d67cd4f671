"""Inverse gamma with shape a and scale b, one coordinate: T(θ) = (−log θ, −1/θ), base measure 1/θ, λ = (a, b)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, a, b = sp.symbols("theta a b", positive=True)
mu1 = sp.Symbol("mu1", real=True)
mu2 = sp.Symbol("mu2", negative=True)

FAMILY = Family(
    name="inverse_gamma",
    title="Inverse gamma",
    citation="Bernardo & Smith, Bayesian Theory, 1994, appendix A",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-sp.log(theta), -1 / theta),
    base_measure=1 / theta,
    natural=(Slot("shape", a, "positive"), Slot("scale", b, "positive")),
    log_partition=sp.loggamma(a) - a * sp.log(b),
    standard=(Slot("shape", a, "positive"), Slot("scale", b, "positive")),
    natural_of_standard=(a, b),
    expectation=(Slot("negative_mean_log", mu1, "real"), Slot("negative_mean_reciprocal", mu2, "negative")),
)
