"""Claims about a round, the same for every family, and about the IVON step."""

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


def server_stationary() -> str:
    """The server line at α = 1/(1 + ρK) is stationary for KL(q_g‖p_0) + Σ⟨η_k, μ_g⟩ + ρ Σ D(μ_g, μ_k)."""
    mean = sp.Symbol("mean", real=True)
    stationarity = (lam_g - lam_0) + sum_eta + rho * K * (lam_g - mean)
    (solution,) = sp.solve(stationarity, lam_g)
    line = admm.server_line(mean, sum_eta).subs(alpha, 1 / (1 + rho * K))
    return zero(solution - line)


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
    zero(admm.client_stationarity(lam_k).subs(isotropic) - augmented)
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


def ivon_step() -> str:
    """The derived step is algorithm 1 with prior and duals."""
    s, h, f, d = ivon.step(), ivon.h, ivon.f, ivon.delta
    curvature = ivon.beta2 * h + (1 - ivon.beta2) * f + (1 - ivon.beta2) ** 2 * (h - f) ** 2 / (2 * (h + d))
    direction = (ivon.g - ivon.eta_xi + ivon.eta_s * ivon.m + d * (ivon.m - ivon.m_g)) / (h + d)
    return zero(s.precision - curvature, s.direction - direction)


def ivon_positive() -> str:
    """h + δ stays positive: the new value is ½((h + δ) + (h + δ + v)²/(h + δ))."""
    x, v = sp.Symbol("x", positive=True), sp.Symbol("v", real=True)
    return zero(ivon.retraction(x, v) - (x + (x + v) ** 2 / x) / 2)


def ivon_geodesic() -> str:
    """x·exp(tv/x) is the geodesic of the Fisher metric dx²/(2x²): x″ = x′²/x with the right start."""
    x, v, t = sp.Symbol("x", positive=True), sp.Symbol("v", real=True), ivon.t
    path = x * sp.exp(t * v / x)
    return zero(
        sp.diff(path, t, 2) - sp.diff(path, t) ** 2 / path, path.subs(t, 0) - x, sp.diff(path, t).subs(t, 0) - v
    )


def ivon_estimate() -> str:
    """E[∇ℓ (θ − m)] S = E[∇²ℓ] under N(m, 1/S), on every monomial to degree 6 (Stein)."""
    m, s, z = sp.Symbol("m", real=True), sp.Symbol("S", positive=True), sp.Symbol("z", real=True)
    weight = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    moments = {n: sp.integrate(z**n * weight, (z, -sp.oo, sp.oo)) for n in range(8)}

    def mean(poly: sp.Expr) -> sp.Expr:
        return sum(c * moments[n] for (n,), c in sp.Poly(sp.expand(poly), z).terms())

    theta = m + z / sp.sqrt(s)
    x = sp.Symbol("x")
    gaps = [
        mean(sp.diff(x**n, x).subs(x, theta) * (theta - m)) * s - mean(sp.diff(x**n, x, 2).subs(x, theta))
        for n in range(1, 7)
    ]
    return zero(*gaps)


def ivon_plain() -> str:
    """η = 0 and m_g = 0: the step of IVON itself, with weight decay δ."""
    s = ivon.step()
    plain = s.direction.subs({ivon.eta_xi: 0, ivon.eta_s: 0, ivon.m_g: 0})
    return zero(plain - (ivon.g + ivon.delta * ivon.m) / (ivon.h + ivon.delta))


def claims() -> Iterator[Claim]:
    """Claims about the round and about IVON."""
    rows = [
        (
            "dual equals natural gradient",
            r"\gamma=1 \Rightarrow \eta_k^{new}=\nabla L_k(\mu_k)",
            dual_is_gradient,
            f"{PAPER}, dual line",
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
        (
            "IVON step",
            r"h\leftarrow\beta_2h+(1-\beta_2)f+\tfrac12(1-\beta_2)^2\tfrac{(h-f)^2}{h+\delta}",
            ivon_step,
            "arXiv:2402.17641, algorithm 1",
        ),
        (
            "IVON stays positive",
            r"x+v+\tfrac{v^2}{2x}=\tfrac12\left(x+\tfrac{(x+v)^2}{x}\right)>0",
            ivon_positive,
            "arXiv:2402.17641",
        ),
        ("IVON retraction", r"x(t)=xe^{tv/x}\text{ is a geodesic of }dx^2/(2x^2)", ivon_geodesic, "arXiv:2402.17641"),
        (
            "IVON Hessian estimate",
            r"\mathbb{E}[\nabla\ell\,(\theta-m)]\,S=\mathbb{E}[\nabla^2\ell]",
            ivon_estimate,
            "arXiv:2402.17641",
        ),
        (
            "IVON as a special case",
            r"\eta=0,\ m_g=0:\ m\leftarrow m-\tfrac{lr\,(g+\delta m)}{h+\delta}",
            ivon_plain,
            "arXiv:2402.17641, algorithm 1",
        ),
    ]
    for name, statement, prove, source in rows:
        yield Claim(name, "ivon" if name.startswith("IVON") else "round", statement, prove, source)
