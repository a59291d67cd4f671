"""Probit: labels y in {0, 1} with P(y = 1) = Φ(a); f = −y log Φ(a) − (1 − y) log Φ(−a)."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Response

a = sp.Symbol("a", real=True)
y = sp.Symbol("y", nonnegative=True)


def cdf(u: sp.Expr) -> sp.Expr:
    """Φ(u)."""
    return (1 + sp.erf(u / sp.sqrt(2))) / 2


LIKELIHOOD = Likelihood(
    name="probit",
    title="Probit regression",
    citation="McCullagh & Nelder, Generalized linear models, 2nd edition, 1989, section 4.3",
    predictor=a,
    responses=(Response("y", y, "binary"),),
    loss=-y * sp.log(cdf(a)) - (1 - y) * sp.log(cdf(-a)),
)
