"""Inverse Gaussian with mean m and shape l: T(θ) = (−½θ, −½/θ), base measure (2πθ³)^(−½), λ = (l/m², l)."""

import sympy as sp

from ..calculus.family import Family, Slot

theta, a, b, m, l = sp.symbols("theta a b m l", positive=True)
mu1, mu2 = sp.symbols("mu1 mu2", negative=True)

FAMILY = Family(
    name="inverse_gaussian",
    title="Inverse Gaussian",
    citation="Johnson, Kotz & Balakrishnan, Continuous univariate distributions, volume 1, 1994, chapter 15",
    theta=theta,
    support=(sp.S.Zero, sp.oo),
    statistics=(-theta / 2, -1 / (2 * theta)),
    base_measure=1 / sp.sqrt(2 * sp.pi * theta**3),
    natural=(Slot("shape_over_square_mean", a, "positive"), Slot("shape", b, "positive")),
    log_partition=-sp.sqrt(a * b) - sp.log(b) / 2,
    standard=(Slot("mean", m, "positive"), Slot("shape", l, "positive")),
    natural_of_standard=(l / m**2, l),
    expectation=(Slot("half_negative_mean", mu1, "negative"), Slot("half_negative_mean_reciprocal", mu2, "negative")),
)
