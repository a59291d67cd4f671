"""Beta with counts a and b, one coordinate: T(θ) = (log θ, log(1 − θ)), base measure 1/(θ(1 − θ)), λ = (a, b)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, a, b = sp.symbols("theta a b", positive=True)
mu1, mu2 = sp.symbols("mu1 mu2", negative=True)

FAMILY = Family(
    name="beta",
    title="Beta",
    citation="Wainwright & Jordan, Graphical models, exponential families, and variational inference, 2008, table 3.1",
    theta=theta,
    support=(sp.S.Zero, sp.S.One),
    statistics=(sp.log(theta), sp.log(1 - theta)),
    base_measure=1 / (theta * (1 - theta)),
    natural=(Slot("alpha", a, "positive"), Slot("beta", b, "positive")),
    log_partition=sp.loggamma(a) + sp.loggamma(b) - sp.loggamma(a + b),
    standard=(Slot("alpha", a, "positive"), Slot("beta", b, "positive")),
    natural_of_standard=(a, b),
    expectation=(Slot("mean_log", mu1, "negative"), Slot("mean_log_rest", mu2, "negative")),
)
