"""Claims about the Gaussian-gamma: what follows from its A(λ) are the full Gaussian's and the gamma's forms, composed.

T = (τθ, −½τθθᵀ, log τ, −τ), base measure (2π)^{−d/2} τ^{d/2 − 1}, A = log Γ(a) − a log β − ½ log det S with
β = b − ½ ξᵀS⁻¹ξ. Proved elementwise at d = 1, 2, 3 in the standard parameters (m, S, a, β), with the other families'
own calculus. Source: Bernardo & Smith, Bayesian Theory, 1994, section 5.2 and appendix A.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

import mpmath as mp
import sympy as sp

from ..calculus.elementwise import Calculus, calculus
from ..calculus.slots import Slots, fresh, gradient, inner, substitute
from ..families import load_family
from .claim import DIGITS, Claim, ClaimError, rational_points, zero

NAME = "gaussian_gamma"
DIMENSIONS, POINTS = (1, 2, 3), 2
EPSILON, TAU = sp.Symbol("epsilon", real=True), sp.Symbol("tau", positive=True)


@dataclass(frozen=True)
class Member:
    """λ and the standard parameters of one member at dimension d, in scalar coordinates."""

    natural: Slots
    standard: Slots

    @property
    def log_partition(self) -> sp.Expr:
        """A(λ)."""
        xi, s, a, b = self.natural
        beta = b[0] - (xi.T * s.adjugate() * xi)[0] / s.det() / 2
        return sp.loggamma(a[0]) - a[0] * sp.log(beta) - sp.log(s.det()) / 2

    @property
    def natural_of_standard(self) -> Slots:
        """(S m, S, a, β + ½ mᵀSm)."""
        m, s, a, beta = self.standard
        return s * m, s, a, beta + m.T * s * m / 2

    @property
    def mean_precision(self) -> sp.Expr:
        """τ̄ = a/β."""
        return self.standard[2][0] / self.standard[3][0]

    def in_standard(self, slots: Slots) -> Slots:
        """Expressions in λ with the standard parameters put in."""
        return substitute(slots, self.natural, self.natural_of_standard)

    def of(self, expr: sp.Expr) -> sp.Expr:
        """A scalar in λ with the standard parameters put in."""
        return self.in_standard((sp.Matrix([[expr]]),))[0][0]


@cache
def member(d: int, suffix: str = "") -> Member:
    """The member at dimension d whose symbols end in a suffix."""
    full = load_family("full_gaussian").coordinates(d)
    a, b, beta = (sp.Matrix([[sp.Symbol(name, positive=True)]]) for name in ("a", "b", "beta"))
    natural, standard = (*full.natural, a, b), (*full.standard, a, beta)
    return Member(fresh(natural, suffix), fresh(standard, suffix)) if suffix else Member(natural, standard)


def _full(d: int) -> Calculus:
    return calculus(load_family("full_gaussian"), d)


def _gamma() -> Calculus:
    return calculus(load_family("gamma"))


def _at(expr: sp.Expr, old: Slots, new: Slots) -> sp.Expr:
    """A scalar with the entries of `old` replaced by those of `new`."""
    return substitute((sp.Matrix([[expr]]),), old, new)[0][0]


def _of_gamma(expr: sp.Expr, who: Member) -> sp.Expr:
    """A scalar of the gamma's λ at a member's (a, β)."""
    return _at(expr, _gamma().at.natural, who.standard[2:])


def _scaled(who: Member, root: sp.Expr) -> Slots:
    """The full Gaussian's λ with the mean `root` times a member's."""
    m, s, _, _ = who.standard
    return root * s * m, s


def _vanish(d: int, *gaps: sp.Expr, what: str, members: tuple[Member, ...] = ()) -> None:
    """Raise ClaimError unless expressions in standard parameters vanish to 10⁻⁴⁰ at rational points."""
    matrices = [who.standard[1] for who in (members or (member(d),))]
    symbols = set().union(*(gap.free_symbols for gap in gaps), *(m.free_symbols for m in matrices))
    for point in islice(rational_points(symbols, matrices), POINTS):
        for gap in gaps:
            miss = abs(sp.N(gap.xreplace(point), DIGITS))
            if miss > mp.mpf(10) ** -40:
                raise ClaimError(f"{what} leaves {mp.nstr(mp.mpf(miss), 5)} at d = {d}")


def density(d: int) -> None:
    """log q(θ, τ) = log N(θ; m, (τS)⁻¹) + log Gamma(τ; a, β): A normalises, as the two families' A do."""
    full, who = _full(d).at, member(d)
    m, s, _, _ = who.standard
    theta = full.theta
    statistics = TAU * theta, -TAU * theta * theta.T / 2, sp.Matrix([[sp.log(TAU)]]), sp.Matrix([[-TAU]])
    log_b = -sp.Rational(d, 2) * sp.log(2 * sp.pi) + (sp.Rational(d, 2) - 1) * sp.log(TAU)
    joint = log_b + inner(who.natural_of_standard, statistics) - who.of(who.log_partition)
    given = _at(_full(d).log_density, full.natural, (TAU * s * m, TAU * s))
    marginal = _of_gamma(_gamma().log_density, who).xreplace({_gamma().at.theta[0]: TAU})
    _vanish(d, joint - given - marginal, what="log q")


def expectation(d: int) -> None:
    """∇A = (τ̄m, −½(S⁻¹ + τ̄mmᵀ), the gamma's two)."""
    who, gamma = member(d), _gamma()
    m, s, _, _ = who.standard
    tau = who.mean_precision
    of_gamma = [_of_gamma(slot[0], who) for slot in gamma.expectation_of_natural]
    found = who.in_standard(gradient(who.log_partition, who.natural))
    wanted = tau * m, -(s.inv() + tau * m * m.T) / 2, *(sp.Matrix([[value]]) for value in of_gamma)
    gaps = [entry for a, b in zip(found, wanted, strict=True) for entry in a - b]
    _vanish(d, *gaps, what="grad A - mu")


def inverse(d: int) -> None:
    """The standard parameters from λ and from μ."""
    who = member(d)
    m, s, _, beta = who.standard
    xi, _, _, b = who.natural_of_standard
    tau = who.mean_precision
    mu1, mu2 = tau * m, -(s.inv() + tau * m * m.T) / 2
    gaps = [
        *(s.inv() * xi - m),
        b[0] - (xi.T * s.inv() * xi)[0] / 2 - beta[0],
        *((-2 * mu2 - mu1 * mu1.T / tau).inv() - s),
        *(mu1 / tau - m),
    ]
    _vanish(d, *gaps, what="inverse map")


def divergence(d: int) -> None:
    """KL = KL of the gammas + KL of the full Gaussians with means times √τ̄_q."""
    q, p, full, gamma = member(d, "_q"), member(d, "_p"), _full(d), _gamma()
    mu = q.in_standard(gradient(q.log_partition, q.natural))
    gap = tuple(y - x for x, y in zip(q.natural_of_standard, p.natural_of_standard, strict=True))
    from_a = p.of(p.log_partition) - q.of(q.log_partition) - inner(mu, gap)
    root = sp.sqrt(q.mean_precision)
    old_q, old_p, kl = full.kl
    composed = _at(_at(kl, old_q, _scaled(q, root)), old_p, _scaled(p, root))
    old_q, old_p, kl = gamma.kl
    composed += _at(_at(kl, old_q, q.standard[2:]), old_p, p.standard[2:])
    _vanish(d, from_a - composed, what="KL", members=(q, p))


def entropy(d: int) -> None:
    """H = H[τ] + the full Gaussian's − d/2 E[log τ]."""
    who, full, gamma = member(d), _full(d), _gamma()
    mu = who.in_standard(gradient(who.log_partition, who.natural))
    log_tau = mu[2][0]
    log_b = -sp.Rational(d, 2) * sp.log(2 * sp.pi) + (sp.Rational(d, 2) - 1) * log_tau
    from_a = who.of(who.log_partition) - inner(who.natural_of_standard, mu) - log_b
    given = full.at.log_partition - inner(full.at.natural, full.expectation_of_natural)
    given = _at(given, full.at.natural, _scaled(who, sp.S.One)) + sp.Rational(d, 2) * sp.log(2 * sp.pi)
    composed = _of_gamma(gamma.entropy, who) + given - sp.Rational(d, 2) * log_tau
    _vanish(d, from_a - composed, what="entropy")


def metric(d: int) -> None:
    """dλᵀ∇²A dλ = τ̄ |dξ − dS m|² in S⁻¹ + ½ tr(S⁻¹dS S⁻¹dS) + the gamma's at dβ = db − mᵀdξ + ½ mᵀdS m."""
    who, gamma = member(d), _gamma()
    m, s, _, _ = who.standard
    change = fresh(who.natural, "_d")
    moved = tuple(x + EPSILON * dx for x, dx in zip(who.natural, change, strict=True))
    curvature = sp.diff(_at(who.log_partition, who.natural, moved), EPSILON, 2).xreplace({EPSILON: sp.S.Zero})
    d_xi, d_s, d_a, d_b = change
    shift = d_xi - d_s * m
    d_beta = d_b - m.T * d_xi + m.T * d_s * m / 2
    of_gamma = tuple(x + EPSILON * dx for x, dx in zip(gamma.at.natural, (d_a, d_beta), strict=True))
    second = sp.diff(_at(gamma.at.log_partition, gamma.at.natural, of_gamma), EPSILON, 2).xreplace({EPSILON: sp.S.Zero})
    covariance = s.inv()
    composed = who.mean_precision * (shift.T * covariance * shift)[0]
    composed += (covariance * d_s * covariance * d_s).trace() / 2 + _of_gamma(second, who)
    _vanish(d, who.of(curvature) - composed, what="Fisher metric")


def regression(d: int) -> None:
    """−log N(y; xᵀθ, 1/τ) is −⟨(x y, x xᵀ, ½, ½y²), T⟩ + ½ log 2π: linear in μ, so conjugate."""
    theta = _full(d).at.theta
    x, y = sp.Matrix(sp.symbols(f"x1:{d + 1}", real=True)), sp.Symbol("y", real=True)
    statistics = TAU * theta, -TAU * theta * theta.T / 2, sp.Matrix([[sp.log(TAU)]]), sp.Matrix([[-TAU]])
    slots = x * y, x * x.T, sp.Matrix([[sp.Rational(1, 2)]]), sp.Matrix([[y**2 / 2]])
    loss = TAU * (y - (x.T * theta)[0]) ** 2 / 2 - sp.log(TAU) / 2
    zero(sp.expand(loss + inner(slots, statistics)), what="regression")


STATEMENTS: tuple[tuple[str, str, Callable[[int], None]], ...] = (
    ("density", r"q(\theta,\tau)=N(\theta; m,(\tau S)^{-1})\,\mathrm{Gamma}(\tau; a,\beta)", density),
    (
        "expectation parameters",
        r"\mu=(\bar\tau m,\,-\tfrac12(S^{-1}+\bar\tau mm^\top),\,\psi(a)-\log\beta,\,-\bar\tau)",
        expectation,
    ),
    ("inverse maps", r"\beta=b-\tfrac12\xi^\top S^{-1}\xi,\quad S^{-1}=-2\mu_2-\mu_1\mu_1^\top/\bar\tau", inverse),
    ("KL", r"\mathrm{KL}=\mathrm{KL}_{\tau}+\mathrm{KL}_{N}(\sqrt{\bar\tau_q}\,m)", divergence),
    ("entropy", r"H=H[\tau]+H[N(m,S^{-1})]-\tfrac d2E[\log\tau]", entropy),
    (
        "Fisher metric",
        r"d\lambda^\top F d\lambda=\bar\tau\|d\xi-dS\,m\|^2_{S^{-1}}+\tfrac12\mathrm{tr}(S^{-1}dS)^2+F_{\tau}",
        metric,
    ),
    (
        "regression with unknown noise",
        r"-\log N(y;x^\top\theta,1/\tau)=-\langle(xy,xx^\top,\tfrac12,\tfrac12y^2),T\rangle+c",
        regression,
    ),
)


def _prove(statement: Callable[[int], None]) -> str:
    for d in DIMENSIONS:
        statement(d)
    return f"elementwise at d = 1, 2, 3: mpmath, {DIGITS} digits at {POINTS} random points"


def claims() -> Iterator[Claim]:
    """The claims of the composition."""
    for label, statement, prove in STATEMENTS:
        yield Claim(label, NAME, statement, partial(_prove, prove), "derive/claims/gaussian_gamma.py")
