"""The derivation as a document: one section per family, every formula in LaTeX, every claim with its proof."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter

from .calculus.elementwise import Calculus, CoupledRoot, ScalarRoot, calculus
from .calculus.family import Family
from .calculus.likelihood import Likelihood
from .calculus.losses import loss_of
from .calculus.matrix import MatrixCalculus
from .calculus.special import FUNCTION_NAMES, Tailed, ratio_divergence
from .claims.claim import Verdict
from .families import load_families
from .likelihoods import load_likelihoods

NAMES = {
    "x_minus_log1p": r"\phi",
    "ratio_divergence": r"\phi",
    "stirling_remainder": "R",
    "stirling_remainder_1": "R'",
    "stirling_remainder_2": "R''",
    "stirling_bregman": r"B_R",
    "lgamma": r"\log\Gamma",
}


class _Printer(LatexPrinter):
    """LaTeX with the names of special.py's functions."""

    def _print_Function(self, expr: Any, exp: Any = None) -> str:
        if isinstance(expr, Tailed):
            name: str | None = rf"\mathrm{{{type(expr).__name__}}}".replace("_", r"\_")
        else:
            name = NAMES.get(FUNCTION_NAMES.get(expr.func, ""))
        if name is None:
            return str(super()._print_Function(expr, exp))
        shown = expr.args[:1] if isinstance(expr, ratio_divergence) else expr.args  # φ(x), its ratio being 1 + x
        arguments = ", ".join(self._print(a) for a in shown)
        text = rf"{name}\left({arguments}\right)"
        return rf"\left({text}\right)^{{{exp}}}" if exp else text


def latex(expr: Any) -> str:
    """One expression or a tuple of slots."""
    if isinstance(expr, tuple):
        return r"\left(" + r",\; ".join(latex(e) for e in expr) + r"\right)"
    if isinstance(expr, sp.MatrixBase) and expr.shape == (1, 1):
        expr = expr[0, 0]
    return str(_Printer({"ln_notation": False}).doprint(expr))


def formula(label: str, expr: Any) -> str:
    """A labelled display formula."""
    return f"{label}\n\n$${expr if isinstance(expr, str) else latex(expr)}$$\n"


def likelihood_section(likelihood: Likelihood) -> list[str]:
    """What a likelihood states, then what follows from it."""
    loss = loss_of(likelihood)
    lines = [f"## {likelihood.title} (`likelihoods/{likelihood.name}`)\n", f"Source: {likelihood.citation}.\n"]
    lines += ["### Stated\n", formula("Loss f(a)", likelihood.loss), "### Derived\n"]
    lines += [
        formula(f"{label}, as computed", loss.restored(loss.stable(k))) for k, label in enumerate(("f", "f′", "f″"))
    ]
    lines += [formula("Limits of f″ at −∞ and ∞, the least over labels", loss.growth)]
    lines += [formula("E[f] in closed form, a ~ N(center, spread²)", loss.closed_expectations[0])]
    for p in loss.profiles:
        place, distance = p.singularity
        lines += [formula("and by the trapezoidal rule, of the function of one number", p.shape)]
        lines += [f"with coefficient ${latex(loss.restored(p.coefficient))}$ at "
                  f"${latex(loss.restored(p.scale * loss.a + p.shift))}$; its nearest singularities are "
                  f"{place} ± {distance} i.\n"]  # fmt: skip
    return lines


def family_section(family: Family) -> list[str]:
    """What the family states, then what follows from it."""
    c: Calculus = calculus(family)
    lines = [f"## {family.title} (`{family.name}`)\n", f"Source: {family.citation}.\n", "### Stated\n"]
    lines += [formula("Statistics T(θ)", family.statistics), formula("Base measure b(θ)", family.base_measure)]
    lines += [formula("Log-partition A(λ)", family.log_partition)]
    lines += [formula("Natural parameters of the standard ones", family.natural_of_standard), "### Derived\n"]
    if family.is_matrix:
        m = MatrixCalculus(family)
        covariance, back = m.natural_of_expectation
        lines += [
            formula("Expectation parameters μ = ∇A(λ)", m.expectation),
            formula("in the standard parameters", m.expectation_in_standard),
            formula("Inverse map, with V =", covariance),
            formula("λ(μ)", back),
            formula("Natural gradient ∇_μ L (Bonnet, Price)", m.natural_gradient),
            formula("Entropy", m.entropy),
            formula("KL(q‖p), derived, with ξ_q = S_q m_q", m.kl_of_means),
            formula(
                "KL as computed",
                r"\tfrac12\sum_i\phi(e_i)+\tfrac12 r^\top S_p^{-1}r,"
                r"\quad e=\mathrm{eig}\left(L_q^{-1}(S_p-S_q)L_q^{-\top}\right),"
                r"\ r=S_pm_q-\xi_p=(\xi_q-\xi_p)+(S_p-S_q)m_q",
            ),
        ]
        return lines
    inverse = c.natural_of_expectation
    _, _, kl = c.kl
    lines += [
        formula("Expectation parameters μ = ∇A(λ)", c.expectation_of_natural),
        formula("in the standard parameters", c.expectation_of_standard),
        formula("Fisher information F(λ) = ∇²A(λ)", c.fisher),
    ]
    if isinstance(inverse, CoupledRoot):
        equations = tuple(sp.Eq(m, s.symbol) for m, s in zip(inverse.mean, family.expectation, strict=True))
        lines += [formula("Inverse map: no closed form; by Newton in all unknowns", equations)]
    elif isinstance(inverse, ScalarRoot):
        others = tuple(sp.Eq(k, v) for k, v in inverse.others.items())
        lines += [formula("Inverse map: no closed form; by Newton", sp.Eq(inverse.residual, 0)), formula("and", others)]
    else:
        lines += [formula("Inverse map λ(μ)", inverse)]
    lines += [
        formula("Natural gradient ∇_μ L" + (" (Bonnet, Price)" if c.is_gaussian else ""), tuple(c.stable_gradient)),
        *([] if c.stable_entropy is None else [formula("Entropy", c.stable_entropy)]),
        formula("KL(q‖p), derived", sp.simplify(kl)),
        formula("KL(q‖p), as computed", c.stable_kl),
    ]
    return lines


def claims_table(verdicts: Iterable[Verdict]) -> list[str]:
    """Claims with statement and proof."""
    rows = ["| claim | statement | proof | source |", "| --- | --- | --- | --- |"]
    for v in verdicts:
        status = v.method if v.holds else f"**FAILS**: {v.method}"
        statement = v.claim.statement.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
        rows.append(f"| {v.claim.name} | ${statement}$ | {status} | {v.claim.source} |")
    return [*rows, ""]


HEAD = r"""# The derivation

Written by `python -m derive --report docs/derivation.md`. Notation:
$q_\lambda(\theta)=b(\theta)\exp(\langle\lambda,T(\theta)\rangle-A(\lambda))$, expectation
parameters $\mu=\nabla A(\lambda)$, Fisher information $F=\nabla^2A$; $\phi(x)=x-\log(1+x)$;
$R(x)=\log\Gamma(x)-x\log x+x$ with derivatives $R'$, $R''$ and Bregman divergence $B_R$.

*symbolic*: SymPy decides it. *elementwise at d = ...*: the matrix identity written out in scalar coordinates.
*exact rational arithmetic*: a rational identity evaluated without rounding at random points. *mpmath*: 50 digits at
random points or by quadrature.
"""


def document(verdicts: list[Verdict]) -> str:
    """The whole document as Markdown with LaTeX."""
    lines = [HEAD]
    for name, family in load_families().items():
        own = [v for v in verdicts if v.claim.family == name]
        if own:
            lines += [*family_section(family), "### Proved\n", *claims_table(own)]
    for name, likelihood in load_likelihoods().items():
        own = [v for v in verdicts if v.claim.family == f"{name}_loss"]
        if own:
            lines += [*likelihood_section(likelihood), "### Proved\n", *claims_table(own)]
    titles = {
        "round": "## One round of Bayesian ADMM",
        "ivon": "## The IVON client",
        "special": "## Special functions and lowered code",
    }
    for key, title in titles.items():
        lines += [f"{title}\n", *_section_formulas(key), *claims_table([v for v in verdicts if v.claim.family == key])]
    return "\n".join(lines).rstrip() + "\n"


def _section_formulas(key: str) -> list[str]:
    from .updates import admm, ivon

    if key == "round":
        return [
            "The Lagrangian, with KL the Bregman divergence of Φ = A*, so that ∇Φ(μ) = λ:\n",
            formula(
                "ℒ =",
                r"\sum_{k=1}^K\left[L_k(\mu_k)-\langle\eta_k,\mu_k-\mu_g\rangle\right]+\mathrm{KL}(q_g\|p_0)",
            ),
            formula("Client: with ρ KL(q_k‖q_g), ∂/∂μ_k =", admm.client_stationarity()),
            formula("so that λ_k =", admm.client_map()),
            formula("Cavity, where a client without a loss goes", admm.cavity()),
            formula("Dual: η ←", admm.dual_update()),
            formula("Bregman's dual, ascent on ℒ: η ←", admm.bregman_dual_update()),
            formula("Server: with ς Σ KL(q_g‖q_k), ∂/∂μ_g =", admm.server_stationarity(sp.Symbol("varsigma"))),
            formula("so that at ς =", admm.server_weight()),
            formula("λ_g ← α λ_0 + Σ c_k with c_k =", admm.server_contribution()),
            formula("The paper's α, at which ς = ρ", admm.server_step()),
            formula("A client that takes part adds to the running sum c_k − c_k(old) =", admm.contribution_change()),
            formula("Primal residual", admm.primal_residual()),
            formula("Dual residual, with E = Σ η_k", admm.dual_residual()),
            formula(
                "Error after one round with losses linear in μ and α = 1/(1 + ρK)",
                sp.factor(admm.one_round(step=1 / (1 + admm.rho * admm.K)).error),
            ),
        ]
    if key == "ivon":
        s, lines = ivon.step(), ivon.kernel_step()
        return [
            formula("Effective sample size ess =", ivon.effective_sample_size()),
            formula("Hessian estimate f =", s.estimate),
            formula("Curvature velocity v =", ivon.precision_velocity()),
            formula("New curvature h + δ ← x + v + v²/(2x) at x = h + δ: h ←", s.precision),
            formula("Direction of the mean", s.direction),
            "In s = h + δ and the cavity, as the kernels compute it:\n",
            formula("Sample θ =", lines.sample),
            formula("Curvature f + δ =", lines.curvature),
            formula("w = (1 − β₂)(f + δ − s); s ←", lines.precision),
            formula("Direction of the mean, over the new s", lines.direction),
        ]
    return []
