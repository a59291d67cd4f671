"""Normal-gamma: x | τ is N(m, 1/(τS)), τ gamma (a, r): T = (log τ, −τ, τx, −½τx²), λ = (a, r + ½Sm², Sm, S)."""

import sympy as sp

from ..calculus.family import Family, Slot

x, xi, m, mu1, mu3 = sp.symbols("x xi m mu1 mu3", real=True)
(tau, a, b, s, r), (mu2, mu4) = sp.symbols("tau a b s r", positive=True), sp.symbols("mu2 mu4", negative=True)
shape, precision = Slot("shape", a, "positive"), Slot("precision", s, "positive")

FAMILY = Family(
    name="normal_gamma",
    title="Normal-gamma",
    citation="Bernardo & Smith, Bayesian Theory, 1994, section 5.2 and appendix A.2",
    theta=(x, tau),
    support=((-sp.oo, sp.oo), (sp.S.Zero, sp.oo)),
    statistics=(sp.log(tau), -tau, tau * x, -tau * x**2 / 2),
    base_measure=1 / sp.sqrt(2 * sp.pi * tau),
    natural=(shape, Slot("rate", b, "positive"), Slot("precision_mean", xi, "real"), precision),
    domain=(2 * b * s - xi**2,),
    log_partition=sp.loggamma(a) - a * sp.log(b - xi**2 / (2 * s)) - sp.log(s) / 2,
    standard=(shape, Slot("rate", r, "positive"), Slot("mean", m, "real"), precision),
    natural_of_standard=(a, r + s * m**2 / 2, s * m, s),
    expectation=(
        Slot("mean_log_tau", mu1, "real"),
        Slot("negative_mean_tau", mu2, "negative"),
        Slot("mean_tau_x", mu3, "real"),
        Slot("half_negative_mean_tau_x_square", mu4, "negative"),
    ),
)
