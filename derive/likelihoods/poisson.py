"""Poisson: counts y of mean eᵃ; f = eᵃ − y a + log y!."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Response

a = sp.Symbol("a", real=True)
y = sp.Symbol("y", nonnegative=True)

LIKELIHOOD = Likelihood(
    name="poisson",
    title="Poisson regression",
    citation="McCullagh & Nelder, Generalized linear models, 2nd edition, 1989, chapter 6",
    predictor=a,
    responses=(Response("y", y, "count"),),
    loss=sp.exp(a) - y * a + sp.loggamma(y + 1),
)
