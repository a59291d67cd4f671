"""IR → C: one header per family, one for the functions they share, an umbrella; C99, C11, C++17 and CUDA read them.

Every function is inline. A map comes in float and double, a reduction or client sum as one term in double. No sum has
an inexact product among its addends (tests/derive/emit/test_contraction.py): contraction changes nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ...ir import nodes as ir
from ...ir.likelihoods import LossModule
from ...ir.names import kind
from . import interface as ci

WIDTH = 118
NO_BREAK = "\u00a0"  # a space at which no line is broken
TYPE = {"f32": "float", "f64": "double", "int": "int", "word": "unsigned long long", "": "void"}
BITS = {"f32": "unsigned int", "f64": "unsigned long long"}  # as wide as a real
SIGNED = {"f32": "int", "f64": "long long"}
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "ge": ">="}
INFIX |= {"iadd": "+", "isub": "-", "imul": "*", "iand": "&", "ixor": "^", "ishl": "<<", "ishr": ">>"}
MATH = {n: n for n in ("fma", "sqrt", "exp", "expm1", "log", "log1p", "erf", "erfc")} | {
    "abs": "fabs"
}  # + "f" in float
LARGEST = {"f32": "3.4028234663852886e38f", "f64": "1.7976931348623157e308"}
Scalarwise = ir.Map | ir.Reduction | ir.ClientSum | ir.Sweep
INLINE = """\
#if defined(BADMM_EXTERNAL) /* badmm_kernels.c: functions that other languages can link against */
#define BADMM_INLINE
#elif defined(__CUDACC__)
#define BADMM_INLINE static __host__ __device__ __forceinline__
#else
#define BADMM_INLINE static inline
#endif"""


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
            return f"({self.type('bits')}){self.expr(e.args[0], 'low')}"
        if e.op == "real":
            return f"({self.type('real')})({SIGNED[self.precision]}){self.expr(e.args[0], 'real')}"
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
        wrapped += textwrap.wrap(line, WIDTH - 3, subsequent_indent=depth) or [""]
    return "\n".join([f"{indent}/* {wrapped[0]}", *(f"{indent} * {line}".rstrip() for line in wrapped[1:])]) + " */"


def head(signature: ci.Signature) -> str:
    """BADMM_INLINE type name(parameters), on one line if it fits."""
    parameters = [f"{TYPE[p.precision]} {'*' if p.is_result else ''}{p.name}" for p in signature.parameters]
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


def unused(kernel: Scalarwise, results: Sequence[ir.Expr], names: Mapping[str, str]) -> str:
    """A line that says which parameters are deliberately not read."""
    nodes: list[ir.Expr | ir.Stmt] = [*kernel.body, *results]
    read = {name for node in nodes for name in ir.reads(node)}
    idle = [names[o.variable] for o in kernel.operands if o.variable not in read]
    return "".join(f"    (void){name};\n" for name in idle)


def renamed(kernel: Scalarwise) -> dict[str, str]:
    """IR variables → parameter names; a local value that is named as a parameter is gets a name of its own."""
    names = {o.variable: ci.parameter_name(o) for o in kernel.operands}
    names |= {n.variable: n.argument for n in (kernel.normals if isinstance(kernel, ir.Sweep) else ())}
    names |= {s.variable: s.argument for s in kernel.scalars}
    local = {*assigned_names(kernel.body), *(u for u, _ in kernel.uniforms)}
    if local & {*names}:
        raise ValueError(f"{kernel.name}: an input is assigned: {sorted(local & {*names})}")
    return names | {name: f"new_{name}" for name in sorted(local & {*names.values()})}


def body(kernel: Scalarwise, results: Sequence[ir.Expr], precision: str) -> tuple[list[str], list[str]]:
    """(lines, result expressions); uniforms are formed in double and rounded once."""
    names = renamed(kernel)
    double, own = Printer("f64", names), Printer(precision, names)
    lines = unused(kernel, results, names).splitlines()
    for name, value in kernel.uniforms:
        text = double.expr(value)
        if precision == "f32":
            text = f"(float){text}" if isinstance(value, ir.Var) else f"(float)({text})"
        lines.append(f"    const {TYPE[precision]} {names.get(name, name)} = {text};")
    lines += own.statements(kernel.body, "    ", set(), assigned_names(kernel.body))
    return lines, [own.expr(r) for r in results]


def map_function(kernel: ir.Map, signature: ci.Signature, precision: str, double: ci.Signature) -> str:
    """A map in one precision; one that is computed in double calls its double form."""
    if kernel.promote and precision == "f32":
        return promoted(kernel, signature, double)
    lines, results = body(kernel, kernel.results, precision)
    return returning(signature, lines, results)


def returning(signature: ci.Signature, lines: Sequence[str], results: Sequence[str]) -> str:
    """A function that returns its one result, or stores its several ones."""
    outs = [p.name for p in signature.parameters if p.is_result]
    if not outs:
        return define(signature, [*lines, f"    return {results[0]};"])
    return define(signature, [*lines, *(f"    *{o} = {r};" for o, r in zip(outs, results, strict=True))])


def promoted(kernel: ir.Map, signature: ci.Signature, double: ci.Signature) -> str:
    """The float form of a map that computes in double: widen, call, round."""
    inputs = [p.name for p in signature.parameters if not p.is_result]
    outs = [p.name for p in signature.parameters if p.is_result]
    if not outs:
        return define(signature, [f"    return (float){double.name}({', '.join(inputs)});"])
    wide = [f"result_{k}" for k in range(len(outs))]
    call = f"    {double.name}({', '.join([*inputs, *(f'&{w}' for w in wide)])});"
    stores = [f"    *{o} = (float){w};" for o, w in zip(outs, wide, strict=True)]
    return define(signature, [f"    double {', '.join(wide)};", call, *stores])


def kernel_text(kernel: ir.Map | ir.Reduction | ir.ClientSum, signatures: Sequence[ci.Signature]) -> str:
    """Comment and functions of one kernel."""
    parts = [comment(ci.comment_lines(kernel))]
    if isinstance(kernel, ir.Map):
        pairs = zip(signatures, ci.PRECISIONS, strict=True)
        parts.append("\n\n".join(map_function(kernel, s, p, signatures[0]) for s, p in pairs))
    else:
        lines, (term,) = body(kernel, (kernel.term,), "f64")
        parts.append(define(signatures[0], [*lines, f"    return {term};"]))
    return "\n".join(parts)


def file(name: str, title: str, source: str, notes: Sequence[str], parts: Iterable[str], include: str) -> str:
    """A header: opening comment, guard, includes, functions; no macro but the guard outlives it."""
    guard = f"BADMM_{name.removeprefix('badmm/').replace('/', '_').replace('.', '_').upper()}"
    opening = comment([f"{name}: {title}", "", f"GENERATED by `python -m derive` from {source}. Do not edit.", *notes])
    functions = "\n\n".join(parts)
    return (
        f"{opening}\n#ifndef {guard}\n#define {guard}\n\n{include}\n\n{INLINE}\n\n{functions}\n\n"
        f"#undef BADMM_INLINE\n\n#endif /* {guard} */\n"
    )


def emit(module: ir.Module) -> str:
    """kernels/badmm_kernels/include/badmm/<family>.h."""
    notes = [
        f"Source of the family: {ci.ascii_text(module.citation)}.",
        "Functions ending in _f32 and _f64 compute one coordinate; those ending in _term give one term of a sum.",
        "Nothing is checked: badmm_outside_f32 and badmm_outside_f64 (badmm/special.h) test a value's domain.",
    ]
    if any(isinstance(k, ir.MatrixMap) for k in module.kernels):
        notes.append(
            "The lines of a round act entry by entry; functions of whole matrices are LAPACK's, not this file's."
        )
    return file(
        f"badmm/{module.family}.h",
        f"{ci.ascii_text(module.title)}: scalar functions of Bayesian ADMM for C99, C11, C++17 and CUDA.",
        module.origin,
        notes,
        (kernel_text(kernel, signatures) for kernel, signatures in ci.kernel_signatures(module)),
        '#include "badmm/special.h"',
    )


def emit_loss(module: LossModule) -> str:
    """kernels/badmm_kernels/include/badmm/likelihoods/<likelihood>.h."""
    notes = [
        f"Source of the likelihood: {ci.ascii_text(module.citation)}.",
        "Functions ending in _f32 and _f64 compute one row; supports are not tested, and a loss that overflows is",
        "infinite. expected_loss is exact, or a trapezoidal rule with a relative error below 1e-13.",
    ]
    return file(
        f"badmm/{module.header}.h",
        f"{ci.ascii_text(module.title)}: the loss of a row and its expectations, for C99, C11, C++17 and CUDA.",
        module.origin,
        notes,
        (kernel_text(kernel, signatures) for kernel, signatures in ci.kernel_signatures(module)),
        '#include "badmm/special.h"',
    )


def special(modules: Mapping[str, ir.Module | LossModule], _optimizers: Mapping[str, ir.Optimizer]) -> str:
    """kernels/badmm_kernels/include/badmm/special.h: the domain tests and the functions that families call."""
    test = comment(["The domain test: 1 unless bound < value < infinity (NaN is outside). Bounds: 0 for a positive",
                    "argument or minus a negative one, minus infinity for a real one."])  # fmt: skip
    tests = [f"{test}\n{outside('f64')}", outside("f32")]
    return file(
        "badmm/special.h",
        "domain tests and special functions of Bayesian ADMM for C99, C11, C++17 and CUDA.",
        "calculus/special.py",
        ["Double precision, arguments in the stated domain; relative errors are near 1e-15 (python -m validation)."],
        [*tests, *(function(f) for f in ci.functions_of(modules))],
        "#if !defined(__CUDACC_RTC__) /* NVRTC knows the functions without a header */\n#include <math.h>\n#endif",
    )


def generated(*lines: str) -> str:
    """The opening comment of a file that speaks of all families."""
    return comment([*lines, "", "GENERATED by `python -m derive`. Do not edit."])


def umbrella(modules: Mapping[str, ir.Module | LossModule], optimizers: Mapping[str, ir.Optimizer]) -> str:
    """kernels/badmm_kernels/include/badmm_kernels.h."""
    opening = generated("badmm_kernels.h: the scalar functions of Bayesian ADMM, all of the headers in badmm/.")
    includes = "\n".join(f'#include "badmm/{name}.h"' for name in (*(m.header for m in modules.values()), *optimizers))
    guard = "BADMM_KERNELS_H"
    return f"{opening}\n#ifndef {guard}\n#define {guard}\n\n{includes}\n\n#endif /* {guard} */\n"


def instances(*_everything: object) -> str:
    """kernels/badmm_kernels/include/badmm_kernels.c: every function once, with external linkage."""
    opening = generated(
        "badmm_kernels.c: the functions of badmm_kernels.h with external linkage, under the same names, for languages",
        "that cannot include a C header (Fortran: badmm_kernels.f90). Compile it without -ffast-math.",
    )
    return f'{opening}\n#define BADMM_EXTERNAL\n#include "badmm_kernels.h"\n'


SHARED: dict[str, Callable[[Mapping[str, ir.Module | LossModule], Mapping[str, ir.Optimizer]], str]] = {
    "kernels/badmm_kernels/include/badmm/special.h": special,
    "kernels/badmm_kernels/include/badmm_kernels.h": umbrella,
    "kernels/badmm_kernels/include/badmm_kernels.c": instances,
}
