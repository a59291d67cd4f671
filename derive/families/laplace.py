"""Laplace around a fixed location c with scale s: T(θ) = −|θ − c|, base measure 1/2, λ = 1/s."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, c = sp.symbols("theta c", real=True)
r, s = sp.symbols("r s", positive=True)
mu = sp.Symbol("mu", negative=True)

FAMILY = Family(
    name="laplace",
    title="Laplace of a fixed location",
    citation="Johnson, Kotz & Balakrishnan, Continuous univariate distributions, volume 2, 1995, chapter 24",
    theta=theta,
    support=(-sp.oo, sp.oo),
    statistics=(-sp.Abs(theta - c),),
    base_measure=sp.S.Half,
    natural=(Slot("rate", r, "positive"),),
    log_partition=-sp.log(r),
    standard=(Slot("scale", s, "positive"),),
    natural_of_standard=(1 / s,),
    expectation=(Slot("negative_mean_deviation", mu, "negative"),),
    fixed=(Slot("location", c, "real"),),
)
