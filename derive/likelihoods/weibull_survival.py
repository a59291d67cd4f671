"""Weibull survival of shape k: time t, event d (0: censored); f = tᵏ eᵃ − d (a + log k + (k − 1) log t)."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Parameter, Response

a = sp.Symbol("a", real=True)
t, k = sp.symbols("t k", positive=True)
d = sp.Symbol("d", nonnegative=True)

LIKELIHOOD = Likelihood(
    name="weibull_survival",
    title="Weibull survival",
    citation="Kalbfleisch & Prentice, The statistical analysis of failure time data, 2nd edition, 2002, section 3.2",
    predictor=a,
    responses=(
        Response("time", t, "positive"),
        Response("event", d, "binary"),
    ),
    loss=sp.exp(a + k * sp.log(t)) - d * (a + sp.log(k) + (k - 1) * sp.log(t)),
    parameters=(Parameter("shape", k, "shape k of the hazard k t^(k - 1) e^a"),),
)
