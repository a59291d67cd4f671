"""Claims about domains that couple slots, and about a coordinate's two variables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import mpmath as mp
import sympy as sp

from ..calculus.elementwise import Calculus, calculus
from ..calculus.family import Family
from ..ir.evaluate import Evaluator
from ..ir.nodes import FamilyModule
from ..lower.families import build_module
from .claim import DIGITS, POINTS, Claim, ClaimError, domain_points, numeric, zero
from .members import member_points

SPREAD = 0.5  # decades: of points that lie on both sides of the boundary
BESIDE = mp.mpf(10) ** -12
SOURCE = "Wainwright & Jordan, 2008, section 3.2"


def stated_domain(c: Calculus) -> str:
    """The slots' signs and the stated inequalities hold exactly where the standard parameters are in their domain."""
    family, seen = c.family, set()
    natural = {m[0, 0] for m in c.at.natural}
    with mp.workdps(DIGITS):
        for seed in range(4):
            for point in domain_points(natural, seed, SPREAD):
                inside = all(numeric(sp.sympify(g), point) > 0 for g in family.domain)
                values = [numeric(k.positive, point) > 0 for k in c.conditions]
                seen.add(inside)
                if inside != all(values):
                    at = {str(k): mp.nstr(v, 5) for k, v in point.items()}
                    raise ClaimError(f"the inequalities and the standard parameters disagree at {at}")
    if seen != {True, False}:
        raise ClaimError("the points lie on one side of the boundary")
    return f"signs by symbols; mpmath at {4 * POINTS} random points on both sides"


def margins(c: Calculus, module: FamilyModule) -> str:
    """The lowered margin ρ* of each inequality N/D > 0, D of slots: N(ρλ + η) > 0 beyond it and not before it."""
    (kernel,) = (k for k in module.kernels if k.name == "margin")
    evaluator, natural = Evaluator(module.functions), [m[0, 0] for m in c.at.natural]
    with mp.workdps(DIGITS):
        for point in member_points(c, {*natural, *c.change}, seed=9):
            found = evaluator.kernel(kernel, {str(s): v for s, v in point.items()})
            for g, rho in zip(c.family.domain, found, strict=True):
                form, size = sp.fraction(sp.together(g))[0], max(abs(rho), mp.mpf(1))
                for step in (-BESIDE, BESIDE, 1, 1 / BESIDE):
                    along = rho + step * size
                    at = {s: along * point[s] + point[d] for s, d in zip(natural, c.change, strict=True)}
                    if (numeric(form, at) > 0) != (step > 0):
                        raise ClaimError(f"{g} > 0 does not begin at rho = {mp.nstr(rho, 8)}")
    return f"mpmath, {DIGITS} digits at {POINTS} random points, {mp.nstr(BESIDE, 1)} on either side and beyond"


def factors(c: Calculus) -> str:
    """log q(θ) = log N(first; mean, 1/precision) + log q(second)."""
    given = c.conditional
    assert given is not None
    gap = (given.variable - given.mean) ** 2 * given.precision / 2
    normal = sp.log(given.precision / (2 * sp.pi)) / 2 - gap
    return zero(normal + given.log_marginal - c.log_density_in_standard, what="the product of the factors")


def claims(family: Family) -> Iterator[Claim]:
    """The claims of a family with stated inequalities, and of one with two variables."""
    if family.is_matrix:
        return
    c, name = calculus(family), family.name
    if family.domain:
        shown = r",\ ".join(f"{sp.latex(g)} > 0" for g in family.domain)
        yield Claim("stated domain", name, shown, partial(stated_domain, c), SOURCE)
        statement = r"\rho^* = \inf\{\rho: \rho\lambda + \eta \text{ fulfils the inequalities}\}"
        prove = partial(margins, c, build_module(family))
        yield Claim("margin", name, statement, prove, "derive/calculus/domain.py", (f"{name}.margin",))
    if c.conditional is not None:
        statement = r"q(\theta) = \mathcal{N}(\theta_1; m(\theta_2), s(\theta_2)^{-1})\, q(\theta_2)"
        yield Claim("conditional", name, statement, partial(factors, c), "derive/calculus/conditional.py")
