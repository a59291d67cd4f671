"""One round of Bayesian ADMM, derived for any family from ∇_μ KL(q_λ‖q_λ′) = λ − λ′ (arXiv:2506.13150, section 3).

Everything here is linear in natural parameters, so a scalar symbol stands for a slot; the family enters only through
the claim that the KL identity holds for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

lam_g, lam_k, lam_0, eta, grad = sp.symbols("lambda_g lambda_k lambda_0 eta G", real=True)
rho, gamma, alpha = sp.symbols("rho gamma alpha", positive=True)
K = sp.Symbol("K", integer=True, positive=True)
total = sp.Symbol("c", real=True)


def client_stationarity(lam: sp.Expr) -> sp.Expr:
    """∇_μ of L_k(μ) − ⟨η_k, μ⟩ + ρ KL(q_λ‖q_g) at λ: G − η + ρ(λ − λ_g)."""
    return grad - eta + rho * (lam - lam_g)


def client_map() -> sp.Expr:
    """λ_g + (η − ∇L)/ρ: what a client's natural parameter must equal."""
    (solution,) = sp.solve(client_stationarity(lam_k), lam_k)
    return lam_g + sp.Mul(1 / rho, sp.factor(rho * (solution - lam_g)), evaluate=False)


def dual_update() -> sp.Expr:
    """η + γρ(λ_g − λ_k): ascent on the dual of the constraint λ_k = λ_g."""
    return eta + gamma * rho * (lam_g - lam_k)


def server_line(mean_client: sp.Expr, dual_sum: sp.Expr) -> sp.Expr:
    """(1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k)."""
    return (1 - alpha) * mean_client + alpha * (lam_0 - dual_sum)


def server_contribution() -> sp.Expr:
    """c_k = (1 − α)/K λ_k − α η_k: a client's term of the server line."""
    return (1 - alpha) / K * lam_k - alpha * eta


def server_update() -> sp.Expr:
    """α λ_0 + Σ_k c_k."""
    return alpha * lam_0 + total


@dataclass(frozen=True)
class OneRound:
    """One round with ∇L_k = G_k constant, written with the sums over clients ΣG, Ση and the mean of λ_k."""

    lam_clients_mean: sp.Expr
    dual_sum: sp.Expr
    lam_global: sp.Expr
    fixed_point: sp.Expr
    start: sp.Expr

    @property
    def error(self) -> sp.Expr:
        """λ_g after the round minus λ*."""
        return sp.simplify(self.lam_global - self.fixed_point)


sum_g, sum_eta = sp.symbols("SumG SumEta", real=True)


def one_round(step: sp.Expr = alpha, damping: sp.Expr = gamma, start: sp.Expr | None = None) -> OneRound:
    """Client, dual and server lines summed over clients for losses linear in μ, from λ_g = `start` (default λ_0 −
    Ση)."""
    begin = lam_0 - sum_eta if start is None else start
    mean_client = client_map().subs({lam_g: begin, grad: sum_g / K, eta: sum_eta / K})
    sum_dual = K * dual_update().subs({gamma: damping, lam_g: begin, lam_k: mean_client, eta: sum_eta / K})
    new = server_line(mean_client, sum_dual).subs(alpha, step)
    return OneRound(sp.simplify(mean_client), sp.simplify(sum_dual), new, lam_0 - sum_g, begin)
