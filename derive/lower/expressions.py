"""From SymPy to the IR: explicit fma, accurate differences of products, common subexpressions, typed literals.

Rules, applied to every sum: terms with two factors become fused multiply-adds onto the rest; in reductions a lone
difference of two products a·b − c·d is Kahan's (error below 1.5 ulp however much cancels). Order comes from SymPy's
sort keys, never from hashing.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from ..calculus import special
from ..ir.nodes import Expr, Let, Lit, Op, Var, reads

Quotients = dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]
_UNARY = {sp.log: "log", sp.exp: "exp", special.log1p: "log1p", sp.Abs: "abs", sp.erf: "erf", sp.erfc: "erfc"}


class within(sp.Function):
    """inside where magnitude ≤ bound, else outside: a selection that common subexpressions may be taken from."""

    nargs = 4


def selections(expr: sp.Expr) -> sp.Expr:
    """An expression with its piecewise terms as selections."""

    def chosen(*cases: tuple[sp.Expr, Any]) -> sp.Expr:
        *first, (value, _) = cases
        for inside, condition in reversed(first):
            if not isinstance(condition, sp.LessThan | sp.GreaterThan):
                raise LoweringError(f"no lowering for the condition {condition}: add it to derive/lower/expressions.py")
            sides = (condition.lts, condition.gts)
            value = within(*sides, inside, value)
        return value

    return expr.replace(sp.Piecewise, chosen)


class LoweringError(NotImplementedError):
    """An expression that no rule lowers; the message names the expression and where the rule belongs."""


def literal(value: sp.Expr | float) -> Lit:
    """The float64 nearest to a number, as its shortest exact decimal."""
    return Lit(repr(float(sp.N(value, 40))))


def _is_power_of_two(value: sp.Expr) -> bool:
    """Whether multiplying by the number is exact, so that nothing is gained by fusing it."""
    return bool(value.is_Rational and abs(value.p) & (abs(value.p) - 1) == 0 and value.q & (value.q - 1) == 0)


class Lowering:
    """Turns SymPy expressions into IR; collects the statements that Kahan's difference needs."""

    def __init__(
        self, prefix: str = "t", fuse: bool = True, accurate: bool = False, quotients: Quotients | None = None
    ) -> None:
        self.statements: list[Let] = []
        self._prefix = prefix
        self._fuse = fuse
        self._accurate = accurate
        self._quotients = quotients or {}
        self._reciprocals: dict[sp.Expr, Var] = {}
        self._products: dict[sp.Expr, tuple[sp.Expr, sp.Expr]] = {}

    def let(self, value: Expr, name: str = "") -> Var:
        """Name a value."""
        name = name or f"{self._prefix}{len(self.statements)}"
        self.statements.append(Let(name, value))
        return Var(name)

    def share(self, symbol: sp.Symbol, value: sp.Expr) -> None:
        """Name a common subexpression; a sum takes in its factors where it is a product."""
        self.let(self.expr(value), str(symbol))
        pair = None if isinstance(value, sp.Symbol) else self._product(value)
        if pair is not None and not isinstance(value, sp.Add):
            self._products[symbol] = pair

    def expr(self, e: sp.Expr) -> Expr:
        """The IR of one expression."""
        if e.is_Number or isinstance(e, sp.NumberSymbol):
            return literal(e)
        if e.is_Symbol:
            return Var(str(e))
        if not e.free_symbols:
            return literal(e)
        if isinstance(e, sp.Add):
            return self._add(e)
        if isinstance(e, sp.Mul):
            return self._mul(e)
        if isinstance(e, sp.Pow):
            return self._pow(e)
        if e.func in _UNARY:
            return Op(_UNARY[e.func], (self.expr(e.args[0]),))
        if e.func is sp.polygamma:
            return Op("call", (self.expr(e.args[1]),), ("digamma", "trigamma")[int(e.args[0])])
        if e.func in special.FUNCTION_NAMES:
            return Op("call", tuple(self.expr(a) for a in e.args), special.FUNCTION_NAMES[e.func])
        if issubclass(e.func, special.Named):
            return Op("call", tuple(self.expr(a) for a in e.args), e.func.__name__)
        if e.func is within:
            magnitude, bound, inside, outside = (self.expr(part) for part in e.args)
            return Op("select", (Op("le", (magnitude, bound)), inside, outside))
        if e.func is sp.sign:
            return Op("select", (Op("lt", (self.expr(e.args[0]), Lit("0.0"))), Lit("-1.0"), Lit("1.0")))
        raise LoweringError(
            f"no lowering for the function {e.func.__name__} in {e}: add its operation to derive/lower/expressions.py"
        )

    def _pow(self, e: sp.Pow) -> Expr:
        base, power = e.as_base_exp()
        if power.is_Integer and power > 0:
            factor = self.expr(base)
            if not isinstance(factor, (Var, Lit)):
                factor = self.let(factor)
            out: Expr = factor
            for _ in range(int(power) - 1):
                out = Op("mul", (out, factor))
            return out
        if power.is_Rational and power > 0 and power.q == 2:
            root: Expr = Op("sqrt", (self.expr(base),))
            whole = power - sp.S.Half
            return root if whole == 0 else Op("mul", (self.expr(base**whole), root))
        if power.is_Number and power.is_negative:
            return Op("div", (Lit("1.0"), self.expr(base ** (-power))))
        if base.is_positive and power.is_real:
            return Op("exp", (self.expr(power * sp.log(base)),))
        raise LoweringError(f"no lowering for the power {e}: add its exponent to Lowering._pow")

    def _mul(self, e: sp.Mul) -> Expr:
        squared = self._squared_quotient(e)
        if squared is not None:
            return squared
        numerator, denominator = e.as_numer_denom()
        if denominator != 1 and not denominator.is_Number:
            coefficient, numerator = numerator.as_coeff_Mul() if not numerator.is_Number else (numerator, sp.S.One)
            scale, denominator = denominator.as_coeff_Mul()
            top = self.expr(numerator * coefficient / scale)
            if denominator in self._reciprocals and _is_power_of_two(numerator * coefficient / scale):
                return Op("mul", (top, self._reciprocals[denominator]))
            return Op("div", (top, self.expr(denominator)))
        coefficient, rest = e.as_coeff_Mul()
        factors = list(rest.as_ordered_factors())
        out = self.expr(factors[0])
        for factor in factors[1:]:
            out = Op("mul", (out, self.expr(factor)))
        if coefficient == 1:
            return out
        if coefficient == -1:
            return Op("neg", (out,))
        return Op("mul", (literal(coefficient), out))

    def _squared_quotient(self, e: sp.Mul) -> Expr | None:
        """(n/d)²·rest for n²/d²·rest: squaring the quotient overflows later than either square."""
        squares = {f: f.exp for f in e.args if f.is_Pow and abs(f.exp) == 2}
        if set(squares.values()) != {2, -2}:
            return None
        quotient = sp.Mul(*[f.base ** (f.exp / 2) for f in squares])
        root = self.let(self.expr(quotient))
        return self.expr(sp.Mul(sp.Symbol(root.name, real=True) ** 2, *[f for f in e.args if f not in squares]))

    def _product(self, term: sp.Expr) -> tuple[sp.Expr, sp.Expr] | None:
        """(a, b) if the term is worth a fused multiply-add, number and sign folded into a."""
        if not term.free_symbols or not self._fuse:
            return None
        number, name = term.as_coeff_Mul()
        if name in self._products:
            a, b = self._products[name]
            return number * a, b
        if isinstance(term, sp.Pow) and term.exp == 2:
            return term.base, term.base
        coefficient, rest = term.as_coeff_Mul()
        if isinstance(rest, sp.Pow) and rest.exp == 2:
            return coefficient * rest.base, rest.base
        factors = rest.as_ordered_factors() if isinstance(rest, sp.Mul) else [rest]
        if any(f.is_Pow and f.exp.is_negative for f in factors):
            return None
        if len(factors) >= 2:
            return coefficient * sp.Mul(*factors[:-1], evaluate=False), factors[-1]
        return None if _is_power_of_two(coefficient) else (coefficient, rest)

    def _expm1(self, e: sp.Add) -> Expr | None:
        """eˣ − 1 or its negative."""
        for sign in (1, -1):
            grown = sp.expand(sign * e + 1)
            if isinstance(grown, sp.exp):
                value = Op("expm1", (self.expr(grown.args[0]),))
                return value if sign == 1 else Op("neg", (value,))
        return None

    def _add(self, e: sp.Add) -> Expr:
        if e.has(sp.exp) and (found := self._expm1(e)) is not None:
            return found
        constant = sp.Add(*[t for t in e.args if not t.free_symbols])
        terms = sorted((t for t in e.args if t.free_symbols), key=sp.default_sort_key)
        if constant != 0 and not constant.is_Rational:
            constant = sp.Float(sp.N(constant, 40), 40)
        terms += [constant] if constant != 0 else []
        products = [(t, self._product(t)) for t in terms]
        if self._accurate and len(terms) == 2 and all(p for _, p in products):
            signs = [t.could_extract_minus_sign() for t in terms]
            if signs[0] != signs[1]:
                pairs = [p for _, p in products if p is not None]
                (a, b), (c, d) = pairs[signs.index(False)], pairs[signs.index(True)]
                return self._difference_of_products(a, b, -c, d)
        if all(p for _, p in products):  # the innermost addend is a product in any case: one that has a name already
            named = [t for t, _ in products if t.as_coeff_Mul()[1] in self._products]
            products = [(t, None if t in named[:1] else p) for t, p in products]
        plain = [t for t, p in products if p is None]
        fused = [p for _, p in products if p is not None]
        residuals = [r for a, b in fused if (r := self._residual(a, b)) is not None]
        if not plain:
            a, b = fused.pop(0)
            total: Expr = Op("mul", (self.expr(a), self.expr(b)))
        else:
            plain.sort(key=lambda t: t.could_extract_minus_sign())
            total = self.expr(plain[0])
            for t in plain[1:]:
                total = (
                    Op("sub", (total, self.expr(-t)))
                    if t.could_extract_minus_sign()
                    else Op("add", (total, self.expr(t)))
                )
        for scaled_residual, reciprocal in residuals:
            total = Op("fma", (scaled_residual, reciprocal, total))
        for a, b in fused:
            total = Op("fma", (self.expr(a), self.expr(b), total))
        return total

    def _residual(self, a: sp.Expr, b: sp.Expr) -> tuple[Expr, Var] | None:
        """For c·v² with v = fl(n/d): (2cv·r, 1/d), r = n − vd exactly, so that c·v² + 2cv·r/d carries no error of v."""
        ratio = a / b if b in self._quotients else None
        if ratio is None or not ratio.is_Number:
            return None
        numerator, denominator = self._quotients[b]
        residual = self.let(Op("fma", (Op("neg", (self.expr(b),)), self.expr(denominator), self.expr(numerator))))
        if denominator not in self._reciprocals:
            self._reciprocals[denominator] = self.let(Op("div", (Lit("1.0"), self.expr(denominator))))
        return Op("mul", (self.expr(2 * ratio * b), residual)), self._reciprocals[denominator]

    def _difference_of_products(self, a: sp.Expr, b: sp.Expr, c: sp.Expr, d: sp.Expr) -> Expr:
        """Kahan: w = cd; (ab − w) + (w − cd), both by fma (Jeannerod, Louvet & Muller, Math. Comp. 2013)."""
        va, vb, vc, vd = (self.expr(x) for x in (a, b, c, d))
        w = self.let(Op("mul", (vc, vd)))
        error = self.let(Op("fma", (Op("neg", (vc,)), vd, w)))
        difference = self.let(Op("fma", (va, vb, Op("neg", (w,)))))
        return Op("add", (difference, error))


def lower(
    exprs: list[sp.Expr],
    prefix: str = "t",
    share: bool = True,
    accurate: bool = False,
    quotients: Quotients | None = None,
) -> tuple[list[Let], list[Expr]]:
    """(statements, results) of several expressions; `share` names common subexpressions once, `accurate` compensates
    lone differences of products, `quotients` are earlier values v = n/d whose squares are corrected by their
    residual."""
    lowering = Lowering(prefix, accurate=accurate, quotients=quotients)
    exprs = [selections(e) for e in exprs]
    if share:
        names = (sp.Symbol(f"{prefix}_{i}", real=True) for i in range(1000))
        replacements, exprs = sp.cse(exprs, symbols=names, order="canonical")
        for symbol, value in replacements:
            lowering.share(symbol, value)
    results = [lowering.expr(e) for e in exprs]
    return _read(lowering.statements, results), results


def _read(statements: list[Let], results: list[Expr]) -> list[Let]:
    """The statements that results depend on."""
    wanted, kept = {name for r in results for name in reads(r)}, []
    for statement in reversed(statements):
        if statement.name in wanted:
            kept.append(statement)
            wanted |= set(reads(statement))
    return kept[::-1]


def hoist(
    expr: sp.Expr, scalars: set[sp.Symbol], known: dict[sp.Symbol, sp.Expr] | None = None
) -> tuple[sp.Expr, dict[sp.Symbol, sp.Expr]]:
    """(expr with every factor that depends on scalars alone replaced by a symbol, the replacements).

    `known` are replacements of earlier expressions of the same kernel: they are reused, and new ones get other names.
    """
    found: dict[sp.Expr, sp.Symbol] = {value: symbol for symbol, value in (known or {}).items()}

    def uniform(value: sp.Expr) -> sp.Symbol:
        return found.setdefault(value, sp.Symbol(f"u{len(found)}", real=True))

    def walk(e: sp.Expr) -> sp.Expr:
        if e.free_symbols and e.free_symbols <= scalars:
            return uniform(e)
        if isinstance(e, sp.Mul):
            inside = [f for f in e.args if f.free_symbols and f.free_symbols <= scalars]
            rest = [walk(f) for f in e.args if f not in inside]
            return sp.Mul(uniform(sp.Mul(*inside)), *rest) if inside else sp.Mul(*rest)
        return e.func(*[walk(a) for a in e.args]) if e.args else e

    result = walk(expr)
    return result, {symbol: value for value, symbol in found.items()}


def uniform_ir(uniforms: dict[sp.Symbol, sp.Expr]) -> tuple[tuple[str, Expr], ...]:
    """The IR of what `hoist` replaced."""
    return tuple((str(symbol), Lowering(fuse=False).expr(value)) for symbol, value in uniforms.items())
