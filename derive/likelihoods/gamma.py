"""Gamma with log link: y > 0 of mean eᵃ and shape k; f = k(a + y e⁻ᵃ) + constants."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Parameter, Response

a = sp.Symbol("a", real=True)
y, k = sp.symbols("y k", positive=True)

LIKELIHOOD = Likelihood(
    name="gamma",
    title="Gamma regression",
    citation="McCullagh & Nelder, Generalized linear models, 2nd edition, 1989, chapter 8",
    predictor=a,
    responses=(Response("y", y, "positive"),),
    loss=k * (a + y * sp.exp(-a)) - k * sp.log(k) - (k - 1) * sp.log(y) + sp.loggamma(k),
    parameters=(Parameter("shape", k, "shape k: the variance is mean^2 / k"),),
)
