"""Huber, threshold k in scales s: f = r²/2 for |r| ≤ k, k|r| − k²/2 beyond, r = (y − a)/s; no density."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Parameter, Response

a, y = sp.symbols("a y", real=True)
k, s = sp.symbols("k s", positive=True)
r = (y - a) / s

LIKELIHOOD = Likelihood(
    name="huber",
    title="Huber regression",
    citation="Huber, Robust estimation of a location parameter, Ann. Math. Statist. 1964",
    predictor=a,
    responses=(Response("y", y, "real"),),
    loss=sp.Piecewise((r**2 / 2, sp.Abs(r) <= k), (k * sp.Abs(r) - k**2 / 2, True)),
    parameters=(
        Parameter("threshold", k, "threshold, in scales"),
        Parameter("scale", s, "scale of y around a"),
    ),
)
