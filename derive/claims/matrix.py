"""Claims about the matrix form: what calculus/matrix.py derives and what is lowered from it, against the elementwise
calculus at d = 1, 2, 3."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import mpmath as mp
import sympy as sp

from ..calculus.elementwise import Calculus
from ..calculus.family import DIMENSION, Family
from ..calculus.matrix import MatrixCalculus
from ..calculus.slots import entries, inner, substitute
from ..calculus.traces import normal
from ..ir.evaluate import Evaluator
from ..ir.nodes import MatrixMap
from ..lower.families import build_module
from . import traces
from .claim import DIGITS, EXACT, POINTS, Claim, ClaimError, rational_points, zero_at_rationals
from .families import by_dimension


def explicit(expr: Any, table: dict[sp.MatrixSymbol, sp.Matrix]) -> sp.Matrix:
    """A matrix expression with its symbols replaced by explicit matrices."""
    d = next(iter(table.values())).rows
    value = expr.xreplace({k: sp.ImmutableMatrix(v) for k, v in table.items()} | {DIMENSION: sp.Integer(d)}).doit()
    return sp.Matrix(value)


def spd(c: Calculus) -> list[sp.Matrix]:
    """The matrix slots whose entries a rational point must make positive definite."""
    return [m for slots in (c.at.natural, c.at.standard) for m in slots if m.cols > 1]


def expectation_form(family: Family, c: Calculus) -> str:
    """The matrix form of μ(λ) equals the elementwise gradient."""
    forms = MatrixCalculus(family).expectation
    table = {slot.symbol: m for slot, m in zip(family.natural, c.at.natural, strict=True)}
    gaps = [explicit(f, table) - m for f, m in zip(forms, c.expectation_of_natural, strict=True)]
    return zero_at_rationals(*gaps, positive_definite=spd(c), what="matrix form of μ - elementwise μ")


def standard_form(family: Family, c: Calculus) -> str:
    """μ in the standard parameters: (m, −½S⁻¹ − ½mmᵀ)."""
    forms = MatrixCalculus(family).expectation_in_standard
    table = {slot.symbol: m for slot, m in zip(family.standard, c.at.standard, strict=True)}
    gaps = [explicit(f, table) - m for f, m in zip(forms, c.expectation_of_standard, strict=True)]
    return zero_at_rationals(*gaps, positive_definite=spd(c), what="matrix form of μ(m, S) - elementwise μ")


def inverse_form(family: Family, c: Calculus) -> str:
    """λ(μ(λ)) = λ in matrix form."""
    forms = MatrixCalculus(family)
    covariance, back = forms.natural_of_expectation
    (v_symbol,) = back[1].atoms(sp.MatrixSymbol)
    for point in rational_points(set().union(*(m.free_symbols for m in c.at.standard)), [c.at.standard[1]]):
        standard = {slot.symbol: m.xreplace(point) for slot, m in zip(family.standard, c.at.standard, strict=True)}
        mu = [explicit(f, standard) for f in forms.expectation_in_standard]
        given = {slot.symbol: m for slot, m in zip(family.expectation, mu, strict=True)}
        table = given | {v_symbol: explicit(covariance, given)}
        for form, target in zip(back, c.at.natural_of_standard, strict=True):
            if explicit(form, table) != target.xreplace(point):
                raise ClaimError(f"λ(μ(λ)) - λ does not vanish at {point}")
    return EXACT


def gradient_form(family: Family, c: Calculus) -> str:
    """The matrix form (g − Hm, −H) satisfies ∂L/∂standard = (∂μ/∂standard)ᵀ ∇_μ L."""
    g, h = c.loss_derivatives.values()
    table = {sp.MatrixSymbol("g", DIMENSION, 1): g, sp.MatrixSymbol("H", DIMENSION, DIMENSION): h}
    table |= {slot.symbol: m for slot, m in zip(family.standard, c.at.standard, strict=True)}
    grads = [explicit(f, table) for f in MatrixCalculus(family).natural_gradient]
    mu = c.expectation_of_standard
    weights = [2 if mu[k].cols > 1 and i != j else 1 for k, i, j in entries(mu)]
    flat = sp.Matrix([w * grads[k][i, j] for w, (k, i, j) in zip(weights, entries(mu), strict=True)])
    gap = c.jacobian(mu, c.at.standard).T * flat - sp.Matrix(c.gradient_in_standard)
    return zero_at_rationals(gap, positive_definite=spd(c), what="transported gradient")


def lowered(family: Family, c: Calculus) -> str:
    """The LAPACK form of every kernel, run at 50 digits, equals the elementwise calculus."""
    module = build_module(family)
    evaluator = Evaluator(module.functions)
    standard, natural = (
        {s.symbol.name: m for s, m in zip(getattr(family, k), getattr(c.at, k), strict=True)}
        for k in ("standard", "natural")
    )
    g, h = c.loss_derivatives.values()
    targets = {
        "natural_from_standard": (standard, c.at.natural_of_standard),
        "standard_from_natural": (natural, (c.at.natural[1].inv() * c.at.natural[0], c.at.natural[1])),
        "expectation_from_natural": (natural, c.expectation_of_natural),
        "natural_gradient": ({"m": c.at.standard[0], "g": g, "H": h}, (g - h * c.at.standard[0], -h)),
        "log_partition": (natural, (sp.Matrix([[c.at.log_partition]]),)),
        "entropy": (natural, (sp.Matrix([[c.entropy if c.at.dimension == 1 else _entropy(c)]]),)),
    }
    with mp.workdps(DIGITS):
        for kernel in module.kernels:
            if isinstance(kernel, MatrixMap) and kernel.name in targets:
                inputs, expected = targets[kernel.name]
                _compare(evaluator, kernel, inputs, expected, spd(c))
            elif isinstance(kernel, MatrixMap):
                {"kl": _compare_kl, "natural_from_expectation": _compare_inverse}[kernel.name](evaluator, kernel, c)
    return f"mpmath, {DIGITS} digits at {POINTS} random points per kernel"


def scalar_forms(family: Family, c: Calculus) -> str:
    """A, the entropy and KL of the matrix calculus, KL in its stable form as well, are the elementwise ones."""
    forms = MatrixCalculus(family)
    if normal(forms.kl.scalar - forms.kl_of_naturals) != 0:
        raise ClaimError(f"stable KL - KL leaves {normal(forms.kl.scalar - forms.kl_of_naturals)}")
    named = {x: tuple(m.applyfunc(lambda s, x=x: sp.Symbol(s.name + x)) for m in c.at.natural) for x in ("_q", "_p")}
    one = {slot.symbol: m for slot, m in zip(family.natural, c.at.natural, strict=True)}
    two = {v: m for x, slots in named.items() for v, m in zip(forms.natural(x), slots, strict=True)}
    a_q, a_p = (c.at.log_partition.xreplace(_renaming(c, slots)) for slots in named.values())
    mu = substitute(c.expectation_of_natural, c.at.natural, named["_q"])
    gap = tuple(y - x for x, y in zip(*named.values(), strict=True))
    pairs = [
        (forms.log_partition, one, c.at.log_partition),
        (forms.entropy, one, _entropy(c)),
        (forms.kl.scalar, two, a_p - a_q - inner(mu, gap)),
    ]
    matrices = [c.at.natural[1], *(slots[1] for slots in named.values())]
    symbols = set().union(*(m.free_symbols for m in (*c.at.natural, *named["_q"], *named["_p"])))
    for point in rational_points(symbols, matrices):
        for form, table, right in pairs:
            left = explicit_scalar(form, {k: m.xreplace(point) for k, m in table.items()})
            miss = abs(sp.N(left - right.xreplace(point), DIGITS))
            if miss > mp.mpf(10) ** -40:
                raise ClaimError(f"a scalar in matrix form misses the elementwise one by {mp.nstr(miss, 5)}")
    return f"mpmath, {DIGITS} digits at {POINTS} random points"


def explicit_scalar(expr: sp.Expr, table: dict[sp.MatrixSymbol, sp.Matrix]) -> sp.Expr:
    """A scalar of matrices with its symbols replaced by explicit matrices."""
    d = next(iter(table.values())).rows
    return expr.xreplace({k: sp.ImmutableMatrix(v) for k, v in table.items()} | {DIMENSION: sp.Integer(d)}).doit()


def _renaming(c: Calculus, slots: tuple[sp.Matrix, ...]) -> dict[sp.Symbol, sp.Expr]:
    """λ's symbols → the entries of another member's slots."""
    return {c.at.natural[k][i, j]: slots[k][i, j] for k, i, j in entries(c.at.natural)}


def _numbers(m: sp.Matrix) -> mp.matrix:
    """A rational matrix as 50-digit numbers."""
    return mp.matrix([[mp.mpf(int(e.p)) / int(e.q) for e in m.row(i)] for i in range(m.rows)])


def _agree(kernel: MatrixMap, got: Any, want: Any) -> None:
    miss = abs(got - want) if isinstance(got, mp.mpf) else mp.mnorm(got - want, 1)
    if miss > mp.mpf(10) ** -14:
        raise ClaimError(f"{kernel.name} as lowered misses the derived value by {mp.nstr(miss, 5)}")


def _compare(
    evaluator: Evaluator, kernel: MatrixMap, inputs: dict[str, sp.Matrix], expected: Any, matrices: list[sp.Matrix]
) -> None:
    symbols = set().union(*(m.free_symbols for m in inputs.values()))
    for point in rational_points(symbols, matrices):
        env = {k: _numbers(m.xreplace(point)) for k, m in inputs.items()}
        for got, want in zip(evaluator.kernel(kernel, env), expected, strict=True):
            value = want.xreplace(point).applyfunc(lambda e: sp.N(e, DIGITS + 10))
            target = mp.matrix(value.tolist())
            _agree(kernel, got, target[0] if isinstance(got, mp.mpf) else target)


def _entropy(c: Calculus) -> sp.Expr:
    """H = A − ⟨λ, μ⟩ − E[log b], b constant."""
    pairing = inner(c.at.natural, c.expectation_of_natural)
    return c.at.log_partition - pairing - sp.log(c.at.base_measure)


def _compare_inverse(evaluator: Evaluator, kernel: MatrixMap, c: Calculus) -> None:
    names = [o.variable for o in kernel.operands]
    symbols = set().union(*(m.free_symbols for m in c.at.standard))
    for point in rational_points(symbols, [c.at.standard[1]]):
        mu = [m.xreplace(point) for m in c.expectation_of_standard]
        env = {k: _numbers(m) for k, m in zip(names, mu, strict=True)}
        for got, want in zip(evaluator.kernel(kernel, env), c.at.natural_of_standard, strict=True):
            _agree(kernel, got, _numbers(want.xreplace(point)))


def _compare_kl(evaluator: Evaluator, kernel: MatrixMap, c: Calculus) -> None:
    named = {x: [m.applyfunc(lambda s, x=x: sp.Symbol(s.name + x)) for m in c.at.natural] for x in ("_q", "_p")}
    flat = set().union(*(m.free_symbols for slots in named.values() for m in slots))
    for point in rational_points(flat, [slots[1] for slots in named.values()]):
        q, p = ([m.xreplace(point) for m in named[x]] for x in ("_q", "_p"))
        env = {o.variable: _numbers(m) for o, m in zip(kernel.operands, (*q, *p), strict=True)}
        (got,) = evaluator.kernel(kernel, env)
        derived = _derived_kl(c, q, p)
        _agree(kernel, got / max(1, derived), derived / max(1, derived))


def _derived_kl(c: Calculus, q: list[sp.Matrix], p: list[sp.Matrix]) -> mp.mpf:
    """KL from A and μ = ∇A at rational points."""
    a_q, a_p = (c.at.log_partition.xreplace(_renaming(c, tuple(s))) for s in (q, p))
    mu = substitute(c.expectation_of_natural, c.at.natural, tuple(q))
    gap = tuple(y - x for x, y in zip(q, p, strict=True))
    return mp.mpf(sp.N(a_p - a_q - inner(mu, gap), DIGITS + 10))


def claims(family: Family) -> Iterator[Claim]:
    """The claims that carry the elementwise proofs to the LAPACK form."""

    def claim(label: str, statement: str, prove: Any, targets: tuple[str, ...] = ()) -> Claim:
        proof = partial(by_dimension, family, prove)
        return Claim(label, family.name, statement, proof, "derive/calculus/matrix.py", targets)

    for label, statement, prove in traces.RULES:
        yield claim(label, statement, prove)
    yield claim(
        "matrix form of mu",
        r"\mu = (S^{-1}\xi,\; -\tfrac12(S^{-1}+S^{-1}\xi\xi^\top S^{-1}))",
        partial(expectation_form, family),
    )
    yield claim("mu in standard parameters", r"\mu = (m,\; -\tfrac12(S^{-1}+mm^\top))", partial(standard_form, family))
    yield claim(
        "inverse map",
        r"\lambda(\mu(\lambda)) = \lambda,\quad S = (-2\mu_2-\mu_1\mu_1^\top)^{-1}",
        partial(inverse_form, family),
    )
    yield claim("matrix form of the natural gradient", r"\nabla_\mu L = (g-Hm,\; -H)", partial(gradient_form, family))
    yield claim(
        "A, entropy and KL in matrix form",
        r"\mathrm{KL}=\tfrac12\sum_i\phi(e_i)+\tfrac12r^\top S_p^{-1}r,\ "
        r"H=\tfrac d2(1+\log2\pi)-\tfrac12\log\det S",
        partial(scalar_forms, family),
    )
    yield claim(
        "lowered full_gaussian",
        r"\text{the LAPACK form of every kernel equals the derived expression}",
        partial(lowered, family),
        tuple(f"{family.name}.{k.name}" for k in build_module(family).kernels if isinstance(k, MatrixMap)),
    )
