"""Weibull of a fixed shape k with scale s, one coordinate: T(θ) = −θᵏ, base measure k θᵏ⁻¹, λ = s⁻ᵏ."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, r, s, k = sp.symbols("theta r s k", positive=True)
mu = sp.Symbol("mu", negative=True)

FAMILY = Family(
    name="weibull",
    title="Weibull of a fixed shape",
    citation="Johnson, Kotz & Balakrishnan, Continuous univariate distributions, volume 1, 1994, chapter 21",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-(theta**k),),
    base_measure=k * theta ** (k - 1),
    natural=(Slot("rate", r, "positive"),),
    log_partition=-sp.log(r),
    standard=(Slot("scale", s, "positive"),),
    natural_of_standard=(s ** (-k),),
    expectation=(Slot("negative_mean_power", mu, "negative"),),
    fixed=(Slot("shape", k, "positive"),),
    moments=((sp.log(theta), -(sp.EulerGamma + sp.log(r)) / k),),
)
