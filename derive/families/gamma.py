"""Gamma with shape a and rate b, one coordinate: T(θ) = (log θ, −θ), base measure 1/θ, λ = (a, b)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, a, b = sp.symbols("theta a b", positive=True)
mu1 = sp.Symbol("mu1", real=True)
mu2 = sp.Symbol("mu2", negative=True)

FAMILY = Family(
    name="gamma",
    title="Gamma",
    citation="Wainwright & Jordan, Graphical models, exponential families, and variational inference, 2008, table 3.1",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(sp.log(theta), -theta),
    base_measure=1 / theta,
    natural=(Slot("shape", a, "positive"), Slot("rate", b, "positive")),
    log_partition=sp.loggamma(a) - a * sp.log(b),
    standard=(Slot("shape", a, "positive"), Slot("rate", b, "positive")),
    natural_of_standard=(a, b),
    expectation=(Slot("mean_log", mu1, "real"), Slot("negative_mean", mu2, "negative")),
)
