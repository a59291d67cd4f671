"""Claims about IVON: the derived step is the paper's, the lines in s and the cavity are that step, and the lowered
sweeps are those lines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import mpmath as mp
import sympy as sp

from ..ir.evaluate import Evaluator
from ..ir.nodes import Sweep
from ..lower.ivon import optimizer
from ..updates import admm, ivon
from . import noise
from .claim import DIGITS, Claim, ClaimError, domain_points, numeric, zero

PAPER = "arXiv:2402.17641, algorithm 1"
LOWERED = "derive/lower/ivon.py"
# The step's own symbols: samples, momentum and clip, which surround the derived lines.
lr, beta1, debias, clip, samples, eps_next = sp.symbols("lr beta_1 debias clip samples eps_next", positive=True)
v, total_g, total_q = sp.symbols("v total_g total_q", real=True)


def cavity_of_the_client() -> str:
    """The client's objective is L − ⟨ρλ_g + η, μ⟩ − ρH(q) + a constant: the cavity is all that a round fixes."""
    objective = ivon.client_objective()
    loss = next(f for f in objective.atoms(sp.Function) if f.func.__name__ == "L")
    rest = objective.subs(loss, 0)
    natural = (ivon.rho * ivon.S_g * ivon.m_g + ivon.eta_xi, ivon.rho * ivon.S_g + ivon.eta_s)
    moments = (ivon.m, -(ivon.m**2 + 1 / ivon.S) / 2)
    entropy = -sp.log(ivon.S) / 2
    left = rest + sum(a * b for a, b in zip(natural, moments, strict=True)) + ivon.rho * entropy
    zero(sp.diff(left, ivon.m), sp.diff(left, ivon.S), what="a term beside the cavity")
    shift = ivon.rho * admm.cavity().subs({admm.lam_g: ivon.S_g, admm.eta: ivon.eta_s, admm.rho: ivon.rho})
    zero(shift - natural[1], what="ρ times the cavity of a round")
    c_xi, c_s = ivon.cavity()
    return zero(c_xi - (ivon.eta_xi + ivon.delta * ivon.m_g), c_s - (ivon.eta_s + ivon.delta))


def step_with_cavity() -> str:
    """With s = h + δ and θ − m = ε/√(ess s): f + δ, the new h and the direction are those of the derived step."""
    step, lines = ivon.step(), ivon.kernel_step()
    theta = sp.Symbol("theta", real=True)
    cavity = dict(zip((ivon.c_xi, ivon.c_s), ivon.cavity(), strict=True))
    shifted = {ivon.s: ivon.h + ivon.delta}
    sample = lines.sample.subs(shifted)
    zero(lines.curvature.subs(cavity).subs(shifted) - (step.estimate.subs(theta, sample) + ivon.delta), what="f")
    velocity = lines.velocity.subs(ivon.f, ivon.f + ivon.delta).subs(shifted)
    precision = lines.precision.subs(ivon.w, velocity).subs(shifted)
    zero(precision - (step.precision + ivon.delta), what="s")
    return zero(lines.direction.subs(cavity).subs(shifted) - step.direction, what="the direction")


def plain_step() -> str:
    """η = 0 and m_g = 0: the cavity is (0, δ), and the lines are IVON's with weight decay δ."""
    plain = [t.subs({ivon.eta_xi: 0, ivon.eta_s: 0, ivon.m_g: 0}) for t in ivon.cavity()]
    zero(plain[0], plain[1] - ivon.delta, what="the cavity")
    lines, cavity = ivon.kernel_step(), dict(zip((ivon.c_xi, ivon.c_s), plain, strict=True))
    beta2, h, delta, f = ivon.beta2, ivon.h, ivon.delta, ivon.f
    shifted = {ivon.s: h + delta}
    hessian = beta2 * h + (1 - beta2) * f + (1 - beta2) ** 2 * (h - f) ** 2 / (2 * (h + delta))
    velocity = lines.velocity.subs(f, f + delta).subs(shifted)
    zero(lines.precision.subs(ivon.w, velocity).subs(shifted) - (hessian + delta), what="the Hessian")
    mean = (ivon.g + delta * ivon.m) / (h + delta)
    return zero(lines.direction.subs(cavity).subs(shifted) - mean, what="the direction")


def lowest_retraction() -> str:
    """s + w + w²/(2s) >= s/2: no step more than halves the precision."""
    s, w = ivon.s, ivon.w
    return zero(ivon.kernel_step().precision - (s / 2 + (s + w) ** 2 / (2 * s)))


def expected_results(name: str) -> dict[str, sp.Expr]:
    """What a sweep's results are, from the derived lines."""
    lines = ivon.kernel_step()
    if name == "sample":
        return {"sample": lines.sample}
    g, averaged = ivon.g, name.endswith(("averaged", "averaged_squares"))
    if name.startswith("accumulate"):
        other = {"total_square": g**2} if name.endswith("squares") else {"total_price": g * ivon.eps}
        return {"total_gradient": total_g + g, **{k: total_q + x for k, x in other.items()}}
    price = sp.Symbol("price", real=True)
    estimate = lines.curvature.subs(g * ivon.eps, price)
    estimate = estimate.subs(price, total_q / samples if averaged else g * ivon.eps)
    if name.endswith("squares"):
        estimate = total_q / samples + ivon.c_s
    gradient = total_g / samples if averaged else g
    precision = lines.precision.subs(ivon.w, lines.velocity.subs(ivon.f, estimate))
    if name.startswith("update_precision"):
        return {"precision": precision, "slope": sp.expand(lines.direction * ivon.s).subs(g, gradient)}
    momentum = beta1 * v + (1 - beta1) * gradient
    whole = sp.Symbol("whole", real=True)
    direction = sp.Max(-clip, sp.Min(clip, whole))
    numerator = sp.expand(lines.direction * ivon.s).subs(g, momentum / debias)
    mean = ivon.m - lr * direction.subs(whole, numerator / precision)
    found = {"mean": mean, "precision": precision, "momentum": momentum}
    if name == "update_sample":
        found["sample"] = mean + eps_next / sp.sqrt(ivon.ess * precision)
    return found


def lowered(sweep: Sweep) -> str:
    """A sweep's IR, run in exact arithmetic, equals the derived lines, inside the clip and beyond it."""
    evaluator, expected = Evaluator(()), expected_results(sweep.name)
    if [r.name for r in sweep.results] != list(expected):
        raise ClaimError(f"{sweep.name} gives {[r.name for r in sweep.results]}, expected {list(expected)}")
    symbols = set().union(*(e.free_symbols for e in expected.values()))
    with mp.workdps(DIGITS):
        for seed in (11, 12, 13):
            for point in domain_points(symbols, seed=seed):
                env = {str(k): x for k, x in point.items()}
                for result, got in zip(sweep.results, evaluator.kernel(sweep, env), strict=True):
                    want = numeric(expected[result.name], point)
                    if abs(got - want) > mp.mpf(10) ** -40 * max(1, abs(want)):
                        raise ClaimError(
                            f"{sweep.name}: {result.name} is {mp.nstr(got, 12)}, derived {mp.nstr(want, 12)}"
                        )
    return f"mpmath, {DIGITS} digits at 15 random points"


def ivon_step() -> str:
    """The derived step is algorithm 1 with prior and duals."""
    s, h, f, d = ivon.step(), ivon.h, ivon.f, ivon.delta
    curvature = ivon.beta2 * h + (1 - ivon.beta2) * f + (1 - ivon.beta2) ** 2 * (h - f) ** 2 / (2 * (h + d))
    direction = (ivon.g - ivon.eta_xi + ivon.eta_s * ivon.m + d * (ivon.m - ivon.m_g)) / (h + d)
    return zero(s.precision - curvature, s.direction - direction)


def ivon_ess() -> str:
    """In units of ess the precision's step is (1 − β₂)(f − h) for the curvature f of the mean loss."""
    zero(ivon.effective_sample_size() - ivon.N / (ivon.tau * ivon.rho))
    return zero(ivon.precision_velocity() - (1 - ivon.beta2) * (ivon.f - ivon.h))


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
    """Claims about the step, its lines in s and the cavity, its sweeps and the normals."""
    rows = [
        (
            "IVON step",
            r"h\leftarrow\beta_2h+(1-\beta_2)f+\tfrac12(1-\beta_2)^2\tfrac{(h-f)^2}{h+\delta}",
            ivon_step,
            PAPER,
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
            PAPER,
        ),
        (
            "effective sample size",
            r"S=ess\,(h+\delta),\ ess=\tfrac{N}{\tau\rho}:\ h\leftarrow h+(1-\beta_2)(f-h)+O((1-\beta_2)^2)",
            ivon_ess,
            f"{PAPER}, with the client line of arXiv:2506.13150",
        ),
    ]
    for name, statement, prove, source in rows:
        yield Claim(name, "ivon", statement, prove, source)
    yield Claim(
        "cavity",
        "ivon",
        r"L-\langle\eta,\mu\rangle+\rho\,\mathrm{KL}=L-\langle\rho\lambda_g+\eta,\mu\rangle-\rho H(q)+c,\ "
        r"c=(\eta_\xi+\delta m_g,\ \eta_S+\delta)",
        cavity_of_the_client,
        f"{PAPER}, with the client line of arXiv:2506.13150",
    )
    yield Claim(
        "step in s and the cavity",
        "ivon",
        r"s=h+\delta,\ \theta=m+\tfrac{\epsilon}{\sqrt{ess\,s}}:\ f+\delta=\hat g\epsilon\sqrt{ess\,s}+c_S,\ "
        r"s\leftarrow s+w+\tfrac{w^2}{2s},\ w=(1-\beta_2)(f+\delta-s)",
        step_with_cavity,
        f"{PAPER}, with the client line of arXiv:2506.13150",
    )
    yield Claim("step in s without prior or duals", "ivon", r"c=(0,\delta):\ \text{IVON}", plain_step, PAPER)
    yield Claim(
        "precision at least halves",
        "ivon",
        r"s+w+\tfrac{w^2}{2s}\ge\tfrac s2",
        lowest_retraction,
        "derive/updates/ivon.py",
    )
    module = optimizer()
    for sweep in module.kernels:
        statement = rf"\text{{IR of {sweep.name} equals the derived lines}}".replace("_", r"\_")
        target = f"{module.name}.{sweep.name}"
        yield Claim(f"lowered {sweep.name}", "ivon", statement, partial(lowered, sweep), LOWERED, (target,))
    yield from noise.claims(f"{module.name}.{module.generator.name}")
