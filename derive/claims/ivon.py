"""Claims about the IVON kernels: the lines in s and the cavity are the derived step, the lowered sweeps are those
lines, and the normals' polynomials meet their bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import mpmath as mp
import sympy as sp

from ..ir.evaluate import Evaluator, Word
from ..ir.nodes import Sweep, Var
from ..lower import noise
from ..lower.ivon import optimizer
from ..lower.noise import DOUBLE, INTERVALS, SINGLE, Precision
from ..updates import ivon
from .claim import DIGITS, Claim, ClaimError, domain_points, numeric, zero

PAPER = "arXiv:2402.17641, algorithm 1"
GRID = 2000
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
    g, averaged = ivon.g, name.startswith("update_averaged")
    if name.startswith("accumulate"):
        other = {"total_square": g**2} if name.endswith("squares") else {"total_price": g * ivon.eps}
        return {"total_gradient": total_g + g, **{k: total_q + x for k, x in other.items()}}
    price = sp.Symbol("price", real=True)
    estimate = lines.curvature.subs(g * ivon.eps, price)
    estimate = estimate.subs(price, total_q / samples if averaged else g * ivon.eps)
    if name.endswith("squares"):
        estimate = total_q / samples + ivon.c_s
    gradient = total_g / samples if averaged else g
    momentum = beta1 * v + (1 - beta1) * gradient
    precision = lines.precision.subs(ivon.w, lines.velocity.subs(ivon.f, estimate))
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
                for result, got in zip(sweep.results, evaluator.sweep(sweep, env), strict=True):
                    want = numeric(expected[result.name], point)
                    if abs(got - want) > mp.mpf(10) ** -40 * max(1, abs(want)):
                        raise ClaimError(
                            f"{sweep.name}: {result.name} is {mp.nstr(got, 12)}, derived {mp.nstr(want, 12)}"
                        )
    return f"mpmath, {DIGITS} digits at 15 random points"


def polynomial_error(function: Callable[[mp.mpf], mp.mpf], terms: int, p: Precision) -> mp.mpf:
    """Largest relative error of a polynomial with its coefficients rounded to the type, over its whole interval."""
    low, high = (mp.mpf(x) for x in INTERVALS[function])
    coefficients = [noise.rounded(c, p) for c in reversed(noise.polynomial(function, terms))]
    points = (low + (high - low) * k / GRID for k in range(GRID + 1))
    return max(abs(mp.polyval(coefficients, x) / function(x) - 1) for x in points)


def polynomials(p: Precision) -> str:
    """Each polynomial is within one unit roundoff of its function."""
    with mp.workdps(DIGITS):
        bounds = [
            polynomial_error(f, n, p) / p.unit
            for f, n in (
                (noise.log_quotient, p.log_terms),
                (noise.sine_quotient, p.sine_terms),
                (noise.cosine, p.cosine_terms),
            )
        ]
        if max(bounds) > 1:
            raise ClaimError(f"a polynomial misses its function by {mp.nstr(max(bounds), 3)} units")
        listed = ", ".join(mp.nstr(b, 2) for b in bounds)
    return f"mpmath, {DIGITS} digits on {GRID} intervals: {listed} of a unit"


def box_muller(p: Precision) -> str:
    """The lowered pair, run in exact arithmetic but for the roundings of u, is Box–Muller's of its integers."""
    evaluator, lines = Evaluator((), width=p.width), noise.Lines()
    pair = noise.pair(lines, Var("low"), Var("high"), p)
    top = 2**p.width
    words = [0, 1, 2, 3, top // 3, top // 2 - 1, top // 2, top - 2, top - 1, *(k * top // 97 for k in range(1, 97, 7))]
    with mp.workdps(DIGITS):
        for a in words:
            for b in words:
                env = {"low": Word(a, p.width), "high": Word(b, p.width)}
                evaluator.run(tuple(lines.body), env)
                for got, want in zip([evaluator.expr(e, env) for e in pair], exact_pair(a, b, p), strict=True):
                    if abs(got - want) > 4 * p.unit * abs(want):
                        raise ClaimError(f"the pair of ({a}, {b}) gives {mp.nstr(got, 20)}, not {mp.nstr(want, 20)}")
    return f"mpmath, {DIGITS} digits at {len(words)} x {len(words)} pairs of integers, their ends among them"


def even_angles(p: Precision) -> str:
    """Integers spread evenly over their range give angles spread evenly over the circle, all of them different."""
    count, top = 64, 2**p.width
    with mp.workdps(DIGITS):
        pairs = [exact_pair(top // 2, k * top // count + top // (2 * count) - 1, p) for k in range(count)]
        turns = sorted(mp.atan2(y, x) / (2 * mp.pi) % 1 for x, y in pairs)
        gaps = [b - a for a, b in zip(turns, [*turns[1:], turns[0] + 1], strict=True)]
        worst = max(abs(gap * count - 1) for gap in gaps)
        if worst > mp.mpf(2) ** (8 - p.width):
            raise ClaimError(f"angles are uneven by {mp.nstr(worst, 5)}")
    return f"mpmath, {DIGITS} digits at {count} integers"


def exact_pair(a: int, b: int, p: Precision) -> tuple[mp.mpf, mp.mpf]:
    """Box–Muller of u, rounded as the kernels do, and of the angle of b, within an eighth of a turn of an axis."""
    u = noise.rounded(noise.rounded(a >> 1, p) * mp.mpf(2) ** (1 - p.width) + mp.mpf(2) ** -p.width, p)
    r = mp.sqrt(-2 * mp.log(u))
    low = (b << 2) % 2**p.width
    signed = low - 2**p.width if low >> (p.width - 1) else low
    turn = (mp.mpf(signed) + 2) / mp.mpf(2) ** (p.width + 2)
    sine, cosine = mp.sin(2 * mp.pi * turn), mp.cos(2 * mp.pi * turn)
    cosine = -cosine if b >> (p.width - 1) else cosine
    return (r * sine, r * cosine) if b >> (p.width - 2) & 1 else (r * cosine, r * sine)


def claims() -> Iterator[Claim]:
    """Claims about the step in s and the cavity, its sweeps and the normals."""
    yield Claim(
        "cavity",
        "ivon",
        r"L-\langle\eta,\mu\rangle+\rho\,\mathrm{KL}=L-\langle\rho\lambda_g+\eta,\mu\rangle-\rho H(q)+c,\ "
        r"t=(\eta_\xi+\delta m_g,\ \eta_S+\delta)",
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
    yield Claim("step in s without prior or duals", "ivon", r"t=(0,\delta):\ \text{IVON}", plain_step, PAPER)
    yield Claim(
        "precision at least halves",
        "ivon",
        r"s+w+\tfrac{w^2}{2s}\ge\tfrac s2",
        lowest_retraction,
        "derive/updates/ivon.py",
    )
    for sweep in optimizer().sweeps:
        statement = rf"\text{{IR of {sweep.name} equals the derived lines}}".replace("_", r"\_")
        yield Claim(f"lowered {sweep.name}", "ivon", statement, partial(lowered, sweep), "derive/lower/ivon.py")
    for name, p in (("float32", SINGLE), ("float64", DOUBLE)):
        bound = rf"\text{{{name}: relative error of the three polynomials}}\le2^{{-{p.fraction + 1}}}"
        yield Claim(f"normals: polynomials in {name}", "ivon", bound, partial(polynomials, p), "derive/lower/noise.py")
        statement = rf"\text{{{name}: the lowered pair is }}(r\cos\phi,r\sin\phi)\text{{ of its integers}}"
        yield Claim(f"normals: pairs in {name}", "ivon", statement, partial(box_muller, p), "derive/lower/noise.py")
        statement = rf"\text{{{name}: }}\phi\text{{ of uniform integers is uniform on the circle}}"
        yield Claim(f"normals: angles in {name}", "ivon", statement, partial(even_angles, p), "derive/lower/noise.py")
