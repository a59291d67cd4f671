"""Log-normal, log θ ~ N(m, 1/S), one coordinate: T(θ) = (log θ, −½ log²θ), base measure 1/(θ√(2π)), λ = (S m, S)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, S = sp.symbols("theta S", positive=True)
xi, m, mu1 = sp.symbols("xi m mu1", real=True)
mu2 = sp.Symbol("mu2", negative=True)

FAMILY = Family(
    name="log_normal",
    title="Log-normal",
    citation="Johnson, Kotz & Balakrishnan, Continuous univariate distributions, volume 1, 1994, chapter 14",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(sp.log(theta), -(sp.log(theta) ** 2) / 2),
    base_measure=1 / (theta * sp.sqrt(2 * sp.pi)),
    natural=(Slot("precision_mean_log", xi, "real"), Slot("precision_log", S, "positive")),
    log_partition=xi**2 / (2 * S) - sp.log(S) / 2,
    standard=(Slot("mean_log", m, "real"), Slot("precision_log", S, "positive")),
    natural_of_standard=(S * m, S),
    expectation=(Slot("mean_log", mu1, "real"), Slot("half_negative_mean_square_log", mu2, "negative")),
)
