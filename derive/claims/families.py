"""Claims about one family: that calculus.py follows from T, A and b."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mpmath as mp
import sympy as sp

from ..calculus.elementwise import Calculus, CoupledRoot, ScalarRoot, calculus
from ..calculus.family import Family
from ..calculus.slots import Slots, entries, fresh, gradient, inner, substitute, weight
from . import integrate
from .claim import (
    DIGITS,
    EXACT,
    POINTS,
    Claim,
    ClaimError,
    numeric,
    rational_points,
    zero,
    zero_at_digits,
    zero_at_rationals,
)
from .directional import DirectionalDerivatives

RULE = "Khan & Rue, arXiv:2107.04562"
QUADRATURE_POINTS = 3
EPSILON = sp.Symbol("epsilon", real=True)
Prover = Callable[[Calculus], str]


def by_dimension(family: Family, prove: Prover, dimensions: tuple[int, ...] = (1, 2, 3)) -> str:
    """A proof at d = 1, or elementwise at several d for a matrix family."""
    if not family.is_matrix:
        return prove(calculus(family))
    methods = {d: prove(calculus(family, d)) for d in dimensions}
    shown = "; ".join(f"d = {d}: {m}" for d, m in methods.items())
    return (
        f"elementwise: {shown}"
        if len(set(methods.values())) > 1
        else f"elementwise at d = {', '.join(map(str, methods))}: {shown.split(': ', 1)[1].split(';')[0]}"
    )


def vanish(c: Calculus, *exprs: sp.Expr, what: str) -> str:
    """Symbolic where it is quick (d = 1), exact rational arithmetic for larger matrices."""
    if c.at.dimension == 1:
        return zero(*exprs, what=what)
    matrices = [m for slots in (c.at.natural, c.at.standard) for m in slots if m.cols > 1]
    return zero_at_rationals(*exprs, positive_definite=matrices, what=what)


def natural_symbols(c: Calculus) -> set[sp.Symbol]:
    """The free symbols of λ."""
    return set().union(*(m.free_symbols for m in c.at.natural))


def gaussian_means(c: Calculus, pairs: list[tuple[sp.Expr, sp.Expr]], what: str) -> str:
    """E_q[polynomial] = value for several pairs, by integration: symbolic at d = 1, exact at rational points above."""
    if c.at.dimension == 1:
        return zero(*[integrate.expectation_symbolic(c, left)[1] - right for left, right in pairs], what=what)
    for point in rational_points(natural_symbols(c), [m for m in c.at.natural if m.cols > 1]):
        for left, right in pairs:
            gap = sp.simplify(integrate.expectation_symbolic(c, left, point)[1] - right.xreplace(point))
            if gap != 0:
                raise ClaimError(f"{what} leaves {gap} at {point}")
    return EXACT


def numeric_means(c: Calculus, pairs: list[tuple[sp.Expr, sp.Expr]], what: str) -> str:
    """E_q[function] = value for several pairs, by quadrature or summation at 50 digits."""
    with mp.workdps(DIGITS):
        for number in range(QUADRATURE_POINTS):
            q = integrate.density(c.family, number)
            for left, right in pairs:
                mean = q.expectation(left)
                miss = abs(mean - numeric(right, q.point)) / max(1, abs(mean))
                if miss > mp.mpf(10) ** -33:
                    raise ClaimError(f"{what} leaves {mp.nstr(miss, 5)}")
    how = "summation" if c.family.is_discrete else "quadrature"
    return f"mpmath {how}, {DIGITS} digits at {QUADRATURE_POINTS} random points"


def means(c: Calculus, pairs: list[tuple[sp.Expr, sp.Expr]], what: str) -> str:
    """E_q[function] = value for several pairs, by integration."""
    return gaussian_means(c, pairs, what) if integrate.is_quadratic(c) else numeric_means(c, pairs, what)


def normalisation(c: Calculus) -> str:
    """∫ q = 1."""
    if not integrate.is_quadratic(c):
        return numeric_means(c, [(sp.S.One, sp.S.One), *c.family.moments], "integral - 1")
    if c.at.dimension == 1:
        total, _ = integrate.expectation_symbolic(c, sp.S.One)
        return zero(sp.expand_log(sp.log(total), force=True) - c.at.log_partition, what="log of the integral")
    for point in rational_points(natural_symbols(c), [m for m in c.at.natural if m.cols > 1]):
        total, _ = integrate.expectation_symbolic(c, sp.S.One, point)
        if abs(sp.N(total * sp.exp(-c.at.log_partition.xreplace(point)) - 1, DIGITS)) > sp.Float(10) ** -40:
            raise ClaimError(f"integral misses 1 at {point}")
    return f"{DIGITS} digits at {POINTS} random points"


def mean_is_gradient(c: Calculus) -> str:
    """∇A = E[T]."""
    pairs = [(c.at.statistics[k][i, j], c.expectation_of_natural[k][i, j]) for k, i, j in entries(c.at.natural)]
    return means(c, pairs, "E[T] - grad A")


def fisher_is_covariance(c: Calculus) -> str:
    """F = Cov[T]."""
    names = entries(c.at.natural)
    mu = {e: c.expectation_of_natural[e[0]][e[1], e[2]] for e in names}
    pairs = []
    for a, ea in enumerate(names):
        for b, eb in enumerate(names):
            product = c.at.statistics[ea[0]][ea[1], ea[2]] * c.at.statistics[eb[0]][eb[1], eb[2]]
            pairs.append((product, c.fisher[a, b] / weight(c.at.natural, eb) + mu[ea] * mu[eb]))
    return means(c, pairs, "Cov[T] - F")


def entropy_is_mean_log_density(c: Calculus) -> str:
    """H = −E[log q], by integration."""
    log_q = sp.expand(integrate.log_unnormalised(c) - c.at.log_partition)
    if c.at.dimension > 1:
        # The logarithms of λ cancel against the same ones in H; what is left is polynomial in θ and rational in λ.
        logs = dict.fromkeys(log_q.atoms(sp.log) | sp.expand(c.entropy).atoms(sp.log), sp.S.Zero)
        rest = sp.expand(c.entropy) + log_q
        if any(sp.simplify(rest.coeff(log)) != 0 for log in logs):
            raise ClaimError("the logarithms of H and log q do not cancel")
        return means(c, [(-log_q.xreplace(logs), sp.expand(c.entropy).xreplace(logs))], "H + E[log q]")
    return means(c, [(-log_q, c.entropy)], "H + E[log q]")


def inverse_map(c: Calculus) -> str:
    """λ(μ(λ)) = λ."""
    inverse = c.natural_of_expectation
    mu = c.expectation_of_standard
    if isinstance(inverse, CoupledRoot):
        at = substitute(c.expectation_of_natural, c.at.natural, c.at.natural_of_standard)
        gaps = [a - b[0, 0] for a, b in zip(inverse.mean, at, strict=True)]
        slopes = inverse.jacobian - sp.Matrix(inverse.mean).jacobian(inverse.unknowns)
        return zero(*gaps, slopes, what="the equations at μ(λ)")
    if isinstance(inverse, ScalarRoot):
        table = {c.at.expectation[k][i, j]: mu[k][i, j] for k, i, j in entries(mu)}
        left = sp.expand_log(inverse.residual.subs(table), force=True)
        rest = [v.subs(table) - k for k, v in inverse.others.items()]
        return zero(left, *rest, what="the equation at μ(λ)")
    composed = substitute(inverse, c.at.expectation, mu)
    gaps = [a[0, 0] - b[0, 0] for a, b in zip(composed, c.at.natural_of_standard, strict=True)]
    rooted = [  # a root of a square shows when it is factored
        gap.replace(lambda e: e.is_Pow and not e.exp.is_Integer, lambda e: sp.factor(e.base) ** e.exp) for gap in gaps
    ]
    return zero(*rooted, what="λ(μ(λ)) - λ")


def shifted(base: Slots, direction: Slots, step: Any) -> Slots:
    """base + step · direction."""
    return tuple(a + step * v for a, v in zip(base, direction, strict=True))


def directional(c: Calculus, suffixes: tuple[str, ...], miss: Callable[[dict[str, Slots]], Any], what: str) -> str:
    """A matrix identity tested along a random direction at each of several random rational points, in exact
    arithmetic."""
    named = {x: fresh(c.at.natural, x) for x in suffixes}
    symbols = set().union(*(m.free_symbols for slots in named.values() for m in slots))
    for point in rational_points(symbols, [m for slots in named.values() for m in slots if m.cols > 1]):
        gap = miss({x: tuple(m.xreplace(point) for m in slots) for x, slots in named.items()})
        if gap != 0:
            raise ClaimError(f"{what} leaves {gap} at {point}")
    return EXACT


def kl_gradient(c: Calculus) -> str:
    """∇_μ KL(q‖p) = λ_q − λ_p, through ∇_{λ_q} KL = F(λ_q)(λ_q − λ_p)."""
    what = "grad KL - F (λ_q - λ_p)"
    if c.at.dimension == 1:
        q, p, kl = c.kl
        moved = shifted(q, shifted(q, p, sp.S.NegativeOne), EPSILON)
        along = substitute(c.expectation_of_natural, c.at.natural, moved)
        transported = [sp.diff(m[0, 0], EPSILON).subs(EPSILON, 0) for m in along]
        return zero(*[a[0, 0] - f for a, f in zip(gradient(kl, q), transported, strict=True)], what=what)
    steps = DirectionalDerivatives(c)

    def miss(at: dict[str, Slots]) -> Any:
        q, p, v = at["_q"], at["_p"], at["_v"]
        return steps.kl_slope(q, p, v) - steps.fisher(q, shifted(q, p, sp.S.NegativeOne), v)

    return directional(c, ("_q", "_p", "_v"), miss, what)


def fisher_carries(c: Calculus) -> str:
    """F ∇_μ L = ∇_λ L, the right side from the standard parameters: ∂L/∂standard = (∂λ/∂standard)ᵀ W ∇_λ L."""
    if c.at.dimension == 1:
        grads = c.natural_gradient
    else:
        g, h = c.loss_derivatives.values()
        grads = (g - h * c.at.standard[0], -h)
    names = entries(c.at.natural)
    flat = sp.Matrix([grads[k][i, j] for k, i, j in names])
    (fisher,) = substitute((c.fisher,), c.at.natural, c.at.natural_of_standard)
    weights = sp.diag(*[weight(c.at.natural, e) for e in names])
    transported = c.jacobian(c.at.natural_of_standard, c.at.standard).T * weights * fisher * flat
    return vanish(c, transported - sp.Matrix(c.gradient_in_standard), what="F times the natural gradient")


def bonnet(c: Calculus) -> str:
    """∂q/∂m = −∂q/∂θ; by parts ∇_m E[ℓ] = E[∇ℓ]."""
    log_q = sp.expand_log(sp.log(c.density), force=True)
    mean = c.at.standard[0]
    return zero(
        *[sp.diff(log_q, mean[i, 0]) + sp.diff(log_q, c.at.theta[i, 0]) for i in range(mean.rows)], what="∂q/∂m + ∂q/∂θ"
    )


def price(c: Calculus) -> str:
    """∂q/∂Σ = ½∇²_θ q (the heat equation); by parts twice ∇_Σ E[ℓ] = ½E[∇²ℓ]. Checked in S = Σ⁻¹: dΣ = −Σ dS Σ."""
    log_q = integrate.log_unnormalised(c) - c.at.log_partition
    (shifted,) = substitute((sp.Matrix([[log_q]]),), c.at.natural, c.at.natural_of_standard)
    density_log, theta, s = shifted[0, 0], c.at.theta, c.at.standard[-1]
    first = sp.Matrix([sp.diff(density_log, x) for x in theta])
    hessian_over_q = first * first.T + sp.hessian(density_log, list(theta))
    gaps = []
    for k, i, j in entries(c.at.standard):
        if k == 1:
            moved = sp.diff(s.inv(), s[i, j])
            gaps.append(sp.diff(density_log, s[i, j]) - (hessian_over_q * moved).trace() / 2)
    return vanish(c, *gaps, what="heat equation")


def stable_forms(c: Calculus) -> str:
    """The forms the kernels compute equal the derived ones."""
    pairs = [("KL", c.stable_kl, c.kl_to_compute[2]), ("log q", c.stable_log_density, c.log_density_in_standard)]
    if c.stable_entropy is not None:
        pairs.append(("H", c.stable_entropy, c.entropy_to_compute))
    if not c.is_gaussian:
        pairs += [("gradient", a, b[0, 0]) for a, b in zip(c.stable_gradient, c.natural_gradient, strict=True)]
    methods = {
        zero_at_digits(computed - derived, f"stable {what} - {what}", seed)
        for seed, (what, computed, derived) in enumerate(pairs)
    }
    return "; ".join(sorted(methods))


def fisher_factor(c: Calculus) -> str:
    """LLᵀ = F for the factor that the kernel applies, and L is lower triangular with a positive diagonal."""
    (fisher,) = substitute((c.fisher,), c.at.natural, c.at.natural_of_standard)
    factor = c.fisher_factor
    if not factor.is_lower or any(factor[j, j].could_extract_minus_sign() for j in range(factor.rows)):
        raise ClaimError(f"the factor is not lower triangular with a positive diagonal: {factor}")
    gap = factor * factor.T - fisher
    return "; ".join(sorted({zero_at_digits(entry, what="L L^T - F", seed=4) for entry in gap}))


def log_density(c: Calculus) -> str:
    """∂ log q/∂λ = T − μ, the score: with normalisation it fixes log q."""
    names = entries(c.at.natural)
    slopes = gradient(c.log_density, c.at.natural)
    score = [slopes[k][i, j] - c.at.statistics[k][i, j] + c.expectation_of_natural[k][i, j] for k, i, j in names]
    return zero(*score, what="the score")


def client_condition(c: Calculus) -> str:
    """The client's Lagrangian is stationary in μ exactly at λ = λ_g + (η − ∇L)/ρ, for this family's own KL."""
    from ..updates import admm

    rho, what = admm.rho, "gradient of the client's Lagrangian"
    if c.at.dimension == 1:
        q, p, kl = c.kl
        eta, loss = fresh(c.at.natural, "_eta"), fresh(c.at.natural, "_G")
        mu_q = substitute(c.expectation_of_natural, c.at.natural, q)
        lagrangian = inner(loss, mu_q) - inner(eta, mu_q) + rho * kl
        # λ_q = λ_p + (η − G)/ρ, solved for η: a rational function of fewer symbols
        pull = tuple(g + rho * (a - b) for a, b, g in zip(q, p, loss, strict=True))
        return zero(*substitute(gradient(lagrangian, q), eta, pull), what=what)

    steps, penalty = DirectionalDerivatives(c), sp.Rational(7, 3)

    def miss(at: dict[str, Slots]) -> Any:
        p, pull, v = at["_p"], at["_eta"], at["_v"]  # `pull` is η − ∇L
        q = shifted(p, pull, 1 / penalty)
        return steps.number(penalty) * steps.kl_slope(q, p, v) - steps.fisher(q, pull, v)

    return directional(c, ("_p", "_eta", "_v"), miss, what)


def claims(family: Family) -> Iterator[Claim]:
    """Every claim about one family, in the order of the derivation."""
    name = family.name

    def claim(
        label: str,
        statement: str,
        prove: Prover,
        source: str = f"{RULE}, section 2",
        dimensions: tuple[int, ...] = (1, 2, 3),
    ) -> Claim:
        return Claim(label, name, statement, partial(by_dimension, family, prove, dimensions), source)

    yield claim(
        "normalisation", r"\int b(\theta)\,e^{\langle\lambda,T(\theta)\rangle-A(\lambda)}\,d\theta = 1", normalisation
    )
    yield claim("gradient of A is E[T]", r"\mu = \nabla A(\lambda) = \mathbb{E}_q[T(\theta)]", mean_is_gradient)
    yield claim(
        "Fisher is the covariance of T",
        r"F(\lambda) = \nabla^2 A(\lambda) = \mathrm{Cov}_q[T]",
        fisher_is_covariance,
        dimensions=(1, 2),
    )
    if calculus(family).entropy is not None:
        yield claim(
            "entropy",
            r"H(q) = A(\lambda)-\langle\lambda,\mu\rangle-\mathbb{E}[\log b] = -\mathbb{E}_q[\log q]",
            entropy_is_mean_log_density,
        )
    if not family.is_matrix:
        yield claim("inverse map", r"\lambda(\mu(\lambda)) = \lambda", inverse_map)
    yield claim(
        "gradient of KL in mu", r"\nabla_\mu \mathrm{KL}(q_\lambda\|q_{\lambda'}) = \lambda-\lambda'", kl_gradient
    )
    if calculus(family).is_gaussian:
        yield claim(
            "Bonnet",
            r"\nabla_m \mathbb{E}_q[\ell] = \mathbb{E}_q[\nabla\ell]",
            bonnet,
            f"{RULE}, appendix C",
            (1, 2, 3),
        )
        if len(family.natural) > 1:
            yield claim(
                "Price",
                r"\nabla_\Sigma \mathbb{E}_q[\ell] = \tfrac12\mathbb{E}_q[\nabla^2\ell]",
                price,
                f"{RULE}, appendix C",
            )
    yield claim(
        "Fisher times natural gradient",
        r"F(\lambda)\,\nabla_\mu L = \nabla_\lambda L",
        fisher_carries,
        f"{RULE}, equation 5",
    )
    yield claim(
        "client stationarity",
        r"\nabla_\mu\left[L-\langle\eta,\mu\rangle+\rho\,\mathrm{KL}(q\|q_g)\right]=0"
        r" \text{ at } \lambda=\lambda_g+(\eta-\nabla_\mu L)/\rho",
        client_condition,
        "arXiv:2506.13150, client line",
    )
    if not family.is_matrix:
        yield claim("Fisher factor", r"L\,L^\top = F(\lambda)", fisher_factor)
        yield claim("score", r"\nabla_\lambda \log q_\lambda(\theta) = T(\theta)-\mu", log_density)
        yield claim(
            "stable forms",
            r"\text{the rewritten KL, entropy, log-density and gradient equal the derived ones}",
            stable_forms,
            "derive/calculus/stable.py",
        )
