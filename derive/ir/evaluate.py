"""Runs the IR in mpmath: what the kernels would compute with exact arithmetic, literals and algorithms as lowered."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp

from .nodes import (
    Draw,
    Expr,
    Function,
    If,
    Int,
    Kernel,
    Let,
    Lit,
    Loop,
    MatrixMap,
    Op,
    Result,
    Return,
    Stmt,
    Sweep,
    Var,
)

Environment = dict[str, Any]
FLOATS = {32: "<f", 64: "<d"}
INTEGERS: dict[str, Callable[[int, int], int]] = {
    "iadd": operator.add,
    "isub": operator.sub,
    "imul": operator.mul,
    "iand": operator.and_,
    "ixor": operator.xor,
    "ishl": operator.lshift,
    "ishr": operator.rshift,
}


@dataclass(frozen=True)
class Word:
    """An unsigned integer of 32 or 64 bits; arithmetic wraps around."""

    value: int
    width: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value % 2**self.width)

    @property
    def signed(self) -> int:
        """The integer in two's complement."""
        return self.value - 2**self.width if self.value >> (self.width - 1) else self.value

    @property
    def real(self) -> mp.mpf:
        """The floating-point number with these bits."""
        return mp.mpf(struct.unpack(FLOATS[self.width], self.value.to_bytes(self.width // 8, "little"))[0])

    @classmethod
    def of_real(cls, x: mp.mpf, width: int) -> Word:
        """The bits of the floating-point number nearest to x."""
        return cls(int.from_bytes(struct.pack(FLOATS[width], float(x)), "little"), width)

    def apply(self, op: str, other: Word) -> Word:
        """One of `ir.INTEGER_OPS`."""
        assert self.width == other.width, f"{op}: expected integers of one width"
        return Word(INTEGERS[op](self.value, other.value), self.width)


class Evaluator:
    """Evaluates expressions and statements over named mpmath values; `functions` are those that may be called.

    Integers are Python's, reduced to 64 bits, or to `width` where they are as wide as a real; reals made from them, and
    those whose bits are taken, are rounded to that width.
    """

    def __init__(self, functions: tuple[Function, ...], width: int = 64) -> None:
        self.functions = {f.name: f for f in functions}
        self.width = width

    def expr(self, e: Expr, env: Environment) -> Any:
        """The value of an expression."""
        if isinstance(e, Var):
            return env[e.name]
        if isinstance(e, Lit):
            return mp.mpf(e.text)
        if isinstance(e, Int):
            return Word(e.value, 64 if e.kind == "word" else self.width)
        args = [self.expr(a, env) for a in e.args]
        return self._apply(e, args)

    def _apply(self, e: Op, args: list[Any]) -> Any:
        if e.op == "call":
            return self.call(e.target, args)
        table: dict[str, Any] = {
            "add": lambda a, b: a + b,
            "sub": lambda a, b: a - b,
            "mul": lambda a, b: a * b,
            "div": lambda a, b: a / b,
            "neg": lambda a: -a,
            "fma": lambda a, b, c: a * b + c,
            "sqrt": mp.sqrt,
            "exp": mp.exp,
            "log": mp.log,
            "log1p": mp.log1p,
            "expm1": mp.expm1,
            "erf": mp.erf,
            "erfc": mp.erfc,
            "abs": abs,
            "lt": lambda a, b: a < b,
            "le": lambda a, b: a <= b,
            "ge": lambda a, b: a >= b,
            "select": lambda truth, a, b: a if truth else b,
            "low": lambda a: Word(a.value, self.width),
            "real": lambda a: Word.of_real(mp.mpf(a.signed), self.width).real,
            "bits": lambda a: Word.of_real(a, self.width),
            "from_bits": lambda a: a.real,
        }
        if e.op in INTEGERS:
            return args[0].apply(e.op, args[1])
        return (table | self._matrix_table(e))[e.op](*args)

    def _matrix_table(self, e: Op) -> dict[str, Any]:
        """The operations of matrix code; vectors are n×1 matrices."""
        return {
            "wide": lambda a: a,
            "size": lambda a: mp.mpf(a.rows),
            "cholesky": mp.cholesky,
            "solve": lambda factor, v: mp.lu_solve(factor * factor.T, v),
            "solve_lower": mp.lu_solve,
            "inverse": lambda factor: (factor * factor.T) ** -1,
            "log_det": lambda factor: 2 * sum(mp.log(factor[i, i]) for i in range(factor.rows)),
            "matvec": lambda a, v: a * v,
            "outer": lambda v: v * v.T,
            "dot": lambda a, b: (a.T * b)[0],
            "whitened_eigenvalues": lambda f, a: list(mp.eigsy(f**-1 * a * (f**-1).T, eigvals_only=True)),
            "mean_gap": lambda _e, _xi_q, xi_p, _d, s_p, m_q: s_p * m_q - xi_p,
            "ratio_divergence": lambda eig, _q, _p: sum(self.call(e.target, [x]) for x in eig),
        }

    def call(self, name: str, args: list[Any]) -> Any:
        """The value of a scalar function."""
        function = self.functions[name]
        env = dict(zip(function.params, args, strict=True))
        result = self.run(function.body, env)
        assert result is not None, f"{name} does not return"
        return result

    def run(self, body: tuple[Stmt, ...], env: Environment) -> Any | None:
        """Execute statements; the returned value, or None if none returned."""
        for s in body:
            if isinstance(s, Let):
                env[s.name] = self.expr(s.value, env)
            elif isinstance(s, Return):
                return self.expr(s.values[0], env)
            elif isinstance(s, If):
                result = self.run(s.body if self.expr(s.condition, env) else s.orelse, env)
                if result is not None:
                    return result
            elif isinstance(s, Loop):
                for _ in range(s.count):
                    if self.expr(s.until, env):
                        break
                    self.run(s.body, env)
        return None

    def kernel(self, kernel: Kernel | Sweep, env: Environment) -> list[Any]:
        """Results of one coordinate of a kernel."""
        env = dict(env)
        for name, value in () if isinstance(kernel, MatrixMap) else kernel.uniforms:
            env[name] = self.expr(value, env)
        self.run(kernel.body, env)
        return [self.expr(r.value if isinstance(r, Result) else r, env) for r in kernel.results]

    def draw(self, draw: Draw, params: tuple[str, ...], values: tuple[int, ...]) -> list[Any]:
        """One block's normals from the generator's three words."""
        env: Environment = {n: Word(v, 64) for n, v in zip(params, values, strict=True)}
        self.run(draw.body, env)
        return [self.expr(r, env) for r in draw.results]
