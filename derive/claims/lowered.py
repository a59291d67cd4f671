"""Claims about the lowered IR: what every kernel of a family, and of the round, computes is what was derived.

Each claim names its targets, and `unclaimed` finds the kernels that none has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import mpmath as mp
import sympy as sp

from ..calculus.elementwise import Calculus, CoupledRoot, ScalarRoot, calculus
from ..calculus.family import Family
from ..calculus.slots import fresh
from ..ir.evaluate import Evaluator
from ..ir.nodes import FamilyKernel, FamilyModule, MatrixMap, Module, RoundModule
from ..lower.admm import expected_results as round_results, round_module
from ..lower.families import build_module
from .claim import DIGITS, Claim, ClaimError, Point50, domain_points, numeric
from .members import SUFFIXES, member_points

# literals are float64 and series end below its rounding: exact arithmetic leaves about 1e-16
TRUNCATION = mp.mpf(10) ** -14
NEWTON = mp.mpf(10) ** -12


def expected_results(family: Family) -> dict[str, list[sp.Expr]]:
    """What each kernel of a factorising family must give, by name; an inverse map without closed form is left out."""
    c = calculus(family)
    inverse, (_, _, kl) = c.natural_of_expectation, c.kl
    maps = {
        "natural_from_standard": c.at.natural_of_standard,
        "standard_from_natural": c.standard_of_natural,
        "expectation_from_natural": c.expectation_of_natural,
        "natural_gradient": c.natural_gradient,
    }
    if not isinstance(inverse, ScalarRoot | CoupledRoot):
        maps["natural_from_expectation"] = inverse
    sums = {"log_partition": c.at.log_partition, "entropy": c.entropy, "kl": kl, "log_density": c.log_density}
    given = {}
    if c.conditional is not None:
        exprs = (c.conditional.mean, c.conditional.precision, c.conditional.log_marginal)
        back = {a[0, 0]: b[0, 0] for a, b in zip(c.at.standard, c.standard_of_natural, strict=True)}
        mean, precision, marginal = (e.xreplace(back) for e in exprs)
        given = {"conditional": [mean, precision], "log_marginal": [marginal]}
    if family.domain:
        jacobian = c.jacobian(c.at.natural_of_standard, c.at.standard)
        given["natural_change"] = list(
            jacobian * sp.Matrix([sp.Symbol(f"d_{m[0, 0]}", real=True) for m in c.at.standard])
        )
    return {
        **given,
        "whiten": c.whitened,
        **{name: [m[0, 0] for m in slots] for name, slots in maps.items()},
        **{name: [expr] for name, expr in sums.items() if expr is not None},
    }


def elementwise(family: Family, module: FamilyModule, expected: Mapping[str, list[sp.Expr]]) -> str:
    """The IR of every kernel of a factorising family, run in exact arithmetic, equals what it was lowered from."""
    evaluator, c = Evaluator(module.functions), calculus(family)
    fixed = {s.symbol for s in family.fixed}
    of_members = {m[0, 0] for x in SUFFIXES for m in fresh(c.at.natural, x)} if c.conditions else set()
    with mp.workdps(DIGITS):
        for kernel in module.kernels:
            if kernel.name not in expected or isinstance(kernel, MatrixMap):
                continue
            exprs = expected[kernel.name]
            means = _means(family)
            given = {o.variable for o in kernel.operands}
            symbols = set().union(*(e.free_symbols for e in exprs), fixed, (s for s in of_members if str(s) in given))
            for point in member_points(c, symbols, seed=7):
                if kernel.name == "natural_from_expectation":
                    point = dict(next(means))
                for variable, (_, bound) in zip(family.variables, family.bounds, strict=True):
                    if variable in point and bound != sp.oo:
                        high = numeric(sp.sympify(bound), point)
                        point[variable] %= high + 1 if family.is_discrete else high
                _compare(evaluator, kernel, exprs, point)
    return f"mpmath, {DIGITS} digits at 5 random points per kernel"


def lines(module: RoundModule, expected: Mapping[str, list[sp.Expr]]) -> str:
    """The IR of every line of a round, run in exact arithmetic, equals the derived line."""
    evaluator = Evaluator(module.functions)
    with mp.workdps(DIGITS):
        for kernel in module.kernels:
            exprs = expected[kernel.name]
            for point in domain_points(set().union(*(e.free_symbols for e in exprs)), seed=7):
                _compare(evaluator, kernel, exprs, point)
    return f"mpmath, {DIGITS} digits at 5 random points per kernel"


def _means(family: Family) -> Iterator[Point50]:
    """Expectation parameters of random members: a random point is that of none."""
    c = calculus(family)
    fixed = {s.symbol for s in family.fixed}
    for point in member_points(c, {m[0, 0] for m in c.at.natural} | fixed, seed=8):
        means = zip(family.expectation, c.expectation_of_natural, strict=True)
        yield {s: point[s] for s in fixed} | {s.symbol: numeric(m[0, 0], point) for s, m in means}


def _compare(evaluator: Evaluator, kernel: FamilyKernel, exprs: list[sp.Expr], point: Point50) -> None:
    env = {str(s): v for s, v in point.items()}
    env |= {o.variable: mp.mpf(0) for o in kernel.operands if o.variable not in env}
    for got, want in zip(evaluator.kernel(kernel, env), exprs, strict=True):
        expected = numeric(want, point)
        if abs(got - expected) > TRUNCATION * max(1, abs(expected)):
            raise ClaimError(f"{kernel.name} gives {mp.nstr(got, 12)}, derived {mp.nstr(expected, 12)}")


def newton(c: Calculus, module: FamilyModule) -> str:
    """The lowered inverse map, a Newton iteration, gives λ(μ(λ)) = λ over many decades within its bound on the
    steps."""
    (kernel,) = (k for k in module.kernels if k.name == "natural_from_expectation")
    evaluator = Evaluator(module.functions)
    points = list(_decades(c))
    with mp.workdps(DIGITS):
        for point in points:
            mu = [numeric(m[0, 0], point) for m in c.expectation_of_natural]
            got = evaluator.kernel(kernel, {o.variable: v for o, v in zip(kernel.operands, mu, strict=True)})
            for symbol, value in zip(point, got, strict=True):
                miss = abs(value / point[symbol] - 1)
                if miss > NEWTON:
                    at = ", ".join(mp.nstr(v, 5) for v in point.values())
                    raise ClaimError(f"Newton misses {symbol} by {mp.nstr(miss, 5)} at {at}")
    return f"mpmath, {DIGITS} digits at {len(points)} points"


def _decades(c: Calculus) -> Iterator[Point50]:
    """Members far from each other: of one unknown every half decade from 1e-4 to 1e8, of several their corners."""
    standard = [m[0, 0] for m in c.at.standard]
    root = c.natural_of_expectation
    if isinstance(root, ScalarRoot):
        found = [
            {s: mp.mpf(10) ** (mp.mpf(k) / 2) if s == root.unknown else mp.mpf(7) / 3 for s in standard}
            for k in range(-8, 17)
        ]
    else:
        found = [
            {s: mp.mpf(10) ** k * (1 + mp.mpf(j) / 7) for j, (s, k) in enumerate(zip(standard, corner, strict=True))}
            for corner in itertools.product((-3, 0, 4), repeat=len(standard))
        ]
    for point in found:
        values = [numeric(m[0, 0], point) for m in c.at.natural_of_standard]
        yield dict(zip((m[0, 0] for m in c.at.natural), values, strict=True))


def claims(family: Family) -> Iterator[Claim]:
    """The claims whose targets are the elementwise kernels of a family; a matrix family has none."""
    if family.is_matrix:
        return
    module, expected = build_module(family), expected_results(family)
    targets = tuple(f"{family.name}.{k.name}" for k in module.kernels if k.name in expected)
    yield _lowered(family.name, family.name, partial(elementwise, family, module, expected), targets)
    root = calculus(family).natural_of_expectation
    if isinstance(root, ScalarRoot | CoupledRoot):
        statement = sp.latex(sp.Eq(root.residual, 0)) + rf",\ {root.unknown}\in[10^{{-4}},10^8]" if isinstance(
            root, ScalarRoot) else r"\lambda(\mu(\lambda)) = \lambda,\ \lambda_i\in[10^{-3},10^4]"  # fmt: skip
        yield Claim(
            "Newton for the inverse map",
            family.name,
            statement,
            partial(newton, calculus(family), module),
            "derive/lower/newton.py",
            (f"{family.name}.natural_from_expectation",),
        )


def round_claims() -> Iterator[Claim]:
    """The claim whose targets are the lines of a round."""
    module = round_module()
    yield _lowered(module.name, "the lines of a round", partial(lines, module, round_results()), module.callable_names)


def _lowered(name: str, what: str, prove: Callable[[], str], targets: tuple[str, ...]) -> Claim:
    shown = rf"\text{{IR of {what} equals the derived expressions}}".replace("_", r"\_")
    return Claim(f"lowered {name}", name, shown, prove, "derive/lower", targets)


def unclaimed(modules: Iterable[Module], proved: Iterable[Claim]) -> list[str]:
    """The kernels that are no claim's target."""
    targets = {target for claim in proved for target in claim.targets}
    return [name for module in modules for name in module.callable_names if name not in targets]
