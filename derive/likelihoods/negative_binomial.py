"""Negative binomial: counts y of mean eᵃ and variance eᵃ + e²ᵃ/r; f = (y + r) log(r + eᵃ) − y a + constants."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Parameter, Response

a = sp.Symbol("a", real=True)
y = sp.Symbol("y", nonnegative=True)
r = sp.Symbol("r", positive=True)

LIKELIHOOD = Likelihood(
    name="negative_binomial",
    title="Negative binomial regression",
    citation="Hilbe, Negative binomial regression, 2nd edition, 2011, section 8.2",
    predictor=a,
    responses=(Response("y", y, "count"),),
    loss=(y + r) * sp.log(r + sp.exp(a))
    - y * a
    - r * sp.log(r)
    + sp.loggamma(y + 1)
    + sp.loggamma(r)
    - sp.loggamma(y + r),
    parameters=(Parameter("dispersion", r, "size r: the variance is mean + mean^2 / r"),),
)
