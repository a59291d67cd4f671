"""Binomial of a fixed number of trials n with log-odds x: T(θ) = θ in 0, …, n, base measure C(n, θ), λ = x."""

import sympy as sp

from ..calculus.family import Family, Slot

theta = sp.Symbol("theta", integer=True, nonnegative=True)
n = sp.Symbol("n", integer=True, positive=True)
x = sp.Symbol("x", real=True)
mu = sp.Symbol("mu", positive=True)

FAMILY = Family(
    name="binomial",
    title="Binomial of a fixed number of trials",
    citation="Wainwright & Jordan, Graphical models, exponential families, and variational inference, 2008, table 3.1",
    theta=theta,
    support=(sp.S.Zero, n),
    statistics=(theta,),
    base_measure=sp.binomial(n, theta),
    natural=(Slot("log_odds", x, "real"),),
    log_partition=n * sp.log(1 + sp.exp(x)),
    standard=(Slot("log_odds", x, "real"),),
    natural_of_standard=(x,),
    expectation=(Slot("mean", mu, "positive"),),
    fixed=(Slot("trials", n, "count"),),
)
