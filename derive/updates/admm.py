"""The lines of one round of Bayesian ADMM, from one Lagrangian (arXiv:2506.13150, section 3).

K clients minimise Σ_k L_k(μ_k) + KL(q_g‖p_0) under μ_k = μ_g. With a multiplier η_k per constraint, the Lagrangian is

    ℒ = Σ_k [L_k(μ_k) − ⟨η_k, μ_k − μ_g⟩] + KL(q_g‖p_0)

and each block descends on ℒ plus a proximal term: ρ KL(q_k‖q_g) for a client, ς Σ_k KL(q_g‖q_k) for the server.
KL is the Bregman divergence of Φ = A*, the conjugate of the log-partition, with ∇Φ(μ) = λ; Φ and the losses stay
undefined functions here, and SymPy differentiates through them. A scalar stands for a slot, as every line is linear in
the slots; the claim "gradient of KL in mu" of each family carries the lines to it.

    client     stationary in μ_k: ∇L_k − η_k + ρ(λ_k − λ_g) = 0
    dual       the multiplier at which ℒ itself is stationary in μ_k, ∇L_k eliminated by the client line.
               Assumption: γ damps, η_k moves the fraction γ of the way.
    Bregman    ascent on ℒ in η_k with step γρ: the constraint in μ. To first order in μ_g − μ_k the dual line is
               this ascent, preconditioned by the inverse of the Fisher information.
    server     stationary in μ_g at the clients' λ_k. Assumption: a free α stands for the proximal weight
               ς = (1 − α)/(αK), by linear elimination; the paper's α = 1/(1 + ρK) is ς = ρ.
    residuals  λ_k − λ_g, what the client's proximal term pulls with, and λ_g − λ_0 + Σ_k η_k = ∂ℒ/∂μ_g
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sympy as sp

lam_g, lam_k, lam_0, eta, grad = sp.symbols("lambda_g lambda_k lambda_0 eta G", real=True)
rho, gamma, alpha = sp.symbols("rho gamma alpha", positive=True)
K = sp.Symbol("K", integer=True, positive=True)
total, dual_total = sp.symbols("c E", real=True)
contribution_old = sp.Symbol("c_old", real=True)
mu_g, mu_k, mu_0 = sp.symbols("mu_g mu_k mu_0", real=True)
sum_lam, sum_g, sum_eta = sp.symbols("SumLambda SumG SumEta", real=True)

Phi, Loss = sp.Function("Phi"), sp.Function("L")
_client = sp.Symbol("k", integer=True, positive=True)
_mu, _eta, _lam = (sp.IndexedBase(name) for name in ("mu", "eta", "lambda"))


def divergence(first: sp.Expr, second: sp.Expr) -> sp.Expr:
    """KL(q‖p) of the expectation parameters of q and p: Φ(μ) − Φ(ν) − ⟨∇Φ(ν), μ − ν⟩."""
    return Phi(first) - Phi(second) - sp.Derivative(Phi(second), second) * (first - second)


def client_term() -> sp.Expr:
    """One client's part of ℒ: L_k(μ_k) − ⟨η_k, μ_k − μ_g⟩."""
    return Loss(mu_k) - eta * (mu_k - mu_g)


def lagrangian(server_weight: sp.Expr = sp.S.Zero) -> sp.Expr:
    """ℒ, with the server's proximal term of weight ς added."""
    term = client_term() + server_weight * divergence(mu_g, mu_k)
    return over_clients(term) + divergence(mu_g, mu_0)


def over_clients(term: sp.Expr) -> sp.Sum:
    """Σ_k of an expression in μ_k and η_k."""
    return sp.Sum(term.xreplace({mu_k: _mu[_client], eta: _eta[_client]}), (_client, 1, K))


def in_naturals(expr: sp.Expr) -> sp.Expr:
    """An expression with ∇Φ(μ) = λ and ∇L_k(μ_k) = G, and the sums over clients named."""
    slopes = {mu_g: lam_g, mu_k: lam_k, mu_0: lam_0, _mu[_client]: _lam[_client]}
    table = {sp.Derivative(Phi(m), m): lam for m, lam in slopes.items()} | {sp.Derivative(Loss(mu_k), mu_k): grad}
    expr = sp.expand(expr.doit().xreplace(table)).replace(lambda e: isinstance(e, sp.Sum), _named_sum)
    return sp.expand(expr)


def _named_sum(term: sp.Sum) -> sp.Expr:
    """ΣG, Σλ and Ση out of a sum over clients that is linear in them."""
    summand = sp.expand(term.function)
    named = {_lam[_client]: sum_lam, _eta[_client]: sum_eta}
    parts = {symbol: summand.coeff(entry) for entry, symbol in named.items()}
    rest = sp.expand(summand - sum(parts[s] * e for e, s in named.items()))
    return sum((c * s for s, c in parts.items()), K * rest)


@cache
def client_stationarity() -> sp.Expr:
    """∂/∂μ_k of ℒ + ρ KL(q_k‖q_g): G − η + ρ(λ_k − λ_g)."""
    return in_naturals(sp.diff(client_term() + rho * divergence(mu_k, mu_g), mu_k))


@cache
def client_map() -> sp.Expr:
    """λ_g + (η − ∇L)/ρ: what a client's natural parameter must equal."""
    (solution,) = sp.solve(client_stationarity(), lam_k)
    return lam_g + sp.Mul(1 / rho, sp.factor(rho * (solution - lam_g)), evaluate=False)


def cavity() -> sp.Expr:
    """λ_g + η/ρ: where a client without a loss goes."""
    return sp.expand(client_map().subs(grad, 0))


@cache
def multiplier() -> sp.Expr:
    """η + ρ(λ_g − λ_k): the η at which ℒ is stationary in μ_k, ∇L eliminated by the client line."""
    new = sp.Symbol("eta_new", real=True)
    unpenalised = in_naturals(sp.diff(client_term(), mu_k)).subs(eta, new)
    (solution,) = sp.solve([client_stationarity(), unpenalised], [new, grad], dict=True)
    return solution[new]


@cache
def dual_update() -> sp.Expr:
    """η + γρ(λ_g − λ_k): the fraction γ of the way to the multiplier."""
    return eta + sp.factor((1 - gamma) * eta + gamma * multiplier() - eta)


@cache
def bregman_dual_update() -> sp.Expr:
    """η + γρ(μ_g − μ_k): ascent on ℒ in η with step γρ."""
    return eta + gamma * rho * sp.factor(sp.diff(client_term(), eta))


@cache
def server_stationarity(weight: sp.Expr) -> sp.Expr:
    """∂/∂μ_g of ℒ + ς Σ_k KL(q_g‖q_k): λ_g − λ_0 + Ση + ς(Kλ_g − Σλ)."""
    return in_naturals(sp.diff(lagrangian(weight), mu_g))


def server_weight() -> sp.Expr:
    """ς = (1 − α)/(αK), the proximal weight that α stands for."""
    return (1 - alpha) / (alpha * K)


def server_step() -> sp.Expr:
    """1/(1 + ρK): the α whose proximal weight is the clients' penalty ρ."""
    (solution,) = sp.solve(server_weight() - rho, alpha)
    return solution


@cache
def server_solution() -> sp.Expr:
    """λ_g at the server's stationary point, in λ_0, Σλ and Ση."""
    (solution,) = sp.solve(server_stationarity(server_weight()), lam_g)
    return sp.expand(sp.cancel(solution))


def server_line(mean_client: sp.Expr, dual_sum: sp.Expr) -> sp.Expr:
    """(1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k): the stationary point in μ_g."""
    return server_solution().subs({sum_lam: K * mean_client, sum_eta: dual_sum})


def _weights() -> tuple[sp.Expr, sp.Expr]:
    """((1 − α)/K, −α): the weights of λ_k and η_k in the server line, which is linear in them."""
    numerator, denominator = sp.together(server_solution().diff(sum_lam)).as_numer_denom()
    return sp.expand(numerator) / denominator, server_solution().diff(sum_eta)


def server_contribution() -> sp.Expr:
    """c_k = (1 − α)/K λ_k − α η_k: a client's term of the server line."""
    client, dual = _weights()
    return client * lam_k + dual * eta


def server_update() -> sp.Expr:
    """α λ_0 + Σ_k c_k."""
    return server_solution().diff(lam_0) * lam_0 + total


def contribution_change() -> sp.Expr:
    """c_k − c_k(old) = (1 − α)/K λ_k − α η_k − c_k(old): what a client that takes part adds to a running sum, in which
    the absent ones keep the c_k that they sent last."""
    return server_contribution() - contribution_old


def primal_residual() -> sp.Expr:
    """λ_k − λ_g: the gradient of a client's proximal term over ρ, zero where it agrees with the server."""
    return in_naturals(sp.diff(divergence(mu_k, mu_g), mu_k))


def dual_residual() -> sp.Expr:
    """λ_g − λ_0 + Σ_k η_k = ∂ℒ/∂μ_g, zero where the duals explain what the server moved from the prior."""
    return server_stationarity(sp.S.Zero).subs(sum_eta, dual_total)


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


def one_round(step: sp.Expr = alpha, damping: sp.Expr = gamma, start: sp.Expr | None = None) -> OneRound:
    """Client, dual and server lines summed over clients for losses linear in μ, from λ_g = `start` (default λ_0 −
    Ση)."""
    begin = lam_0 - sum_eta if start is None else start
    mean_client = client_map().subs({lam_g: begin, grad: sum_g / K, eta: sum_eta / K})
    sum_dual = K * dual_update().subs({gamma: damping, lam_g: begin, lam_k: mean_client, eta: sum_eta / K})
    new = server_line(mean_client, sum_dual).subs(alpha, step)
    return OneRound(sp.simplify(mean_client), sp.simplify(sum_dual), new, lam_0 - sum_g, begin)
