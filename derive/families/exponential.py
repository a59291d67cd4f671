"""Exponential with rate r, one coordinate: T(θ) = −θ, base measure 1, λ = r."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, r = sp.symbols("theta r", positive=True)
mu = sp.Symbol("mu", negative=True)

FAMILY = Family(
    name="exponential",
    title="Exponential",
    citation="Wainwright & Jordan, Graphical models, exponential families, and variational inference, 2008, table 3.1",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-theta,),
    base_measure=sp.S.One,
    natural=(Slot("rate", r, "positive"),),
    log_partition=-sp.log(r),
    standard=(Slot("rate", r, "positive"),),
    natural_of_standard=(r,),
    expectation=(Slot("negative_mean", mu, "negative"),),
)
