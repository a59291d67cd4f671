"""The only mathematics of families: from T, A and b to everything else, in scalar coordinates.

Parameters are tuples of slots (`slots.py`). Notation:
q_λ(θ) = b(θ) exp(⟨λ, T(θ)⟩ − A(λ)), Khan & Rue (arXiv:2107.04562) with T(θ) = (θ, −½θθᵀ) for Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import sympy as sp

from . import stable
from .conditional import Conditional, conditional
from .domain import Condition, conditions
from .family import Family, FamilyError, ScalarForm
from .slots import Slots, entries, fresh, gradient, inner, substitute, weight
from .special import lgamma

FEW_SYMBOLS = 4  # more are simplified as a fraction


def simplified(expr: sp.Expr) -> sp.Expr:
    """SymPy's simplification; of exponentials as a fraction of them, which it would write as hyperbolic functions, and
    of polygammas and what has many symbols as one too, in a tenth of the time."""
    as_fraction = expr.has(sp.exp, sp.polygamma) or len(expr.free_symbols) > FEW_SYMBOLS
    return sp.factor(expr) if as_fraction else sp.simplify(expr)


@dataclass(frozen=True)
class ScalarRoot:
    """An inverse map without closed form, reduced to one equation in one unknown.

    `residual(unknown) = 0` fixes the first parameter; `others` gives the remaining ones from it.
    """

    unknown: sp.Symbol
    residual: sp.Expr
    others: dict[sp.Symbol, sp.Expr]


@dataclass(frozen=True)
class CoupledRoot:
    """An inverse map without closed form in several coupled unknowns, the standard parameters: μ = given, and its
    Jacobian in them."""

    unknowns: tuple[sp.Symbol, ...]
    mean: tuple[sp.Expr, ...]
    jacobian: sp.Matrix


@dataclass(frozen=True)
class Calculus:
    """Everything that follows from one `ScalarForm`; each property is derived on first use."""

    family: Family
    at: ScalarForm

    @cached_property
    def expectation_of_natural(self) -> Slots:
        """μ(λ) = ∇A(λ)."""
        return gradient(self.at.log_partition, self.at.natural)

    @cached_property
    def expectation_of_standard(self) -> Slots:
        """μ in the standard parameters: the form the kernels use, free of needless divisions."""
        composed = substitute(self.expectation_of_natural, self.at.natural, self.at.natural_of_standard)
        if self.at.dimension > 1:  # proofs at d > 1 evaluate it; only d = 1 and the matrix form are read by a person
            return composed
        return tuple(
            m.applyfunc(lambda e: simplified(e) if e.has(sp.exp) else sp.expand(simplified(e))) for m in composed
        )

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """The standard parameters whose signs no slot's domain says (factorising families)."""
        standard, natural = (
            [m[0, 0] for m in slots] for slots in (self.standard_of_natural, self.at.natural_of_standard)
        )
        return conditions(self.family, standard, natural)

    @cached_property
    def conditional(self) -> Conditional | None:
        """The first of two variables given the second, in the standard parameters."""
        return conditional(self.family, self.log_density_in_standard)

    @cached_property
    def fisher(self) -> sp.Matrix:
        """F(λ) = ∂μ/∂λ in independent entries; at an off-diagonal column the partial derivative, so that dμ = F dλ."""
        return self.jacobian(self.expectation_of_natural, self.at.natural)

    @staticmethod
    def jacobian(values: Slots, variables: Slots) -> sp.Matrix:
        """∂(independent entries of values) / ∂(independent entries of variables)."""
        rows = [values[k][i, j] for k, i, j in entries(values)]
        return sp.Matrix([[sp.diff(row, variables[k][i, j]) for k, i, j in entries(variables)] for row in rows])

    @cached_property
    def standard_of_natural(self) -> Slots:
        """The standard parameters from λ (matrix families: see matrix_calculus)."""
        flat = [self.at.standard[k][i, j] for k, i, j in entries(self.at.standard)]
        target = fresh(self.at.natural, "_")
        equations = [self.at.natural_of_standard[k][i, j] - target[k][i, j] for k, i, j in entries(target)]
        solution = self._one_solution(equations, flat, "standard_of_natural")
        return substitute(tuple(m.subs(solution) for m in self.at.standard), target, self.at.natural)

    def _one_solution(self, equations: list[sp.Expr], unknowns: list[sp.Symbol], name: str) -> dict[sp.Symbol, sp.Expr]:
        """The one solution that SymPy finds; FamilyError names the map and its equations where there is not one."""
        try:
            found = sp.solve(equations, unknowns, dict=True)
        except NotImplementedError:
            found = []
        if len(found) > 1:
            found = [one for one in found if self._is_inverse(one)]
        if len(found) != 1:
            raise FamilyError(
                f"{self.family.name}.{name}: expected one solution of {', '.join(map(str, equations))} = 0 for "
                f"{', '.join(map(str, unknowns))}, SymPy finds {len(found)}: add a rule to Calculus of "
                "derive/calculus/elementwise.py"
            )
        solution: dict[sp.Symbol, sp.Expr] = found[0]
        return solution

    def _is_inverse(self, solution: dict[sp.Symbol, sp.Expr]) -> bool:
        """Whether a solution for the standard parameters gives back those of a member, from its μ."""
        slots = self.family.standard + self.family.fixed
        signs = (-1 if s.domain == "negative" else 1 for s in slots)
        member = {
            s.symbol: sign * sp.Rational(k + 3, 2 * k + 1) for k, (s, sign) in enumerate(zip(slots, signs, strict=True))
        }
        given = {
            m[0, 0]: e[0, 0].xreplace(member)
            for m, e in zip(self.at.expectation, self.expectation_of_standard, strict=True)
        }
        gaps = (sp.N(e.xreplace(given).xreplace(member) - member[s]) for s, e in solution.items())
        return all(abs(gap) < 1e-9 for gap in gaps)

    @cached_property
    def natural_of_expectation(self) -> Slots | ScalarRoot | CoupledRoot:
        """λ(μ): closed form where SymPy finds one, otherwise the equation left after eliminating all unknowns but
        one, or the coupled equations where several are transcendental."""
        flat = [self.at.standard[k][i, j] for k, i, j in entries(self.at.standard)]
        given = self.at.expectation
        equations = [self.expectation_of_standard[k][i, j] - given[k][i, j] for k, i, j in entries(given)]
        transcendental = any(e.has(sp.polygamma, sp.log, sp.loggamma) for e in equations)
        if not transcendental:
            solution = self._one_solution(equations, flat, "natural_of_expectation")
            standard = tuple(m.subs(solution) for m in self.at.standard)
            return tuple(
                m.applyfunc(sp.factor) for m in substitute(self.at.natural_of_standard, self.at.standard, standard)
            )
        algebraic = [e for e in equations if not e.has(sp.polygamma, sp.log, sp.loggamma)]
        left, *coupled = [e for e in equations if e not in algebraic]
        if coupled:
            return self._coupled()
        of_special = [s for s in flat if any(f.has(s) for f in left.atoms(sp.polygamma))]
        unknown = (of_special or flat)[0]
        eliminated = [s for s in flat if s != unknown]
        others = self._one_solution(algebraic, eliminated, "natural_of_expectation")
        residual = left.subs(others)
        signs = {e: -sp.Symbol(f"minus_{e}", positive=True) for e in residual.free_symbols if e.is_negative}
        back = {-v: -k for k, v in signs.items()}
        return ScalarRoot(unknown, sp.expand_log(residual.xreplace(signs)).xreplace(back), others)

    def _coupled(self) -> CoupledRoot:
        """All equations at once; every standard parameter must be a half line, on which Newton's steps are bounded."""
        slots = self.family.standard
        if any(slot.domain != "positive" for slot in slots):
            named = ", ".join(f"{slot.name} ({slot.domain})" for slot in slots)
            raise FamilyError(
                f"{self.family.name}.natural_of_expectation: expected positive standard parameters where several "
                f"equations are coupled, got {named}: a bound on the step for other domains belongs in "
                "derive/lower/newton.py"
            )
        mean = tuple(m[0, 0] for m in self.expectation_of_standard)
        jacobian = self.jacobian(self.expectation_of_standard, self.at.standard)
        return CoupledRoot(tuple(slot.symbol for slot in slots), mean, jacobian)

    @cached_property
    def kl(self) -> tuple[Slots, Slots, sp.Expr]:
        """(λ_q, λ_p, KL(q‖p)) with KL = A(λ_p) − A(λ_q) − ⟨μ_q, λ_p − λ_q⟩."""
        q, p = fresh(self.at.natural, "_q"), fresh(self.at.natural, "_p")
        (a_q,) = substitute((sp.Matrix([[self.at.log_partition]]),), self.at.natural, q)
        (a_p,) = substitute((sp.Matrix([[self.at.log_partition]]),), self.at.natural, p)
        mu_q = substitute(self.expectation_of_natural, self.at.natural, q)
        return q, p, a_p[0, 0] - a_q[0, 0] - inner(mu_q, tuple(b - a for a, b in zip(q, p, strict=True)))

    @cached_property
    def log_partition_of_standard(self) -> sp.Expr:
        """A in the standard parameters."""
        return self.in_standard(self.at.log_partition)

    def in_standard(self, expr: sp.Expr) -> sp.Expr:
        """A function of λ in the standard parameters (factorising families)."""
        ((value,),) = substitute((sp.Matrix([[expr]]),), self.at.natural, self.at.natural_of_standard)
        return sp.expand_log(value.replace(sp.log, lambda x: sp.log(sp.factor(x))), force=True)

    @cached_property
    def kl_to_compute(self) -> tuple[Slots, Slots, sp.Expr]:
        """(q, p, KL(q‖p)) in the parameters that its kernel reads: λ, or the standard ones where the domain is
        coupled."""
        if not self.conditions:
            return self.kl
        q, p = fresh(self.at.standard, "_q"), fresh(self.at.standard, "_p")
        at_q, at_p = (
            substitute(
                (sp.Matrix([[self.log_partition_of_standard]]), *self.at.natural_of_standard), self.at.standard, member
            )
            for member in (q, p)
        )
        mu = substitute(self.expectation_of_standard, self.at.standard, q)
        change = tuple(b - a for a, b in zip(at_q[1:], at_p[1:], strict=True))
        return q, p, at_p[0][0, 0] - at_q[0][0, 0] - inner(mu, change)

    @cached_property
    def entropy_to_compute(self) -> sp.Expr | None:
        """The entropy in the parameters that its kernel reads."""
        return self.entropy if self.entropy is None or not self.conditions else self.in_standard(self.entropy)

    @cached_property
    def stable_kl(self) -> sp.Expr:
        """KL(q‖p) as the kernels compute it."""
        q, p, kl = self.kl_to_compute
        return stable.divergence(kl, {a[0, 0]: b[0, 0] for a, b in zip(q, p, strict=True)})

    @cached_property
    def stable_entropy(self) -> sp.Expr | None:
        """The entropy as the kernels compute it."""
        return None if self.entropy_to_compute is None else stable.entropy(self.entropy_to_compute)

    @cached_property
    def stable_gradient(self) -> list[sp.Expr]:
        """∇_μ L as the kernels compute it (factorising families)."""
        exprs = [m[0, 0] for m in self.natural_gradient]
        # s·s^−k and s^(1−k) are one to every version of SymPy
        return exprs if self.is_gaussian else [sp.powsimp(stable.natural_gradient(e), combine="exp") for e in exprs]

    @cached_property
    def stable_log_density(self) -> sp.Expr:
        """log q(θ) as the kernels compute it, in the standard parameters."""
        given = self.conditional
        if given is None:
            return stable.log_density(self.log_density_in_standard)
        spread = (sp.expand_log(sp.log(given.precision), force=True) - sp.log(2 * sp.pi)) / 2
        square = given.precision * (given.variable - given.mean) ** 2 / 2
        return sp.expand(given.log_marginal + spread) - square

    @cached_property
    def log_base_measure(self) -> sp.Expr:
        """log b(θ); factorials and binomial coefficients through ln Γ."""
        base = self.at.base_measure.rewrite(sp.gamma) if self.family.is_discrete else self.at.base_measure
        logs = sp.expand_log(sp.log(base), force=True)
        return logs.replace(lambda e: isinstance(e, sp.log) and isinstance(e.args[0], sp.gamma),
                            lambda e: lgamma(e.args[0].args[0]))  # fmt: skip

    @cached_property
    def entropy(self) -> sp.Expr | None:
        """H = A(λ) − ⟨λ, μ⟩ − E[log b(θ)], in λ; None where E[log b] is no combination of known expectations."""
        log_b = self.expected(self.log_base_measure)
        if set(self.at.theta) & log_b.free_symbols:
            return None
        return self.at.log_partition - inner(self.at.natural, self.expectation_of_natural) - log_b

    def expected(self, expr: sp.Expr) -> sp.Expr:
        """E_q of a function that is a combination of 1, T(θ), the stated moments and, where θ is a statistic of a
        whole line, θ²; what is none of these keeps its θ."""
        expr, remainder = sp.expand(expr), sp.S.Zero
        table = dict(self.family.moments)
        table |= {
            self.at.statistics[k][i, j]: self.expectation_of_natural[k][i, j] for k, i, j in entries(self.at.statistics)
        }
        for statistic, value in table.items():
            factor, function = statistic.as_coeff_Mul()
            coefficient = expr.coeff(function) / factor
            if coefficient != 0 and not coefficient.has(*self.at.theta):
                expr, remainder = sp.expand(expr - coefficient * statistic), remainder + coefficient * value
        left = set(self.at.theta) & expr.free_symbols
        if left and self.at.statistics[0] == self.at.theta and expr.is_polynomial(*self.at.theta):
            # Var[θ] = ∂²A/∂λ² for the slot whose statistic is θ itself gives the one moment that T may lack.
            (theta,) = self.at.theta
            xi = self.at.natural[0][0, 0]
            second = sp.diff(self.at.log_partition, xi, 2) + self.expectation_of_natural[0][0, 0] ** 2
            expr = sp.expand(expr).subs(theta**2, second)
        return expr + remainder

    @property
    def density(self) -> sp.Expr:
        """q(θ) in the standard parameters."""
        exponent = inner(self.at.natural_of_standard, self.at.statistics)
        (a,) = substitute((sp.Matrix([[self.at.log_partition]]),), self.at.natural, self.at.natural_of_standard)
        return self.at.base_measure * sp.exp(exponent - a[0, 0])

    @cached_property
    def log_density(self) -> sp.Expr:
        """log q(θ) = log b(θ) + ⟨λ, T(θ)⟩ − A(λ), in λ."""
        return self.log_base_measure + inner(self.at.natural, self.at.statistics) - self.at.log_partition

    @cached_property
    def log_density_in_standard(self) -> sp.Expr:
        """log q(θ) in the standard parameters."""
        ((value,),) = substitute((sp.Matrix([[self.log_density]]),), self.at.natural, self.at.natural_of_standard)
        return value

    @cached_property
    def fisher_factor(self) -> sp.Matrix:
        """Lower L with F = LLᵀ, in the standard parameters, each pivot in its stable form (factorising families)."""
        (fisher,) = substitute((self.fisher,), self.at.natural, self.at.natural_of_standard)
        size = fisher.rows
        factor = sp.zeros(size, size)
        for j in range(size):
            pivot = fisher[j, j] - sum((factor[j, k] ** 2 for k in range(j)), sp.S.Zero)
            factor[j, j] = sp.sqrt(stable.natural_gradient(simplified(pivot)))
            for i in range(j + 1, size):
                rest = fisher[i, j] - sum((factor[i, k] * factor[j, k] for k in range(j)), sp.S.Zero)
                factor[i, j] = simplified(rest / factor[j, j])
        return factor

    @property
    def change(self) -> list[sp.Symbol]:
        """dλ, a symbol per slot."""
        return [sp.Symbol(f"d_{m[0, 0]}", real=True) for m in self.at.natural]

    @cached_property
    def whitened(self) -> list[sp.Expr]:
        """Lᵀ dλ, F = LLᵀ, in λ and dλ."""
        (factor,) = substitute((self.fisher_factor,), self.at.standard, self.standard_of_natural)
        return list(factor.T * sp.Matrix(self.change))

    @cached_property
    def is_gaussian(self) -> bool:
        """Whether log q is quadratic in θ on the whole line: then Bonnet and Price apply."""
        log_q = sp.expand(sp.expand_log(sp.log(self.density), force=True))
        theta = tuple(self.at.theta)
        whole_line = self.at.support == ((-sp.oo, sp.oo),)
        return whole_line and log_q.is_polynomial(*theta) and sp.Poly(log_q, *theta).total_degree() == 2

    @cached_property
    def loss_derivatives(self) -> dict[str, sp.Matrix]:
        """What a client supplies: g = E[∇ℓ], H = E[∇²ℓ] for Gaussians; ∂L/∂standard for the others (one matrix a
        slot)."""
        if not self.is_gaussian:
            slots = self.family.standard
            return {f"gradient_{s.name}": sp.Matrix([[sp.Symbol(f"d_{s.symbol}", real=True)]]) for s in slots}
        d = self.at.theta.rows
        g = sp.Matrix(d, 1, lambda i, _: sp.Symbol("g" if d == 1 else f"g{i + 1}", real=True))
        h = sp.Matrix(d, d, lambda i, j: sp.Symbol("H" if d == 1 else f"H{min(i, j) + 1}{max(i, j) + 1}", real=True))
        return {"expected_gradient": g, "expected_hessian": h}

    @cached_property
    def gradient_in_standard(self) -> list[sp.Expr]:
        """∂L/∂(independent entries of the standard parameters), by Bonnet (∂/∂m = g) and Price (∂/∂Σ = ½H, Σ = S⁻¹)."""
        given = list(self.loss_derivatives.values())
        if not self.is_gaussian:
            return [m[0, 0] for m in given]
        g, h = given
        out = list(g)
        for k, i, j in entries(self.at.standard):
            if k == 0:
                continue
            covariance = self.at.standard[k].inv()
            slope = (h * sp.diff(covariance, self.at.standard[k][i, j])).trace() / 2
            out.append(sp.simplify(slope) if self.at.dimension == 1 else slope)
        return out

    @cached_property
    def natural_gradient(self) -> Slots:
        """∇_μ L in the standard parameters, from ∂L/∂standard = (∂μ/∂standard)ᵀ ∇_μ L. No Fisher matrix is inverted
        by a kernel."""
        mu = self.expectation_of_standard
        transport = self.jacobian(mu, self.at.standard).T * sp.diag(*[weight(mu, e) for e in entries(mu)])
        solution = transport.LUsolve(sp.Matrix(self.gradient_in_standard)).applyfunc(simplified)
        out = [sp.zeros(m.rows, m.cols) for m in mu]
        for value, (k, i, j) in zip(solution, entries(mu), strict=True):
            out[k][i, j] = value
            if mu[k].cols > 1:
                out[k][j, i] = value
        return tuple(out)


@cache
def calculus(family: Family, dimension: int = 1) -> Calculus:
    """The calculus of a family at one dimension (1 for families that factorise)."""
    return Calculus(family, family.coordinates(dimension))
