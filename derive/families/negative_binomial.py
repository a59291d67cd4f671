"""Negative binomial of a fixed size k with mean m: T(θ) = −θ in 0, 1, …, base measure C(θ+k−1, θ), λ = log(1 + k/m)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta = sp.Symbol("theta", integer=True, nonnegative=True)
r, m, k = sp.symbols("r m k", positive=True)
mu = sp.Symbol("mu", negative=True)

FAMILY = Family(
    name="negative_binomial",
    title="Negative binomial of a fixed size",
    citation="Johnson, Kemp & Kotz, Univariate discrete distributions, 2005, chapter 5",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-theta,),
    base_measure=sp.gamma(theta + k) / (sp.gamma(k) * sp.gamma(theta + 1)),
    natural=(Slot("rate", r, "positive"),),
    log_partition=-k * sp.log(1 - sp.exp(-r)),
    standard=(Slot("mean", m, "positive"),),
    natural_of_standard=(sp.log(1 + k / m),),
    expectation=(Slot("negative_mean", mu, "negative"),),
    fixed=(Slot("size", k, "positive"),),
)
