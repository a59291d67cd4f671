"""Functions of one matrix-family member → C over the routines of badmm/matrix.h, with work space from the caller."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ...ir import nodes as ir
from . import interface as ci
from .printer import INFIX, cast, comment, define

Param = ci.Parameter
Shape = Literal["number", "vector", "matrix"]
SIZE: dict[Shape, str] = {"number": "1", "vector": "d", "matrix": "d * d"}
RESULT: dict[str, Shape] = {
    "cholesky": "matrix", "inverse": "matrix", "outer": "matrix", "matvec": "vector", "solve": "vector",
    "solve_lower": "vector", "mean_gap": "vector", "whitened_eigenvalues": "vector", "dot": "number",
    "log_det": "number", "ratio_divergence": "number", "size": "number",
}  # fmt: skip
DIMENSION, WORK = Param("d", "size"), Param("work", "f64", True, True)
SCRATCH = {"whitened_eigenvalues": "d * d + 3 * d"}  # work space that an operation needs beside its result


@dataclass(frozen=True)
class Value:
    """An expression's shape, and its element at an index; `name` where it is an array in memory."""

    shape: Shape
    element: Callable[[str], str]
    name: str = ""


def signatures(kernel: ir.MatrixMap, module: ir.Module) -> Iterator[ci.Signature]:
    """One function of a member, in double: dimension, arrays, results, work space."""
    inputs = [Param(ci.parameter_name(o), "f64", is_array=True) for o in kernel.operands]
    if kernel.reduction:
        outputs = [Param("out", "f64", True)]
    else:
        assert isinstance(module, ir.FamilyModule)
        kind = kernel.name.split("_from_")[0] if "_from_" in kernel.name else "natural"
        outputs = [Param(f"out_{n}", "f64", True, True) for n in module.slots[kind]]
    yield ci.Signature(f"badmm_{module.prefix}_{kernel.name}", (DIMENSION, *inputs, *outputs, WORK), "int")
    yield ci.Signature(f"badmm_{module.prefix}_{kernel.name}_work", (DIMENSION,), "size")


class Body:
    """The statements of one function, and the work space that they take."""

    def __init__(self, kernel: ir.MatrixMap, signature: ci.Signature) -> None:
        self.places = {p.name: k for k, p in enumerate(signature.parameters, start=1)}
        self.arguments = {o.argument: ci.parameter_name(o) for o in kernel.operands}
        self.lines: list[str] = []
        self.offsets: list[str] = []
        self.values = {o.variable: self._array(_shape(o), ci.parameter_name(o)) for o in kernel.operands}

    @staticmethod
    def _array(shape: Shape, name: str) -> Value:
        return Value(shape, (lambda _: name) if shape == "number" else (lambda i: f"{name}[{i}]"), name)

    def space(self, name: str, size: str) -> None:
        """Declare work space."""
        at = " + ".join(self.offsets) or "0"
        self.lines.append(f"    double *const {name} = work + {at};")
        self.offsets.append(size)

    def stored(self, value: Value, name: str) -> Value:
        """The value in memory under a name of its own."""
        if value.shape == "number":
            self.lines.append(f"    const double {name} = {value.element('')};")
        else:
            self.space(name, SIZE[value.shape])
            self.assign(value, name)
        return self._array(value.shape, name)

    def assign(self, value: Value, name: str) -> None:
        """Store every element in an array."""
        self.lines.append(f"    for (size_t i = 0; i < {SIZE[value.shape]}; ++i) {name}[i] = {value.element('i')};")

    def value(self, e: ir.Expr, name: str = "") -> Value:
        """An expression; what is computed by a routine is stored, under `name` where one is given."""
        if isinstance(e, ir.Var):
            return self.values[e.name]
        if isinstance(e, ir.Lit):
            text = e.text
            return Value("number", lambda _: text)
        assert isinstance(e, ir.Op)
        if e.op == "wide":
            return self.value(e.args[0])
        if e.op == "neg":
            (inner,) = (self.value(a) for a in e.args)
            return Value(inner.shape, lambda i: f"(-{inner.element(i)})")
        if e.op in INFIX:
            left, right = (self.value(a) for a in e.args)
            shape = right.shape if left.shape == "number" else left.shape
            return Value(shape, lambda i: f"({left.element(i)} {INFIX[e.op]} {right.element(i)})")
        return self._routine(e, name or f"t{len(self.lines)}")

    def _routine(self, e: ir.Op, name: str) -> Value:
        arrays = [self._in_memory(self.value(a)) for a in e.args]
        shape = RESULT[e.op]
        if e.op == "size":
            return Value("number", lambda _: cast("double", "d"))
        if shape != "number":
            self.space(name, SIZE[shape])
        given = ["d", *arrays]
        if e.op in SCRATCH:
            self.space(f"{name}_scratch", SCRATCH[e.op])
            given.append(f"{name}_scratch")
        if e.op == "ratio_divergence":
            given.insert(1, f"badmm_{e.target}")
        if shape == "number":
            self.lines.append(f"    const double {name} = badmm_matrix_{e.op}({', '.join(given)});")
        elif e.op == "cholesky":
            place = self.places[self.arguments[e.target.partition(":")[0]]]
            self.lines.append(f"    if (badmm_matrix_{e.op}({', '.join([*given, name])})) return {place};")
        else:
            self.lines.append(f"    badmm_matrix_{e.op}({', '.join([*given, name])});")
        return self._array(shape, name)

    def _in_memory(self, value: Value) -> str:
        return value.name or self.stored(value, f"t{len(self.lines)}").name


def _shape(operand: ir.Operand) -> Shape:
    return "matrix" if operand.domain in ("spd", "symmetric") else "vector"


def function(kernel: ir.MatrixMap, module: ir.Module) -> str:
    """A member's function, and how many doubles of work space it takes."""
    signature, sized = signatures(kernel, module)
    body = Body(kernel, signature)
    for let in kernel.body:
        assert isinstance(let, ir.Let)
        found = body.value(let.value, let.name)
        body.values[let.name] = found if found.name else body.stored(found, let.name)
    outs = [p for p in signature.parameters if p.is_result and p.name != "work"]
    results = [body.value(e) for e in kernel.results]
    # an output may be an input's memory: what is computed from inputs as it is stored waits in the work space
    apart = [r if r.name or r.shape == "number" else body.stored(r, f"result_{k}") for k, r in enumerate(results)]
    for out, result in zip(outs, apart, strict=True):
        if result.shape == "number":
            body.lines.append(f"    *{out.name} = {result.element('')};")
        else:
            body.assign(result, out.name)
    words = set(re.findall(r"\w+", " ".join(body.lines)))
    ignored = [f"    {cast('void', p.name)};" for p in signature.parameters if p.name not in words]
    total = " + ".join(body.offsets) or "1"
    note = [ci.ascii_text(kernel.formula), f"Source: {ci.ascii_text(kernel.source)}."]
    size_body = [*([] if body.offsets else [f"    {cast('void', 'd')};"]), f"    return {total};"]
    work = f"{comment(['Doubles of work space that the function below takes.'])}\n{define(sized, size_body)}"
    whole = f"{comment(note)}\n{define(signature, [*ignored, *body.lines, '    return 0;'])}"
    return f"{work}\n\n{whole}"
