"""Geometric with mean m, the failures before a success: T(θ) = −θ in 0, 1, …, base measure 1, λ = log(1 + 1/m)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta = sp.Symbol("theta", integer=True, nonnegative=True)
r, m = sp.symbols("r m", positive=True)
mu = sp.Symbol("mu", negative=True)

FAMILY = Family(
    name="geometric",
    title="Geometric",
    citation="Johnson, Kemp & Kotz, Univariate discrete distributions, 2005, chapter 5",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-theta,),
    base_measure=sp.S.One,
    natural=(Slot("rate", r, "positive"),),
    log_partition=-sp.log(1 - sp.exp(-r)),
    standard=(Slot("mean", m, "positive"),),
    natural_of_standard=(sp.log(1 + 1 / m),),
    expectation=(Slot("negative_mean", mu, "negative"),),
)
