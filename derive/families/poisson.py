"""Poisson with mean m, one coordinate: T(θ) = θ in 0, 1, …, base measure 1/θ!, λ = log m."""

import sympy as sp

from ..calculus.family import Family, Slot

theta = sp.Symbol("theta", integer=True, nonnegative=True)
x = sp.Symbol("x", real=True)
m, mu = sp.symbols("m mu", positive=True)

FAMILY = Family(
    name="poisson",
    title="Poisson",
    citation="Wainwright & Jordan, Graphical models, exponential families, and variational inference, 2008, table 3.1",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(theta,),
    base_measure=1 / sp.factorial(theta),
    natural=(Slot("log_mean", x, "real"),),
    log_partition=sp.exp(x),
    standard=(Slot("mean", m, "positive"),),
    natural_of_standard=(sp.log(m),),
    expectation=(Slot("mean", mu, "positive"),),
)
