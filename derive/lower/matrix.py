"""MatrixExpr → IR: the full Gaussian's kernels in calls of LAPACK."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy as sp

from ..calculus.family import DIMENSION as d, Family
from ..calculus.matrix import MatrixCalculus
from ..ir.names import replaced
from ..ir.nodes import Expr, FamilyKernel, Let, MatrixMap, Op, Operand, Var, reads
from .expressions import literal

EXPECTATION = ""  # key of the argument that speaks for a factor of a derived matrix
RULE = "Khan & Rue, arXiv:2107.04562"


class MatrixLowering:
    """MatrixExpr → IR: S⁻¹v is a Cholesky solve, S⁻¹ a potri, log det S a sum over the factor; each factor is formed
    once."""

    def __init__(self, arguments: dict[str, str]) -> None:
        self.statements: list[Let] = []
        self._arguments = arguments
        self._factors: dict[Any, Var] = {}

    def let(self, name: str, value: Expr) -> Var:
        """Name a value."""
        self.statements.append(Let(name, value))
        return Var(name)

    def factor(self, matrix: Any) -> Var:
        """The lower Cholesky factor of a symmetric positive definite matrix; that of a member q's precision is L_q."""
        if matrix not in self._factors:
            value = self.expr(matrix)
            label = value.name if isinstance(value, Var) else f"m{len(self._factors)}"
            argument = self._arguments.get(label) or self._arguments[EXPECTATION]
            member = argument.partition(".")[0].rpartition("_")[2] if "." in argument else label
            self._factors[matrix] = self.let(f"L_{member}", Op("cholesky", (value,), argument))
        return self._factors[matrix]

    def expr(self, e: Any) -> Expr:
        """The IR of a matrix or vector expression."""
        if isinstance(e, sp.MatrixSymbol):
            return Var(e.name)
        if isinstance(e, sp.MatAdd):
            first, *others = sorted(e.args, key=lambda t: t.as_coeff_mmul()[0].is_negative)  # stable: no sign in front
            out = self.expr(first)
            for term in others:
                coefficient, rest = term.as_coeff_mmul()
                negative = coefficient.is_negative
                right = self.expr(-coefficient * rest if negative else term)
                out = Op("sub" if negative else "add", (out, right))
            return out
        if isinstance(e, sp.Inverse):
            return Op("inverse", (self.factor(e.arg),))
        if isinstance(e, sp.MatMul):
            return self._product(e)
        raise NotImplementedError(f"no lowering for {type(e).__name__}: {e}")

    def _product(self, e: sp.MatMul) -> Expr:
        coefficient, rest = e.as_coeff_mmul()
        factors: list[Any] = list(rest.args) if isinstance(rest, sp.MatMul) else [rest]
        if len(factors) == 1:
            out = self.expr(factors[0])
        elif len(factors) == 2 and isinstance(factors[0], sp.Inverse) and factors[1].shape[1] == 1:
            out = Op("solve", (self.factor(factors[0].arg), self.expr(factors[1])))
        elif len(factors) == 2 and factors[1] == sp.Transpose(factors[0]):
            out = Op("outer", (self.expr(factors[0]),))
        elif len(factors) == 2 and factors[1].shape[1] == 1:
            out = Op("matvec", tuple(self.expr(f) for f in factors))
        else:
            raise NotImplementedError(f"no lowering for the product {e}")
        if coefficient == 1:
            return out
        return Op("neg", (out,)) if coefficient == -1 else Op("mul", (literal(coefficient), out))

    def scalar(self, e: sp.Expr) -> Expr:
        """The IR of a sum of d, traces of xᵀS⁻¹x and log-determinants."""
        parts: list[tuple[sp.Expr, Expr]] = []
        size = sp.expand(e).coeff(d)
        if size != 0:
            matrix = next(iter(sorted(e.atoms(sp.Determinant), key=str))).arg
            parts.append((size, Op("size", (self.expr(matrix),))))
        for term in sorted(sp.Add.make_args(sp.expand(e - size * d)), key=lambda t: t.has(sp.Determinant)):
            coefficient, rest = term.as_coeff_Mul()
            parts.append((coefficient, self._trace(rest) if isinstance(rest, sp.Trace) else self._log_det(rest)))
        return weighted(parts)

    def _trace(self, e: sp.Trace) -> Expr:
        """xᵀS⁻¹x as the squared length of L⁻¹x."""
        left, inverse, right = e.arg.args
        if not isinstance(inverse, sp.Inverse) or left != sp.Transpose(right):
            raise NotImplementedError(f"no lowering for {e}")
        return self.square(right, inverse.arg)

    def square(self, vector: Any, matrix: Any) -> Expr:
        """xᵀS⁻¹x for a vector expression, or one that is a variable already."""
        factor = self.factor(matrix)
        value = vector if isinstance(vector, Var) else self.expr(vector)
        whitened = self.let("w", Op("solve_lower", (factor, value)))
        return Op("dot", (whitened, whitened))

    def _log_det(self, e: Any) -> Expr:
        return Op("log_det", (self.factor(e.args[0].arg),))


def weighted(parts: list[tuple[sp.Expr, Expr]]) -> Expr:
    """Σ cᵢ xᵢ with the common weight of the terms taken out; the first term has a positive coefficient."""
    weight = min(abs(c) for c, _ in parts if c.is_Rational)
    total: Expr | None = None
    for coefficient, value in parts:
        scale = abs(coefficient) / weight
        term = value if scale == 1 else Op("mul", (literal(scale), value))
        total = term if total is None else Op("sub" if coefficient < 0 else "add", (total, term))
    assert total is not None and parts[0][0] > 0
    return Op("mul", (literal(weight), total))


def _operands(slots: Any, prefix: str = "", suffix: str = "") -> tuple[Operand, ...]:
    return tuple(
        Operand(f"{prefix}.{s.name}" if prefix else s.name, f"{s.symbol.name}{suffix}", s.domain) for s in slots
    )


def _map(
    name: str, inputs: tuple[Operand, ...], stages: list[tuple[str, Any]], results: tuple[Any, ...], source: str
) -> MatrixMap:
    arguments = {o.variable: o.argument for o in inputs}
    arguments[EXPECTATION] = f"{inputs[-1].argument}: -2 M - m m^T positive definite"
    lowering = MatrixLowering(arguments)
    for label, value in stages:
        lowered = lowering.expr(value)
        if lowered != Var(label):
            lowering.let(label, lowered)
    out = tuple(lowering.expr(r) for r in results)
    return MatrixMap(name, inputs, tuple(lowering.statements), out, ", ".join(str(r) for r in results), source)


def matrix_kernels(family: Family) -> tuple[FamilyKernel, ...]:
    """Conversions, natural gradient and reductions of the full Gaussian."""
    c = MatrixCalculus(family)
    (xi, s), (m, _) = ([slot.symbol for slot in slots] for slots in (family.natural, family.standard))
    covariance, (xi_back, s_back) = c.natural_of_expectation
    mean = s.I * xi
    gradients = (
        Operand("mean", "m", "real"),
        Operand("expected_gradient", "g", "real"),
        Operand("expected_hessian", "H", "symmetric"),
    )
    forward = _map(
        "natural_from_standard", _operands(family.standard), [], family.natural_of_standard, f"{RULE}, section 2"
    )
    checked = MatrixMap(
        forward.name,
        forward.operands,
        (Let("L_S", Op("cholesky", (Var("S"),), "precision")),),
        forward.results,
        forward.formula,
        forward.source,
    )
    return (
        checked,
        _map("standard_from_natural", _operands(family.natural), [], (mean, s), f"{RULE}, section 2"),
        _map(
            "expectation_from_natural",
            _operands(family.natural),
            [(m.name, mean)],
            (m, c.expectation_in_standard[1]),
            f"{RULE}, section 2: mu = grad A",
        ),
        _map(
            "natural_from_expectation",
            _operands(family.expectation),
            [("V", covariance)],
            (xi_back, s_back),
            f"{RULE}, section 2: inverse of grad A",
        ),
        _map(
            "natural_gradient",
            gradients,
            [],
            c.natural_gradient,
            "Bonnet and Price; Khan & Rue, arXiv:2107.04562, equations 9-11",
        ),
        *_reductions(family, c),
    )


def _widened(kernel: MatrixMap) -> MatrixMap:
    """A reduction whose operands are float64 from the start: named once where they are read more than once."""
    variables = {o.variable for o in kernel.operands}
    read = [name for node in (*kernel.body, *kernel.results) for name in reads(node) if name in variables]
    often = [o.variable for o in kernel.operands if read.count(o.variable) > 1]
    table = {v: Op("wide", (Var(v),)) for v in variables - set(often)}
    lets = tuple(Let(v, Op("wide", (Var(v),))) for v in often)
    body = (*lets, *(Let(s.name, replaced(s.value, table)) for s in kernel.body))
    return replace(kernel, body=body, results=tuple(replaced(r, table) for r in kernel.results))


def _reduction(name: str, inputs: tuple[Operand, ...], scalar: sp.Expr, formula: str, source: str) -> MatrixMap:
    """A scalar of one member in float64."""
    lowering = MatrixLowering({o.variable: o.argument for o in inputs})
    value = lowering.scalar(scalar)
    return _widened(MatrixMap(name, inputs, tuple(lowering.statements), (value,), formula, source, True))


def _divergence(family: Family, c: MatrixCalculus) -> MatrixMap:
    """KL in its stable form. The gap r between the means is S_p m_q − ξ_p, or (ξ_q − ξ_p) + (S_p − S_q) m_q where the
    eigenvalues are small: `mean_gap` chooses."""
    inputs = _operands(family.natural, "natural_q", "_q") + _operands(family.natural, "natural_p", "_p")
    lowering = MatrixLowering({o.variable: o.argument for o in inputs})
    kl = c.kl
    base, moved = kl.whitened.base, kl.whitened.moved
    factors = lowering.factor(base), lowering.factor(moved)
    change = lowering.let("D", lowering.expr(moved - base))
    eigenvalues = lowering.let("e", Op("whitened_eigenvalues", (factors[0], change)))
    symbol, solution = kl.mean
    mean = lowering.let(symbol.name, lowering.expr(solution))
    (xi_q, _), (xi_p, s_p) = c.natural("_q"), c.natural("_p")
    assert kl.square.gap == s_p * symbol - xi_p, "mean_gap is the gap of another square"
    gap = Op("mean_gap", (eigenvalues, Var(xi_q.name), Var(xi_p.name), change, Var(s_p.name), mean))
    square = lowering.square(lowering.let("r", gap), kl.square.matrix)
    divergence = Op("ratio_divergence", (eigenvalues, *factors), "x_minus_log1p")
    value = weighted([(kl.whitened.weight, divergence), (kl.square.weight, square)])
    formula = "sum phi(e) / 2 + r^T S_p^-1 r / 2, e the eigenvalues of L_q^-1 (S_p - S_q) L_q^-T, r = S_p m_q - xi_p"
    source = "KL = A(p) - A(q) - <mu_q, p - q>, stable form"
    return _widened(MatrixMap("kl", inputs, tuple(lowering.statements), (value,), formula, source, True))


def _reductions(family: Family, c: MatrixCalculus) -> tuple[MatrixMap, ...]:
    """A, entropy and KL in float64 from Cholesky factors."""
    natural = _operands(family.natural)
    a = "xi^T S^-1 xi / 2 - log det(S) / 2"
    h = "d (1 + log 2 pi) / 2 - log det(S) / 2"
    return (
        _reduction("log_partition", natural, c.log_partition, a, f"{RULE}, section 2"),
        _reduction("entropy", natural, c.entropy, h, "H = A - <lambda, mu> - E[log b]"),
        _divergence(family, c),
    )
