"""Scalar IR → Numba source, and the pieces that loops of every kind of kernel are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from ...ir import nodes as ir
from ...ir.names import kind
from ...paths import KERNELS
from ..python.kernels import wrapped

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "ge": ">="}
INTEGER = {"iadd": "+", "isub": "-", "imul": "*", "iand": "&", "ixor": "^", "ishl": "<<", "ishr": ">>"}
MATH = ("sqrt", "exp", "expm1", "log", "log1p", "erf", "erfc")  # of the library; the others are intrinsics or Python's
UNSCOPED = 9  # badmm_kernels.cpu.intrinsics.UNSCOPED: scratch is read back
INTRINSICS = KERNELS / "cpu" / "intrinsics.py"
JIT = '@njit(nogil=True, cache=True, error_model="numpy")'
INLINED = f"{JIT[:-1]}, forceinline=True)"


class Printer:
    """Prints scalar IR in one precision; `double` leaves literals untouched, `single` types each of them.

    `library` has the elementary functions: `math` for numbers, `np` for arrays of them. `kinds` are those of
    the variables that are no reals; statements add to it.
    """

    def __init__(self, single: bool = False, kinds: Mapping[str, ir.Kind] | None = None, library: str = "math") -> None:
        self.single, self.library = single, library
        self.kinds: dict[str, ir.Kind] = dict(kinds or {})

    def expr(self, e: ir.Expr, parent: str = "") -> str:
        """The Python expression; parenthesised where another infix operation encloses it, so that no order is left
        open."""
        if isinstance(e, ir.Var):
            return e.name
        if isinstance(e, ir.Lit):
            return f"f32({e.text})" if self.single else e.text
        if isinstance(e, ir.Int):
            return f"{self._unsigned(e.kind)}({e.value if e.value < 64 else f'0x{e.value:X}'})"
        if e.op in INTEGER or e.op in ("low", "real"):
            return self._integer(e, parent)
        if e.op in INFIX:
            left, right = (self.expr(a, e.op) for a in e.args)
            inner = f"{left} {INFIX[e.op]} {right}"
            return f"({inner})" if parent else inner
        if e.op == "neg":
            return f"-{self.expr(e.args[0], 'neg')}"
        name = e.target or (f"{self.library}.{e.op}" if e.op in MATH else e.op)
        return f"{name}({', '.join(self.expr(a) for a in e.args)})"

    def _unsigned(self, kind: ir.Kind) -> str:
        return "u32" if self.single and kind == "bits" else "u64"

    def _integer(self, e: ir.Op, parent: str) -> str:
        """Integers narrower than a word are cast after each operation, as Numba widens them."""
        if e.op in ("low", "real"):
            inner = self.expr(e.args[0])
            if e.op == "low":
                return f"u32({inner})" if self.single else inner
            return f"f32(i32({inner}))" if self.single else f"f64(i64({inner}))"
        own = self._unsigned(kind(e, self.kinds))
        narrow = own == "u32"
        left, right = (self.expr(a, "" if narrow and isinstance(a, ir.Var) else e.op) for a in e.args)
        inner = f"{left} {INTEGER[e.op]} {right}"
        return f"u32({inner})" if narrow else f"({inner})" if parent else inner

    def statements(self, body: tuple[ir.Stmt, ...], indent: str) -> list[str]:
        """Lines of straight-line code, branches and bounded loops."""
        lines: list[str] = []
        for s in body:
            if isinstance(s, ir.Let):
                self.kinds[s.name] = kind(s.value, self.kinds)
                lines.append(f"{indent}{s.name} = {self.expr(s.value)}")
            elif isinstance(s, ir.Return):
                lines.append(f"{indent}return {', '.join(self.expr(v) for v in s.values)}")
            elif isinstance(s, ir.If):
                lines += [f"{indent}if {self.expr(s.condition)}:", *self.statements(s.body, indent + "    ")]
                if s.orelse:
                    lines += [f"{indent}else:", *self.statements(s.orelse, indent + "    ")]
            else:
                lines += [
                    f"{indent}for _ in range({s.count}):",
                    f"{indent}    if {self.expr(s.until)}:",
                    f"{indent}        break",
                    *self.statements(s.body, indent + "    "),
                ]
        return lines


def function(f: ir.Function) -> str:
    """A shared scalar function, in float64; straight-line code is inlined, so that a loop over it vectorises."""
    straight = all(isinstance(s, ir.Let | ir.Return) for s in f.body)
    body = "\n".join(Printer().statements(f.body, "    "))
    head = wrapped(f"def {f.name}", list(f.params), ":")
    doc = textwrap.indent(textwrap.fill(f'"""{f.doc}"""', 110), "    ")
    return f"{INLINED if straight else JIT}\n{head}\n{doc}\n{body}"


def suffix(single: bool) -> str:
    """The type in a name."""
    return "f32" if single else "f64"


def test(variable: str, domain: str) -> str:
    """Keep in `outside` whether the variable is outside its domain."""
    positive = {"positive": variable, "negative": f"-{variable}"}.get(domain)
    return f"outside = nonpositive({positive}, outside)" if positive else f"outside = nonfinite({variable}, outside)"


def outside(single: bool) -> str:
    """The first statement of a loop: the flag, as wide as the numbers computed."""
    return f"    outside = {'i32' if single else 'i64'}(0)"


def uniforms(kernel: ir.Elementwise, library: str = "math") -> list[str]:
    """The functions of scalars alone, in Python: of numbers, or with `np` of arrays of one per row."""
    return [Printer(library=library).expr(e) for _, e in kernel.uniforms]


def joint(kernel: ir.Elementwise) -> list[str]:
    """The field of a record with what must be positive of operands together, as functions of all of them."""
    if not kernel.joint:
        return []
    lines = ["joint=("]
    for condition in kernel.joint:
        read = set(ir.reads(condition.value))
        given = ", ".join(o.variable if o.variable in read else f"_{o.variable}" for o in kernel.operands)
        value = Printer(library="np").expr(condition.value)
        lines += ["        (", f'            "{condition.argument}",', f'            "{condition.formula}",']
        lines += [f"            lambda {given}: {value},", "        ),"]
    return ["\n".join([*lines, "    )"])]
