"""Exponential survival: time t, event d (0: censored), hazard eᵃ; f = t eᵃ − d a."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Response

a = sp.Symbol("a", real=True)
t = sp.Symbol("t", positive=True)
d = sp.Symbol("d", nonnegative=True)

LIKELIHOOD = Likelihood(
    name="exponential_survival",
    title="Exponential survival",
    citation="Kalbfleisch & Prentice, The statistical analysis of failure time data, 2nd edition, 2002, section 3.2",
    predictor=a,
    responses=(
        Response("time", t, "positive"),
        Response("event", d, "binary"),
    ),
    loss=t * sp.exp(a) - d * a,
)
