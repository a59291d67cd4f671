"""Claims about a round, the same for every family: the lines follow from the Lagrangian and have its fixed point."""

from __future__ import annotations

from collections.abc import Iterator

import sympy as sp

from ..updates import admm, ivon
from ..updates.admm import K, alpha, eta, gamma, grad, lam_0, lam_g, lam_k, rho, sum_eta, sum_g
from .claim import Claim, ClaimError, zero

PAPER = "arXiv:2506.13150"


def dual_is_gradient() -> str:
    """At γ = 1 and an exact client the new dual is ∇L_k."""
    return zero(admm.dual_update().subs({gamma: 1, lam_k: admm.client_map()}) - grad)


def client_line() -> str:
    """The client line is the root of ∂ℒ/∂μ_k with the proximal term, for K = 1..3 clients written out."""
    zero(admm.client_stationarity() - (grad - eta + rho * (lam_k - lam_g)))
    zero(admm.client_stationarity().subs(lam_k, admm.client_map()))
    for clients in range(1, 4):
        mus, etas = sp.symbols(f"m1:{clients + 1}"), sp.symbols(f"e1:{clients + 1}")
        terms = [
            admm.client_term().xreplace({admm.mu_k: mu, eta: e}) + rho * admm.divergence(mu, admm.mu_g)
            for mu, e in zip(mus, etas, strict=True)
        ]
        whole = sum(terms) + admm.divergence(admm.mu_g, admm.mu_0)
        alone = sp.diff(admm.client_term() + rho * admm.divergence(admm.mu_k, admm.mu_g), admm.mu_k)
        zero(sp.diff(whole, mus[-1]) - alone.xreplace({admm.mu_k: mus[-1], eta: etas[-1]}))
    return "symbolic, K = 1..3"


def cavity_line() -> str:
    """The cavity solves the client line without a loss, and λ_k is the cavity less ∇L/ρ."""
    zero(admm.client_stationarity().subs({lam_k: admm.cavity(), grad: 0}))
    return zero(admm.client_map() - (admm.cavity() - grad / rho))


def bregman_line() -> str:
    """Ascent on ℒ in η_k; to first order in μ_g − μ_k Bayesian ADMM's dual line is this ascent, preconditioned by
    ∇²Φ = F⁻¹."""
    zero(admm.bregman_dual_update() - (eta + gamma * rho * sp.diff(admm.client_term(), eta)))
    zero(admm.bregman_dual_update().subs(admm.mu_k, admm.mu_g) - eta)
    step, here, away = sp.symbols("epsilon mu d", real=True)
    slope = sp.diff(admm.Phi(here), here)
    moved = slope.subs(here, here + step * away).doit()
    line = sp.diff(admm.dual_update(), lam_g) * sp.diff(moved, step).doit().subs(step, 0).doit()
    ascent = sp.diff(admm.bregman_dual_update(), admm.mu_g) * away
    return zero(line - sp.diff(slope, here) * ascent)


def server_stationary() -> str:
    """The server line at α = 1/(1 + ρK) is stationary for KL(q_g‖p_0) + Σ⟨η_k, μ_g⟩ + ρ Σ KL(q_g‖q_k); checked against
    the Lagrangian written out for K = 1..3."""
    mean = sp.Symbol("mean", real=True)
    stationarity = (lam_g - lam_0) + sum_eta + rho * K * (lam_g - mean)
    zero(admm.server_stationarity(rho).subs(admm.sum_lam, K * mean) - stationarity)
    (solution,) = sp.solve(stationarity, lam_g)
    zero(admm.server_step() - 1 / (1 + rho * K))
    zero(solution - admm.server_line(mean, sum_eta).subs(alpha, admm.server_step()))
    for clients in range(1, 4):
        mus, etas = sp.symbols(f"m1:{clients + 1}"), sp.symbols(f"e1:{clients + 1}")
        pairs = zip(mus, etas, strict=True)
        whole = sum(
            (admm.client_term() + rho * admm.divergence(admm.mu_g, admm.mu_k)).xreplace({admm.mu_k: mu, eta: e})
            for mu, e in pairs
        )
        lams = {sp.Derivative(admm.Phi(mu), mu): sp.Symbol(f"l{k}") for k, mu in enumerate(mus)}
        slope = admm.in_naturals(sp.diff(whole + admm.divergence(admm.mu_g, admm.mu_0), admm.mu_g).xreplace(lams))
        summed = {admm.sum_lam: sum(lams.values()), sum_eta: sum(etas), K: clients}
        zero(slope - admm.server_stationarity(rho).subs(summed))
    return "symbolic, K = 1..3 written out"


def absent_clients() -> str:
    """A running sum to which those that take part add c_k − c_k(old) is Σ_k c_k, for every set of 1..4 clients."""
    for clients in range(1, 5):
        names = ("l", "e", "o")
        columns = [sp.symbols(f"{n}1:{clients + 1}", real=True) for n in names]
        rows = list(zip(*columns, strict=True))
        for here in range(2**clients):
            total, running = sp.S.Zero, sp.S.Zero
            for k, (lam, dual, old) in enumerate(rows):
                change = admm.contribution_change().subs({lam_k: lam, eta: dual, admm.contribution_old: old})
                takes_part = here >> k & 1
                running += old + (change if takes_part else 0)
                total += admm.server_contribution().subs({lam_k: lam, eta: dual}) if takes_part else old
            zero(sp.expand(running - total))
    return "symbolic, K = 1..4, every set of clients"


def residuals() -> str:
    """The dual line moves by −γρ times the primal residual, the server line from a consensus by −α times the dual one:
    both vanish at the fixed point and nowhere else."""
    zero(admm.dual_update() - eta + gamma * rho * admm.primal_residual())
    server = admm.server_line(lam_g, admm.dual_total) - lam_g
    zero(sp.expand(server + alpha * admm.dual_residual()))
    return zero(admm.primal_residual().subs(lam_k, lam_g), admm.dual_residual().subs(lam_g, lam_0 - admm.dual_total))


def server_sum() -> str:
    """α λ_0 + Σ_k c_k is the server line; summed explicitly for K = 1..5 with unequal clients."""
    for clients in range(1, 6):
        lams, etas = sp.symbols(f"l1:{clients + 1}"), sp.symbols(f"e1:{clients + 1}")
        total = sum(
            admm.server_contribution().subs({lam_k: x, eta: y, K: clients}) for x, y in zip(lams, etas, strict=True)
        )
        line = admm.server_line(sum(lams) / clients, sum(etas))
        zero(sp.expand(admm.server_update().subs(admm.total, total) - line))
    return "symbolic, K = 1..5"


def fixed_point() -> str:
    """λ_k = λ_g, η_k = ∇L_k and λ_g = λ_0 − Ση_k are kept by all three lines, and nothing else is for α, γ, ρ > 0."""
    zero(admm.client_map().subs(eta, grad) - lam_g)
    zero(admm.dual_update().subs(lam_k, lam_g) - eta)
    server = admm.server_line(lam_g, sum_eta)
    zero(server.subs(lam_g, lam_0 - sum_eta) - (lam_0 - sum_eta))
    (agree,) = sp.solve(admm.dual_update() - eta, lam_k)
    (optimal,) = sp.solve(sp.expand(server - lam_g), lam_g)
    return zero(agree - lam_g, optimal - (lam_0 - sum_eta))


def classic_admm() -> str:
    """λ = s m, y = −η: line by line Boyd et al. (2011), section 7.1, with penalty ρs and prior ½s(z − z_0)²."""
    s, x, z, z0 = sp.symbols("s x z z0", positive=True)
    y, slope, mean_x, mean_y = sp.symbols("y slope xbar ybar", real=True)
    isotropic = {lam_k: s * x, lam_g: s * z, eta: -y, grad: slope}
    augmented = slope + y + rho * s * (x - z)  # ∂/∂x of f(x) + y(x − z) + ρs/2 (x − z)²
    zero(admm.client_stationarity().subs(isotropic) - augmented)
    dual = -(admm.dual_update().subs({**isotropic, gamma: 1}))
    zero(dual - (y + rho * s * (x - z)))
    server = admm.server_line(s * mean_x, -K * mean_y).subs({lam_0: s * z0, alpha: 1 / (1 + rho * K)}) / s
    consensus = (
        s * (z - z0) - K * mean_y - rho * s * K * (mean_x - z)
    )  # ∂/∂z of the augmented Lagrangian with prior precision s
    (boyd,) = sp.solve(consensus, z)
    return zero(server - boyd)


def pvi() -> str:
    """ρ = α = γ = 1: the cavity λ_g + η_k, the site −η_k and the sum of sites of partitioned variational inference."""
    one = {rho: 1, gamma: 1}
    client = admm.client_map().subs(one)
    cavity, site = lam_g + eta, -eta
    zero(client - (cavity - grad))
    new_site = lam_k - cavity
    zero(-admm.dual_update().subs(one) - new_site)
    server = admm.server_line(lam_g, sum_eta)
    return zero(server.subs(alpha, 1) - (lam_0 - sum_eta), cavity + site - lam_g)


def one_round_error() -> str:
    """λ_g¹ − λ* = (ρK − γ)/(ρK + 1) Σ(G − η⁰)."""
    round_ = admm.one_round(step=1 / (1 + rho * K))
    return zero(round_.error - (rho * K - gamma) / (rho * K + 1) * (sum_g - sum_eta))


def one_round_exact() -> str:
    """At γ = 1 the factor vanishes exactly at ρ = 1/K."""
    error = admm.one_round(step=1 / (1 + rho * K), damping=sp.S.One).error
    factor = sp.solve(error, rho)
    if factor != [1 / K]:
        raise ClaimError(f"expected ρ = 1/K, got {factor}")
    return zero(error.subs(rho, 1 / K))


def exact_at_one() -> str:
    """α = γ = 1: exact from any start and any ρ."""
    return zero(admm.one_round(step=sp.S.One, damping=sp.S.One, start=sp.Symbol("lambda_start", real=True)).error)


def rate() -> str:
    """At γ = 1 from the second round on the error shrinks by 1 − α: with η = G the server averages λ_g and λ*."""
    start = sp.Symbol("lambda_start", real=True)
    later = admm.one_round(damping=sp.S.One, start=start)
    settled = later.lam_global.subs(sum_eta, sum_g)
    return zero(settled - later.fixed_point - (1 - alpha) * (start - later.fixed_point))


def existence() -> str:
    """Along a growing variance v the client's objective grows like ½(ρS_g + η_S)v: bounded below iff that is
    positive."""
    v, a, b = sp.symbols("v a b", positive=True)
    s_g, eta_s = sp.Symbol("S_g", positive=True), sp.Symbol("eta_S", real=True)
    m_g, xi = sp.symbols("m_g eta_xi", real=True)
    m = sp.Symbol("m", real=True)
    objective = ivon.client_objective().subs(
        {ivon.S: 1 / v, ivon.S_g: s_g, ivon.eta_s: eta_s, ivon.m_g: m_g, ivon.eta_xi: xi, ivon.m: m, ivon.rho: rho}
    )
    loss = [f for f in objective.atoms(sp.Function) if f.func.__name__ == "L"]
    bounded = objective.subs({loss[0]: a + b * sp.sqrt(v)})  # a loss of at most linear growth: E[ℓ] = O(sd)
    return zero(sp.limit(sp.expand(sp.expand_log(bounded / v, force=True)), v, sp.oo) - (rho * s_g + eta_s) / 2)


def existence_direction() -> str:
    """For a matrix precision the same along every direction u: the coefficient is ½uᵀ(ρS_g + η_S)u."""
    for d in (1, 2, 3):
        u = sp.Matrix(sp.symbols(f"u1:{d + 1}"))
        s_g, eta_s = (sp.Matrix(d, d, lambda i, j, n=n: sp.Symbol(f"{n}{min(i, j)}{max(i, j)}")) for n in ("S", "e"))
        v = sp.Symbol("v", positive=True)
        # −⟨η, μ⟩ + ρ KL ⊃ ½tr((η_S + ρS_g)Σ) at Σ = Σ_0 + v uuᵀ; log det Σ grows only like log v.
        growth = sp.diff(((eta_s + rho * s_g) * v * u * u.T).trace() / 2, v)
        zero(growth - (u.T * (rho * s_g + eta_s) * u)[0, 0] / 2)
    return "elementwise at d = 1, 2, 3: symbolic"


def claims() -> Iterator[Claim]:
    """Claims about the round."""
    rows = [
        (
            "client line",
            r"\nabla_{\mu_k}\left[\mathcal{L}+\rho\,\mathrm{KL}(q_k\|q_g)\right]=0:\ "
            r"\lambda_k=\lambda_g+(\eta_k-\nabla L_k)/\rho",
            client_line,
            f"{PAPER}, client line",
        ),
        (
            "cavity",
            r"\nabla L_k=0:\ \lambda_k=\lambda_g+\eta_k/\rho",
            cavity_line,
            f"{PAPER}, client line",
        ),
        (
            "dual equals natural gradient",
            r"\gamma=1 \Rightarrow \eta_k^{new}=\nabla L_k(\mu_k)",
            dual_is_gradient,
            f"{PAPER}, dual line",
        ),
        (
            "Bregman dual line",
            r"\eta_k+\gamma\rho\nabla_{\eta_k}\mathcal{L}=\eta_k+\gamma\rho(\mu_g-\mu_k),\ "
            r"\lambda_g-\lambda_k=F^{-1}(\mu_g-\mu_k)+o(\mu_g-\mu_k)",
            bregman_line,
            "Wang & Banerjee, NeurIPS 2014",
        ),
        (
            "server stationarity",
            r"\alpha=\tfrac1{1+\rho K}:\ \lambda_g-\lambda_0+\sum_k\eta_k+\rho\sum_k(\lambda_g-\lambda_k)=0",
            server_stationary,
            f"{PAPER}, server line",
        ),
        (
            "sum form of the server",
            r"\lambda_g=\alpha\lambda_0+\sum_k c_k,\ c_k=\tfrac{1-\alpha}{K}\lambda_k-\alpha\eta_k",
            server_sum,
            f"{PAPER}, server line",
        ),
        (
            "absent clients",
            r"\sum_k c_k=\sum_k c_k^{old}+\sum_{k\in S}(c_k-c_k^{old})",
            absent_clients,
            f"{PAPER}, server line",
        ),
        (
            "residuals",
            r"\lambda_k-\lambda_g=0,\ \lambda_g-\lambda_0+\sum_k\eta_k=0:\ \text{the lines stand still}",
            residuals,
            f"{PAPER}, section 3",
        ),
        (
            "fixed point",
            r"\lambda_k^*=\lambda_g^*,\ \eta_k^*=\nabla L_k,\ \lambda_g^*=\lambda_0-\sum_k\eta_k^*",
            fixed_point,
            f"{PAPER}, section 3",
        ),
        (
            "classic ADMM",
            r"\lambda=sm,\ y=-\eta:\ \text{consensus ADMM with penalty }\rho s",
            classic_admm,
            "Boyd et al. 2011, section 7.1",
        ),
        (
            "PVI",
            r"\rho=\alpha=\gamma=1:\ \text{partitioned variational inference}",
            pvi,
            "Ashman et al., arXiv:2202.12275",
        ),
        (
            "one-round theorem",
            r"\lambda_g^1-\lambda^*=\tfrac{\rho K-\gamma}{\rho K+1}\sum_k(G_k-\eta_k^0)",
            one_round_error,
            f"{PAPER}, section 3",
        ),
        ("one round exact", r"\gamma=1:\ \lambda_g^1=\lambda^*\iff\rho=1/K", one_round_exact, f"{PAPER}, section 3"),
        (
            "exact at alpha = gamma = 1",
            r"\alpha=\gamma=1:\ \lambda_g^1=\lambda^*\ \forall\rho,\lambda_g^0,\eta^0",
            exact_at_one,
            f"from the three lines of {PAPER}",
        ),
        (
            "later rate",
            r"\gamma=1:\ \lambda_g^{t+1}-\lambda^*=(1-\alpha)(\lambda_g^t-\lambda^*),\ t\ge1",
            rate,
            f"from the three lines of {PAPER}",
        ),
        (
            "existence condition",
            r"\lim_{v\to\infty}\tfrac1v\left[L-\langle\eta,\mu\rangle+\rho\,\mathrm{KL}\right]"
            r"=\tfrac12(\rho S_g+\eta_S)",
            existence,
            f"from the client line of {PAPER}",
        ),
        (
            "existence along a direction",
            r"\tfrac{d}{dv}\tfrac12\mathrm{tr}\left((\rho S_g+\eta_S)\,v\,uu^\top\right)"
            r"=\tfrac12u^\top(\rho S_g+\eta_S)u",
            existence_direction,
            f"from the client line of {PAPER}",
        ),
    ]
    for name, statement, prove, source in rows:
        yield Claim(name, "round", statement, prove, source)
