"""Logistic: labels y in {0, 1} with log-odds a; f = log(1 + eᵃ) − y a."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Response

a = sp.Symbol("a", real=True)
y = sp.Symbol("y", nonnegative=True)

LIKELIHOOD = Likelihood(
    name="logistic",
    title="Logistic regression",
    citation="McCullagh & Nelder, Generalized linear models, 2nd edition, 1989, section 4.3",
    predictor=a,
    responses=(Response("y", y, "binary"),),
    loss=sp.log(1 + sp.exp(a)) - y * a,
)
