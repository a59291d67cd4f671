"""The IVON step for one ADMM client, derived from the natural-gradient step on the diagonal Gaussian plus a retraction.

A client minimises L(μ) − ⟨η, μ⟩ + ρ KL(q‖q_g). Its natural gradient ∇_μ is ∇_μ L − η + ρ(λ − λ_g); with Price's ∇_μ L
= (g − Hm, −H) a step of size (1 − β₂)/ρ on the precision, in the units S = ess (h + δ), S_g = ess δ, ess = N/(τρ), is
h ← h + (1 − β₂)(f − h).
Shen et al., arXiv:2402.17641, algorithm 1, is the case η = 0, m_g = 0.

The kernels hold s = h + δ and the cavity (c_ξ, c_S), λ_g + η/ρ over ess, constant during a round: `kernel_step` is the
same step in them, from which δ, m_g and η are gone, and θ − m with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sympy as sp

from ..calculus.elementwise import calculus
from ..families import load_family
from . import admm

m, g, eta_xi, eta_s, m_g = sp.symbols("m g eta_xi eta_S m_g", real=True)
S, S_g, delta, ess, N, tau, rho = sp.symbols("S S_g delta ess N tau rho", positive=True)
h, f, hessian = sp.symbols("h f H", real=True)
beta2, lr, t = sp.symbols("beta_2 lr t", positive=True)
s = sp.Symbol("s", positive=True)
eps, c_xi, c_s, w = sp.symbols("eps c_xi c_S w", real=True)


@dataclass(frozen=True)
class Step:
    """The derived lines: `estimate` f, `precision` the new h, `direction` the preconditioned gradient of the mean."""

    estimate: sp.Expr
    precision: sp.Expr
    direction: sp.Expr


def client_objective() -> sp.Expr:
    """L − ⟨η, μ⟩ + ρ KL(q‖q_g) in (m, S), with L left as a function, from the derived KL and μ."""
    c = calculus(load_family("diagonal_gaussian"))
    q, p, kl = c.kl
    standard = {q[0][0, 0]: S * m, q[1][0, 0]: S, p[0][0, 0]: S_g * m_g, p[1][0, 0]: S_g}
    first, second = (
        e[0, 0].subs({c.at.standard[0][0, 0]: m, c.at.standard[1][0, 0]: S}) for e in c.expectation_of_standard
    )
    loss = sp.Function("L")(m, S)
    return loss - eta_xi * first - eta_s * second + rho * kl.subs(standard)


@cache
def _precision_step() -> sp.Expr:
    """The step (1 − β₂)/ρ along −∇_{μ₂} over ess, with H = N/τ·Ĥ and η_S in units of N/τ, at any ess."""
    line = {admm.grad: -hessian, admm.eta: eta_s, admm.lam_k: S, admm.lam_g: S_g, admm.rho: rho}
    step = -(1 - beta2) / rho * admm.client_stationarity().subs(line)
    units = {hessian: N / tau * (f - eta_s), eta_s: N / tau * eta_s, S: ess * (h + delta), S_g: ess * delta}
    return sp.expand(step.subs(units, simultaneous=True) / ess)


@cache
def effective_sample_size() -> sp.Expr:
    """ess = N/(τρ): the unit of the precision in which f enters a step with the weight 1 − β₂."""
    (solution,) = sp.solve(sp.diff(_precision_step(), f) - (1 - beta2), ess)
    return solution


def in_ess(expr: sp.Expr) -> sp.Expr:
    """An expression with N = ess τρ, by `effective_sample_size`."""
    (points,) = sp.solve(effective_sample_size() - ess, N)
    return expr.subs(N, points)


def precision_velocity() -> sp.Expr:
    """v: the step (1 − β₂)/ρ along −∇_{μ₂}, in units of ess."""
    return sp.factor(sp.simplify(in_ess(_precision_step())))


def retraction(point: sp.Expr, velocity: sp.Expr) -> sp.Expr:
    """Second-order Taylor expansion of the geodesic x·exp(t v/x) of the Fisher metric dx²/(2x²) at t = 1."""
    geodesic = point * sp.exp(t * velocity / point)
    return sum((sp.diff(geodesic, t, k).subs(t, 0) / sp.factorial(k) for k in range(3)), sp.S.Zero)


def mean_direction() -> sp.Expr:
    """∂(client objective)/∂m over S, in the same units: the direction that lr scales."""
    gradient = sp.diff(client_objective(), m).doit().subs(sp.Derivative(sp.Function("L")(m, S), m), g)
    units = {g: N / tau * g, eta_xi: N / tau * eta_xi, eta_s: N / tau * eta_s, S: ess * (h + delta), S_g: ess * delta}
    return sp.simplify(in_ess((gradient / (rho * S)).subs(units, simultaneous=True)))


def step() -> Step:
    """The three lines of the IVON client."""
    theta = sp.Symbol("theta", real=True)
    estimate = ess * g * (theta - m) * (h + delta) + eta_s
    new = sp.expand(retraction(h + delta, precision_velocity())) - delta
    return Step(estimate, sp.simplify(new), mean_direction())


@dataclass(frozen=True)
class KernelStep:
    """The step in s = h + δ: `sample` θ, `curvature` f + δ, `velocity` w, `precision` the new s, `direction`."""

    sample: sp.Expr
    curvature: sp.Expr
    velocity: sp.Expr
    precision: sp.Expr
    direction: sp.Expr


def cavity() -> tuple[sp.Expr, sp.Expr]:
    """(c_ξ, c_S): the cavity λ_g + η/ρ of a round over ess, with η in units of N/τ."""

    def slot(natural_global: sp.Expr, dual: sp.Expr) -> sp.Expr:
        line = admm.cavity().subs({admm.lam_g: natural_global, admm.eta: N / tau * dual, admm.rho: rho})
        return sp.simplify(in_ess(line / ess))

    return slot(ess * delta * m_g, eta_xi), slot(ess * delta, eta_s)


def kernel_step() -> KernelStep:
    """The five lines that the kernels compute, for one sample with gradient g."""
    return KernelStep(
        sample=m + eps / sp.sqrt(ess * s),
        curvature=g * eps * sp.sqrt(ess * s) + c_s,
        velocity=(1 - beta2) * (f - s),
        precision=retraction(s, w),
        direction=(g + c_s * m - c_xi) / s,
    )
