"""Bernoulli with log-odds x, one coordinate: T(θ) = θ in {0, 1}, base measure 1, λ = x."""

import sympy as sp

from ..calculus.family import Family, Slot

theta = sp.Symbol("theta", integer=True, nonnegative=True)
x = sp.Symbol("x", real=True)
mu = sp.Symbol("mu", positive=True)

FAMILY = Family(
    name="bernoulli",
    title="Bernoulli",
    citation="Wainwright & Jordan, Graphical models, exponential families, and variational inference, 2008, table 3.1",
    theta=theta,
    support=(sp.S.Zero, sp.S.One),
    statistics=(theta,),
    base_measure=sp.S.One,
    natural=(Slot("log_odds", x, "real"),),
    log_partition=sp.log(1 + sp.exp(x)),
    standard=(Slot("log_odds", x, "real"),),
    natural_of_standard=(x,),
    expectation=(Slot("mean", mu, "positive"),),
)
