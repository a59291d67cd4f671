"""Complementary log-log: labels y in {0, 1} with P(y = 0) = exp(−eᵃ); f = (1 − y)eᵃ − y log(1 − exp(−eᵃ))."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Response

a = sp.Symbol("a", real=True)
y = sp.Symbol("y", nonnegative=True)

LIKELIHOOD = Likelihood(
    name="cloglog",
    title="Complementary log-log regression",
    citation="McCullagh & Nelder, Generalized linear models, 2nd edition, 1989, section 4.3",
    predictor=a,
    responses=(Response("y", y, "binary"),),
    loss=(1 - y) * sp.exp(a) - y * sp.log(1 - sp.exp(-sp.exp(a))),
)
