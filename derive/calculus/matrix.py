"""The full Gaussian without indices: the same derivations on MatrixSymbols, lowered to calls of LAPACK.

SymPy 1.14 differentiates log det S to 0 (a trap), so Jacobi's rule ∇_S log det S = S⁻¹ is stated once, here, and the
results are proved elementwise against calculus.py at d = 1, 2, 3 by claims.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from ..ir.nodes import Expr, Kernel, Let, Lit, MatrixMap, Op, Operand, Var
from .family import DIMENSION as d
from .family import Family

EXPECTATION = ""  # key of the argument that speaks for a factor of a derived matrix
RULE = "Khan & Rue, arXiv:2107.04562"


def symmetric(expr: Any, *matrices: sp.MatrixSymbol) -> Any:
    """The expression with Sᵀ = S for the given symmetric symbols."""
    table = {sp.Transpose(m): m for m in matrices}
    return expr.xreplace(table).doit().xreplace(table)


def matrix_gradient(scalar: sp.Expr, variable: sp.MatrixSymbol) -> Any:
    """∇ of a scalar with respect to a vector or a symmetric matrix: SymPy for traces, Jacobi's rule for log det."""
    total: Any = sp.ZeroMatrix(variable.rows, variable.cols)
    for term in sp.Add.make_args(scalar):
        coefficient, rest = term.as_coeff_Mul()
        if rest == sp.log(sp.Determinant(variable)):
            total = total + coefficient * variable.I
        elif not rest.has(variable):
            continue
        elif isinstance(rest, sp.log):
            raise NotImplementedError(f"no rule for the derivative of {rest}")
        else:
            total = total + coefficient * rest.diff(variable)
    return total.doit()


@dataclass(frozen=True)
class MatrixCalculus:
    """What follows from A(λ) for a family with one vector slot and one matrix slot."""

    family: Family

    @cached_property
    def expectation(self) -> tuple[Any, Any]:
        """μ(λ) = ∇A(λ)."""
        xi, s = (slot.symbol for slot in self.family.natural)
        a = sp.expand(self.family.log_partition)
        return tuple(symmetric(matrix_gradient(a, v), s) for v in (xi, s))

    @cached_property
    def expectation_in_standard(self) -> tuple[Any, Any]:
        """μ with S⁻¹ξ written as the mean: (m, −½S⁻¹ − ½mmᵀ)."""
        (xi, s), (m, _) = ([slot.symbol for slot in slots] for slots in (self.family.natural, self.family.standard))
        mean, second = self.expectation
        table = {s.I * xi: m, sp.MatMul(xi.T, s.I): m.T}

        def rewrite(e: Any) -> Any:
            terms = sp.Add.make_args(e) if not isinstance(e, sp.MatAdd) else e.args
            return sp.MatAdd(*[_replace_product(t, xi, s, m) for t in terms]).doit()

        return mean.xreplace(table).doit(), rewrite(second)

    @cached_property
    def natural_of_expectation(self) -> tuple[Any, Any]:
        """(V⁻¹μ₁, V⁻¹) where V = S⁻¹ solves the second expectation equation, linear in S⁻¹."""
        (m, s), (mu1, mu2) = (
            [slot.symbol for slot in slots] for slots in (self.family.standard, self.family.expectation)
        )
        second = self.expectation_in_standard[1]
        unknown = sp.MatrixSymbol("V", d, d)
        linear = second.xreplace({s.I: unknown})
        terms = linear.args if isinstance(linear, sp.MatAdd) else (linear,)
        (slope,) = [t.as_coeff_mmul()[0] for t in terms if t.has(unknown)]
        rest = sp.MatAdd(*[t for t in terms if not t.has(unknown)]).xreplace({m: mu1})
        covariance = ((mu2 - rest) / slope).doit()
        precision = sp.Inverse(sp.MatrixSymbol("V", d, d))
        return covariance, (precision * mu1, precision)

    @cached_property
    def natural_gradient(self) -> tuple[Any, Any]:
        """(g − Hm, −H): Bonnet and Price through m = μ₁ and Σ = V(μ)."""
        (m, _), (mu1, mu2) = (
            [slot.symbol for slot in slots] for slots in (self.family.standard, self.family.expectation)
        )
        g, h = sp.MatrixSymbol("g", d, 1), sp.MatrixSymbol("H", d, d)
        covariance, _ = self.natural_of_expectation
        loss = sp.Trace(g.T * mu1) + sum((sp.Trace(h * t) / 2 for t in covariance.doit().expand().args), sp.S.Zero)
        out = []
        for variable in (mu1, mu2):
            total: Any = sp.ZeroMatrix(variable.rows, variable.cols)
            for term in sp.Add.make_args(sp.expand(loss)):
                if term.has(variable):
                    total = total + term.doit().diff(variable)
            out.append(symmetric(total.doit(), h, mu2).xreplace({mu1: m}).doit())
        return tuple(out)


def _replace_product(term: Any, xi: Any, s: Any, m: Any) -> Any:
    """S⁻¹ξξᵀS⁻¹ → mmᵀ inside one term."""
    coefficient, rest = term.as_coeff_mmul() if hasattr(term, "as_coeff_mmul") else (sp.S.One, term)
    if rest == sp.MatMul(s.I, xi, xi.T, s.I):
        return coefficient * m * m.T
    return term


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
        """The lower Cholesky factor of a symmetric positive definite matrix."""
        if matrix not in self._factors:
            value = self.expr(matrix)
            label = value.name if isinstance(value, Var) else f"m{len(self._factors)}"
            argument = self._arguments.get(label, self._arguments[EXPECTATION])
            self._factors[matrix] = self.let(f"L_{label}", Op("cholesky", (value,), argument))
        return self._factors[matrix]

    def expr(self, e: Any) -> Expr:
        """The IR of a matrix or vector expression."""
        if isinstance(e, sp.MatrixSymbol):
            return Var(e.name)
        if isinstance(e, sp.MatAdd):
            out = self.expr(e.args[0])
            for term in e.args[1:]:
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
        return Op("neg", (out,)) if coefficient == -1 else Op("mul", (Lit(repr(float(coefficient))), out))


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


def matrix_kernels(family: Family) -> tuple[Kernel, ...]:
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
        *_reductions(family),
    )


def _op(op: str, *args: Expr | str, target: str = "") -> Op:
    return Op(op, tuple(Var(a) if isinstance(a, str) else a for a in args), target)


def _half(value: Expr) -> Op:
    return _op("mul", Lit("0.5"), value)


def _reductions(family: Family) -> tuple[MatrixMap, ...]:
    """A, entropy and KL in float64 from Cholesky factors; each form is proved equal to the derived one by claims.py."""
    natural = _operands(family.natural)
    pair = _operands(family.natural, "natural_q", "_q") + _operands(family.natural, "natural_p", "_p")
    factor = Let("L_S", _op("cholesky", _op("wide", "S"), target="precision"))
    whitened = Let("w", _op("solve_lower", "L_S", _op("wide", "xi")))
    log_partition = _half(_op("sub", _op("dot", "w", "w"), _op("log_det", "L_S")))
    constant = Lit(repr(float(sp.N(1 + sp.log(2 * sp.pi), 30))))
    entropy = _half(_op("sub", _op("mul", constant, _op("size", "S")), _op("log_det", "L_S")))
    kl_body = (
        *(Let(v, _op("wide", v)) for v in ("xi_q", "S_q", "xi_p", "S_p")),
        Let("L_q", _op("cholesky", "S_q", target="natural_q.precision")),
        Let("L_p", _op("cholesky", "S_p", target="natural_p.precision")),
        Let("D", _op("sub", "S_p", "S_q")),
        Let("e", _op("whitened_eigenvalues", "L_q", "D")),
        Let("m_q", _op("solve", "L_q", "xi_q")),
        Let("r", _op("mean_gap", "e", "xi_q", "xi_p", "D", "S_p", "m_q")),
        Let("w", _op("solve_lower", "L_p", "r")),
    )
    kl = _half(_op("add", _op("ratio_divergence", "e", "L_q", "L_p", target="x_minus_log1p"), _op("dot", "w", "w")))
    kl_formula = "sum phi(e) / 2 + r^T S_p^-1 r / 2, e the eigenvalues of L_q^-1 (S_p - S_q) L_q^-T, r = S_p m_q - xi_p"
    return (
        MatrixMap(
            "log_partition",
            natural,
            (factor, whitened),
            (log_partition,),
            "xi^T S^-1 xi / 2 - log det(S) / 2",
            f"{RULE}, section 2",
            True,
        ),
        MatrixMap(
            "entropy",
            natural,
            (factor,),
            (entropy,),
            "d (1 + log 2 pi) / 2 - log det(S) / 2",
            "H = A - <lambda, mu> - E[log b]",
            True,
        ),
        MatrixMap("kl", pair, kl_body, (kl,), kl_formula, "KL = A(p) - A(q) - <mu_q, p - q>, stable form", True),
    )
