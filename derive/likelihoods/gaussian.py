"""Gaussian with known noise variance v: f = (y − a)²/(2v) + ½ log(2πv)."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Parameter, Response

a, y = sp.symbols("a y", real=True)
v = sp.Symbol("v", positive=True)

LIKELIHOOD = Likelihood(
    name="gaussian",
    title="Gaussian regression",
    citation="McCullagh & Nelder, Generalized linear models, 2nd edition, 1989, chapter 3",
    predictor=a,
    responses=(Response("y", y, "real"),),
    loss=(y - a) ** 2 / (2 * v) + sp.log(2 * sp.pi * v) / 2,
    parameters=(Parameter("noise_variance", v, "variance of y around a"),),
)
