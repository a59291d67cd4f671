"""Scalar IR → C, and the pieces that functions of every kind of kernel are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...ir import nodes as ir
from ...ir.names import kind
from . import interface as ci

WIDTH = 118
NO_BREAK = "\u00a0"  # a space at which no line is broken
TYPE = {"f32": "float", "f64": "double", "int": "int", "word": "unsigned long long", "size": "size_t", "": "void"}
BITS = {"f32": "unsigned int", "f64": "unsigned long long"}  # as wide as a real
SIGNED = {"f32": "int", "f64": "long long"}
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "ge": ">="}
INFIX |= {"iadd": "+", "isub": "-", "imul": "*", "iand": "&", "ixor": "^", "ishl": "<<", "ishr": ">>"}
MATH = {n: n for n in ("fma", "sqrt", "exp", "expm1", "log", "log1p", "erf", "erfc")} | {
    "abs": "fabs"
}  # + "f" in float
LARGEST = {"f32": "3.4028234663852886e38f", "f64": "1.7976931348623157e308"}


class Printer:
    """Prints scalar IR in one precision; `names` are variables that are called otherwise in C, `kinds` the kinds of
    those that are no reals (statements add to it)."""

    def __init__(
        self, precision: str, names: Mapping[str, str] | None = None, kinds: Mapping[str, ir.Kind] | None = None
    ) -> None:
        self.precision = precision
        self.names = dict(names or {})
        self.kinds: dict[str, ir.Kind] = dict(kinds or {})

    def expr(self, e: ir.Expr, parent: str = "") -> str:
        """The C expression; parenthesised where another operation encloses it, so that no order is left open."""
        if isinstance(e, ir.Var):
            return self.names.get(e.name, e.name)
        if isinstance(e, ir.Lit):
            return self.literal(e.text)
        if isinstance(e, ir.Int):
            digits = str(e.value) if e.value < 64 else f"0x{e.value:X}"
            return digits + ("u" if self.type(e.kind) == "unsigned int" else "ull")
        if e.op in INFIX:
            left, right = (self.expr(a, e.op) for a in e.args)
            inner = f"{left} {INFIX[e.op]} {right}"
            return f"({inner})" if parent else inner
        if e.op == "neg":
            inner = self.expr(e.args[0], "neg")
            return f"-({inner})" if inner.startswith("-") else f"-{inner}"
        if e.op == "select":
            truth, a, b = (self.expr(x, "select") for x in e.args)
            return f"({truth} ? {a} : {b})"
        if e.op == "low":
            return cast(self.type("bits"), self.expr(e.args[0]))
        if e.op == "real":
            return cast(self.type("real"), cast(SIGNED[self.precision], self.expr(e.args[0])))
        return f"{self.function(e)}({', '.join(self.expr(a) for a in e.args)})"

    def literal(self, text: str) -> str:
        """A number of the printer's precision, rounded once."""
        return f"{np.float32(float(text))!s}f" if self.precision == "f32" else text

    def type(self, kind: ir.Kind) -> str:
        """The C type of a kind of values."""
        return {"real": TYPE[self.precision], "truth": "int", "word": TYPE["word"], "bits": BITS[self.precision]}[kind]

    def function(self, e: ir.Op) -> str:
        """The C name of an operation that is written as a call."""
        if e.op == "call":
            return f"badmm_{e.target}"
        if e.op in ("bits", "from_bits"):
            return f"badmm_{e.op}_{self.precision}"
        return MATH[e.op] + ("f" if self.precision == "f32" else "")

    def statements(self, body: Sequence[ir.Stmt], indent: str, declared: set[str], assigned: list[str]) -> list[str]:
        """Lines of straight-line code, branches and bounded loops; a name assigned once is constant."""
        lines: list[str] = []
        declared = set(declared)
        for s in body:
            if isinstance(s, ir.Let):
                head = ""
                self.kinds[s.name] = kind(s.value, self.kinds)
                if s.name not in declared:
                    head = f"{'const ' if assigned.count(s.name) == 1 else ''}{self.type(self.kinds[s.name])} "
                    declared.add(s.name)
                lines.append(f"{indent}{head}{self.names.get(s.name, s.name)} = {self.expr(s.value)};")
            elif isinstance(s, ir.Return):
                lines.append(f"{indent}return {self.expr(s.values[0])};")
            elif isinstance(s, ir.If):
                lines += self.block(f"if ({self.expr(s.condition)})", s.body, indent, declared, assigned)
                if s.orelse:
                    lines[-1] += " else {"
                    lines += self.block("", s.orelse, indent, declared, assigned)[1:]
            else:
                leave = f"{indent}    if ({self.expr(s.until)}) break;"
                loop = self.block(f"for (int pass = 0; pass < {s.count}; ++pass)", s.body, indent, declared, assigned)
                lines += [loop[0], leave, *loop[1:]]
        return lines

    def block(
        self, head: str, body: Sequence[ir.Stmt], indent: str, declared: set[str], assigned: list[str]
    ) -> list[str]:
        """head { body }."""
        return [f"{indent}{head} {{", *self.statements(body, indent + "    ", declared, assigned), f"{indent}}}"]


def assigned_names(body: Iterable[ir.Stmt]) -> list[str]:
    """Every name a body assigns, once for each assignment; what a loop assigns counts twice."""
    found: list[str] = []
    for s in body:
        if isinstance(s, ir.Let):
            found.append(s.name)
        elif isinstance(s, ir.If):
            found += assigned_names((*s.body, *s.orelse))
        elif isinstance(s, ir.Loop):
            found += assigned_names(s.body)
    return found


def comment(lines: Sequence[str], indent: str = "") -> str:
    """A block comment."""
    wrapped: list[str] = []
    for line in lines:
        depth = " " * (len(line) - len(line.lstrip()) + 4)
        wrapped += textwrap.wrap(line, WIDTH - 4, subsequent_indent=depth) or [""]
    return "\n".join([f"{indent}/* {wrapped[0]}", *(f"{indent} * {line}".rstrip() for line in wrapped[1:])]) + " */"


def declared(p: ci.Parameter) -> str:
    """A parameter's declaration."""
    constant = "const " if p.is_array and not p.is_result else ""
    return f"{constant}{TYPE[p.precision]} {'*' if p.is_array or p.is_result else ''}{p.name}"


def cast(kind: str, value: str) -> str:
    """A conversion, as C and as C++ write it."""
    return f"BADMM_CAST({kind}, {value})"


def head(signature: ci.Signature) -> str:
    """BADMM_INLINE type name(parameters), on one line if it fits."""
    parameters = [declared(p) for p in signature.parameters]
    start = f"BADMM_INLINE {TYPE[signature.result]} {signature.name}("
    flat = f"{start}{', '.join(parameters)})"
    if len(flat) <= WIDTH:
        return flat
    unbroken = ", ".join(p.replace(" ", NO_BREAK) for p in parameters)
    rest = textwrap.fill(unbroken, WIDTH - 1, initial_indent="    ", subsequent_indent="    ")
    return f"{start}\n{rest.replace(NO_BREAK, ' ')})"


def define(signature: ci.Signature, lines: Sequence[str]) -> str:
    """A function's definition."""
    code = [part for line in lines for part in broken(line)]
    return "\n".join([head(signature), "{", *code, "}"])


def broken(line: str) -> list[str]:
    """A line of code over as many lines as it needs."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def function(f: ir.Function) -> str:
    """A shared scalar function, double to double."""
    lines = Printer("f64").statements(f.body, "    ", set(f.params), assigned_names(f.body))
    return f"{comment([ci.ascii_text(f.doc)])}\n{define(ci.function_signature(f), lines)}"


def outside(precision: str) -> str:
    """The domain test; NaN is outside."""
    signature = ci.outside_signature(precision)
    return define(signature, [f"    return !(bound < value && value <= {LARGEST[precision]});"])
