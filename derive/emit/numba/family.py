"""IR → Numba source: one self-contained module per family (Numba's disk cache does not notice a changed callee
elsewhere)."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping

from ...ir import nodes as ir
from ...ir.names import kind
from ...paths import KERNELS
from ..python.family import constants, exported, public_function, record, wrapped

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "ge": ">="}
INTEGER = {"iadd": "+", "isub": "-", "imul": "*", "iand": "&", "ixor": "^", "ishl": "<<", "ishr": ">>"}
MATH = (
    "sqrt",
    "exp",
    "expm1",
    "log",
    "log1p",
    "erf",
    "erfc",
)  # of the library; the others are intrinsics or Python's own
TOGETHER = 5  # clients a pass over the tile of accumulators
UNSCOPED = 9  # badmm_kernels.cpu.intrinsics.UNSCOPED: the tile of accumulators is read back
INTRINSICS = KERNELS / "cpu" / "intrinsics.py"
JIT = '@njit(nogil=True, cache=True, error_model="numpy")'


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


def emit(module: ir.Module) -> str:
    """The whole module of one family."""
    parts = [_function(f) for f in module.functions]
    for kernel in module.kernels:
        if isinstance(kernel, ir.MatrixMap):
            parts.append(_matrix(kernel, module))
            continue
        for single in (True, False):
            if isinstance(kernel, ir.Map):
                parts.append(_scalar_function(kernel, single))
            parts.append(_loop(kernel, single))
        parts.append(_public(kernel, module))
    body = "\n\n\n".join(p.rstrip() for p in parts) + "\n"
    return _header(module, body) + "\n\n\n" + body


def _header(module: ir.Module, body: str) -> str:
    matrix = any(isinstance(k, ir.MatrixMap) for k in module.kernels)
    runtime = ["ClientSumKernel", "MapKernel"] + (["MatrixKernel"] if matrix else ["ReductionKernel"])
    names = [k.name for k in module.kernels] + [f.name for f in module.functions]
    math_import = "import math\n" if "math." in body else ""
    used = [
        n
        for n in ("add", "f32", "f64", "fma", "i32", "i64", "load", "nonfinite", "nonpositive", "store")
        if f"{n}(" in body
    ]
    linalg = "from badmm_kernels.cpu import linalg\n" if matrix else ""
    # Numba's cache does not notice a changed callee in another file: a new digest here makes it compile anew.
    intrinsics = hashlib.sha256(INTRINSICS.read_bytes()).hexdigest()[:16]
    return f'''"""Numba kernels of the family: {module.title}.

GENERATED by `python -m derive` from {module.origin}.
{textwrap.fill(f"Do not edit. Source of the family: {module.citation}.", 110)}
Compiled against intrinsics.py (sha256 {intrinsics}).
Functions ending in _f32 and _f64 are scalar device functions for use inside your own @njit code.
"""

from __future__ import annotations

{math_import}from collections.abc import Sequence
from typing import Any

from numba import njit

{linalg}from badmm_kernels.cpu.intrinsics import {", ".join(used)}
from badmm_kernels.cpu.runtime import {", ".join(sorted(runtime))}
from badmm_kernels.face.calls import slots

{constants(module)}

{exported(names)}'''


def _function(function: ir.Function) -> str:
    body = "\n".join(Printer().statements(function.body, "    "))
    head = wrapped(f"def {function.name}", list(function.params), ":")
    doc = textwrap.indent(textwrap.fill(f'"""{function.doc}"""', 110), "    ")
    return f"{JIT}\n{head}\n{doc}\n{body}"


def _suffix(single: bool) -> str:
    return "f32" if single else "f64"


def _scalar_function(kernel: ir.Map, single: bool) -> str:
    """The device function a user's own kernel calls: public scalars in, uniforms formed in float64."""
    name = f"{kernel.name}_{_suffix(single)}"
    params = [o.variable for o in kernel.operands] + [s.variable for s in kernel.scalars]
    double, inner = Printer(), Printer(single and not kernel.promote)
    cast = _suffix(single and not kernel.promote)
    lines = [f"    {u} = {cast}({double.expr(e)})" for u, e in kernel.uniforms]
    if kernel.promote and single:
        lines += [f"    {o.variable} = f64({o.variable})" for o in kernel.operands]
    lines += inner.statements(kernel.body, "    ")
    results = [inner.expr(r) for r in kernel.results]
    if kernel.promote and single:
        results = [f"f32({r})" for r in results]
    return "\n".join(
        [
            JIT,
            wrapped(f"def {name}", params, ":"),
            f'    """A coordinate of `{kernel.name}`, {_suffix(single)}."""',
            *lines,
        ]
        + [f"    return {', '.join(results)}"]
    )


def test(variable: str, domain: str) -> str:
    """Keep in `outside` whether the variable is outside its domain."""
    positive = {"positive": variable, "negative": f"-{variable}"}.get(domain)
    return f"outside = nonpositive({positive}, outside)" if positive else f"outside = nonfinite({variable}, outside)"


def outside(single: bool) -> str:
    """The first statement of a loop: the flag, as wide as the numbers computed."""
    return f"    outside = {'i32' if single else 'i64'}(0)"


def _loop(kernel: ir.Map | ir.Reduction | ir.ClientSum, single: bool) -> str:
    """The compiled loop over rows [row_lo, row_hi) and columns [lo, hi) of flattened arrays; returns 0 if all was in
    the domain."""
    if isinstance(kernel, ir.ClientSum):
        return _client_sum_loop(kernel, single)
    reduction = isinstance(kernel, ir.Reduction)
    promote = reduction or (isinstance(kernel, ir.Map) and kernel.promote)
    inner = Printer(single and not promote)
    arrays = [f"{o.variable}_in" for o in kernel.operands]
    params = ["row_lo", "row_hi", "lo", "hi", "width"]
    params += [p for a in arrays for p in (a, f"{a}_step")] + [u for u, _ in kernel.uniforms]
    results = kernel.results
    read = {name for node in (*kernel.body, *results) for name in ir.reads(node)}
    outs = ["partial"] if reduction else [f"out_{k}" for k in range(len(results))]
    lines = [JIT, wrapped(f"def _{kernel.name}_{_suffix(single)}", params + outs, ":")]
    lines += [outside(single and not promote), "    for row in range(row_lo, row_hi):"]
    used = [
        a for o, a in zip(kernel.operands, arrays, strict=True) if reduction or o.variable in read or o.domain != "real"
    ]
    lines += [f"        {a}_at = row * {a}_step" for a in used]
    lines += ["        total = 0.0"] if reduction else ["        out_at = row * width"]
    lines += ["        for i in range(lo, hi):"]
    tab = " " * 12
    for o, a in zip(kernel.operands, arrays, strict=True):
        if a not in used:
            continue
        value = f"load({a}, {a}_at + i)"
        lines.append(f"{tab}{o.variable} = {f'f64({value})' if promote and single else value}")
    tested = kernel.tested if isinstance(kernel, ir.Map) else kernel.operands
    checks = [test(o.variable, o.domain) for o in tested]
    lines += inner.statements(kernel.body, tab)
    if isinstance(kernel, ir.Reduction):
        lines += [f"{tab}term = {inner.expr(kernel.term)}", f"{tab}total = add(total, term)"]
        lines += [f"{tab}{c}" for c in checks]
        lines += ["        partial[row] = total"]
    else:
        for k, r in enumerate(kernel.results):
            lines.append(f"{tab}result_{k} = {f'f32({inner.expr(r)})' if promote and single else inner.expr(r)}")
        result_checks = [
            test(f"result_{k}", kernel.result_domains[k] if kernel.result_domains else "real")
            for k in range(len(kernel.results))
        ]
        lines += [f"{tab}{c}" for c in checks + result_checks]
        lines += [f"{tab}store(out_{k}, out_at + i, result_{k}, {k})" for k in range(len(kernel.results))]
    return "\n".join([*lines, "    return outside"])


def _client_sum_loop(kernel: ir.ClientSum, single: bool) -> str:
    """Σ over clients for columns [lo, hi): the tile of float64 accumulators stays in the first-level cache."""
    inner = Printer()
    arrays = [f"{o.variable}_in" for o in kernel.operands]
    params = ["clients", "lo", "hi", "width", *arrays, *[u for u, _ in kernel.uniforms], "tile", "out_0"]
    lines = [JIT, wrapped(f"def _{kernel.name}_{_suffix(single)}", params, ":"), outside(single)]
    lines += ["    for start in range(lo, hi, tile.size):", "        stop = min(hi, start + tile.size)"]
    lines += ["        for i in range(stop - start):", f"            store(tile, i, 0.0, {UNSCOPED})"]
    lines += [f"        together = clients // {TOGETHER} * {TOGETHER}"]
    for head, count in ((f"range(0, together, {TOGETHER})", TOGETHER), ("range(together, clients)", 1)):
        lines += [f"        for client in {head}:"]
        lines += [f"            at_{k} = (client + {k}) * width + start" for k in range(count)]
        lines += ["            for i in range(stop - start):", "                total = load(tile, i)"]
        for k in range(count):
            for o, a in zip(kernel.operands, arrays, strict=True):
                value = f"load({a}, at_{k} + i)"
                lines.append(f"                {o.variable} = {f'f64({value})' if single else value}")
            lines += inner.statements(kernel.body, " " * 16)
            lines.append(f"                total = total + ({inner.expr(kernel.term)})")
        lines.append(f"                store(tile, i, total, {UNSCOPED})")
    lines += ["        for i in range(stop - start):"]
    lines += [
        f"            result_0 = {'f32(load(tile, i))' if single else 'load(tile, i)'}",
        f"            {test('result_0', 'real')}",
    ]
    lines += ["            store(out_0, start + i, result_0, 0)"]
    return "\n".join([*lines, "    return outside"])


def uniforms(kernel: ir.Map | ir.Reduction | ir.ClientSum) -> list[str]:
    """The functions of scalars alone, in Python."""
    return [Printer().expr(e) for _, e in kernel.uniforms]


def _public(kernel: ir.Map | ir.Reduction | ir.ClientSum, module: ir.Module) -> str:
    """The kernel record that runtime.py drives, and the function a person calls."""
    fields = [f"single=_{kernel.name}_f32", f"double=_{kernel.name}_f64"]
    return f"{record(kernel, uniforms(kernel), fields)}\n\n\n{public_function(kernel, module)}"


def _matrix(kernel: ir.MatrixMap, module: ir.Module) -> str:
    """A function of one matrix-family member in LAPACK calls, looped over the client axis by runtime.py."""
    fields = [f"one=_{kernel.name}_one", f"reduction={kernel.reduction}"]
    parts = [matrix_function(kernel), record(kernel, (), fields), public_function(kernel, module)]
    return "\n\n\n".join(parts)


def matrix_function(kernel: ir.MatrixMap) -> str:
    """_<kernel>_one: a matrix function in calls of `linalg`."""
    params = [o.variable for o in kernel.operands]
    read = {name for node in (*kernel.body, *kernel.results) for name in ir.reads(node)}
    body = [f"    {f'{s.name} = ' if s.name in read else ''}{_matrix_expr(s.value)}" for s in kernel.body]
    results = ", ".join(_matrix_expr(r) for r in kernel.results)
    trailing = "," if len(kernel.results) == 1 and not kernel.reduction else ""
    return "\n".join([f"def _{kernel.name}_one({', '.join(params)}):", *body, f"    return {results}{trailing}"])


def _matrix_expr(e: ir.Expr) -> str:
    if isinstance(e, ir.Op) and e.op not in INFIX and e.op != "neg":
        args = [_matrix_expr(a) for a in e.args]
        if e.target:
            if e.op == "ratio_divergence":
                args.insert(0, e.target)
            else:
                name, _, expected = e.target.partition(": ")
                args = [f'"{name}"', *args, *([f'"{expected}"'] if expected else [])]
        return f"linalg.{e.op}({', '.join(args)})"
    if isinstance(e, ir.Op):
        parts = [f"({_matrix_expr(a)})" if isinstance(a, ir.Op) and a.op in INFIX else _matrix_expr(a) for a in e.args]
        return f"-{parts[0]}" if e.op == "neg" else f"{parts[0]} {INFIX[e.op]} {parts[1]}"
    return Printer().expr(e)
