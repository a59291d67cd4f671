"""Planted errors: one change in the text of a generated module, run as Python under the validation's own checks.

    NUMBA_DISABLE_JIT=1 python tests/kernels/mutants.py FAMILY ...

A mutant is the syntax tree of badmm_kernels/cpu/FAMILY.py, or of the lines of a round that it offers
(badmm_kernels/cpu/round.py), with one node changed, executed as a module of its own with Numba switched off (the
generated code is plain Python then, and the intrinsics have Python forms), so that nothing is compiled, cached or
written. Checks run until the first miss. No file's digest is looked at.
Prints one JSON object:
{family: {"baseline": [misses of the unchanged module], "mutants": {name: {"change": ..., "caught_by": ...}}}}.
"""

from __future__ import annotations

import ast
import ctypes
import ctypes.util
import json
import math
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SKIPPED_CALLS = {
    "load",
    "store",
    "nonfinite",
    "nonpositive",
    "range",
}  # index arithmetic and domain tests are not formulas


@dataclass(frozen=True)
class Mutant:
    """A planted error: in which definition of which family, what kind, and at which of that kind's places.

    Places count from 0 in source order, or from the end as -1, -2, ...
    """

    name: str
    family: str
    where: str
    kind: str
    place: int = 0
    old: str = ""
    new: str = ""

    @property
    def file(self) -> str:
        """The generated file that has the definition: the family's, or that of a round's lines."""
        return LINES if self.where in defined(LINES) else self.family


def called(node: ast.AST) -> str:
    """The name of the function that a call calls, or nothing."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def formula_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a definition's formulas in source order, without index arithmetic and domain tests."""
    for child in ast.iter_child_nodes(node):
        if called(child) in SKIPPED_CALLS:
            if called(child) == "store":
                yield from formula_nodes(child.args[2]) if isinstance(child, ast.Call) else ()
            continue
        if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]).rstrip(")").endswith(("at", "stop")):
            continue
        yield child
        yield from formula_nodes(child)


def is_sum(node: ast.AST) -> bool:
    """Whether the node adds or subtracts."""
    return isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub))


def is_ordered(node: ast.AST) -> bool:
    """Whether the node's operands cannot be exchanged."""
    return isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div))


def flip_sum(node: Any) -> ast.AST:
    """a + b becomes a - b, and the other way round."""
    return ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)


def negate_addend(node: Any) -> ast.AST:
    """fma(a, b, c) becomes fma(a, b, -c)."""
    return ast.Call(node.func, [*node.args[:2], ast.UnaryOp(ast.USub(), node.args[2])], [])


KINDS: dict[str, tuple[Callable[[ast.AST], bool], Callable[[Any], ast.AST]]] = {
    "sign": (is_sum, flip_sum),
    "unsign": (lambda n: isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.USub), lambda n: n.operand),
    "addend sign": (lambda n: called(n) == "fma", negate_addend),
    "factor": (
        lambda n: isinstance(n, ast.Constant) and isinstance(n.value, float) and n.value != 0.0,
        lambda n: ast.Constant(2.0 * n.value),
    ),
    "swap": (is_ordered, lambda n: ast.BinOp(n.right, n.op, n.left)),
    "swap addend": (lambda n: called(n) == "fma", lambda n: ast.Call(n.func, [n.args[0], n.args[2], n.args[1]], [])),
    "drop": (is_sum, lambda n: n.left),
    "drop addend": (lambda n: called(n) == "fma", lambda n: ast.BinOp(n.args[0], ast.Mult(), n.args[1])),
    "drop product": (lambda n: called(n) == "fma", lambda n: n.args[2]),
    "swap results": (
        lambda n: isinstance(n, ast.Return) and isinstance(n.value, ast.Tuple),
        lambda n: ast.Return(ast.Tuple(n.value.elts[::-1], ast.Load())),
    ),
}


def first_coordinate(call: ast.Call) -> ast.AST:
    """load(x, at + i) becomes load(x, at + lo): every coordinate reads the first one."""
    index = call.args[1]
    assert isinstance(index, ast.BinOp)
    return ast.Call(call.func, [call.args[0], ast.BinOp(index.left, index.op, ast.Name("lo", ast.Load()))], [])


def places(definition: ast.AST, mutant: Mutant) -> list[tuple[ast.AST, Callable[[Any], ast.AST]]]:
    """The nodes that a kind of error can be planted in, in source order, each with its change."""
    if mutant.kind == "index":
        loads = [n for n in ast.walk(definition) if called(n) == "load" and "+ i" in ast.unparse(n)]
        return [(node, first_coordinate) for node in loads]
    if mutant.kind == "use":
        names = [n for n in formula_nodes(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        return [(n, lambda _n: ast.Name(mutant.new, ast.Load())) for n in names if n.id == mutant.old]
    chosen, change = KINDS[mutant.kind]
    return [(node, change) for node in formula_nodes(definition) if chosen(node)]


class Replace(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        """Exchange the target wherever it is met."""
        return self.replacement if node is self.target else self.generic_visit(node)


def definition_of(tree: ast.Module, name: str) -> ast.AST:
    """The function or the top-level record of that name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node
    raise LookupError(f"{name} is not defined")


def planted(tree: ast.Module, mutant: Mutant) -> tuple[ast.Module, str]:
    """The tree with the error, and the change as text."""
    definition = definition_of(tree, mutant.where)
    found = places(definition, mutant)
    if not -len(found) <= mutant.place < len(found):
        raise LookupError(f"{mutant.where}: {len(found)} places for {mutant.kind!r}, none is number {mutant.place}")
    node, change = found[mutant.place]
    replacement = change(node)
    text = f"{ast.unparse(node)}  ->  {ast.unparse(replacement)}"
    Replace(node, ast.fix_missing_locations(ast.copy_location(replacement, node))).visit(definition)
    return tree, text


def compiled(limit: float, function: Callable[[float], float], there: float) -> Callable[[Any], Any]:
    """The function as compiled code has it: NaN below ``limit`` and ``there`` at it, where Python's own may raise, in
    the type of its argument, so that a division by its zero is infinite and does not raise either."""

    def of(x: Any) -> Any:
        value = function(x) if x > limit else (there if x == limit else math.nan)
        return np.float32(value) if isinstance(x, np.float32) else np.float64(value)

    return of


def overflowing(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """A growing function that is infinite, as compiled code has it, where Python's own raises."""

    def of(x: Any) -> Any:
        try:
            value = function(x)
        except OverflowError:
            value = math.inf
        return np.float32(value) if isinstance(x, np.float32) else np.float64(value)

    return of


def libm(name: str, kind: Any, arity: int) -> Callable[..., float]:
    """A function of the C library on numbers of one type."""
    function = ctypes.CDLL(ctypes.util.find_library("m"))[name]
    function.argtypes, function.restype = [kind] * arity, kind
    return function


FUSED = {np.float32: libm("fmaf", ctypes.c_float, 3), float: libm("fma", ctypes.c_double, 3)}


def fused(a: Any, b: Any, c: Any) -> Any:
    """The C library's fused multiply-add, in the type of its first argument: the intrinsic's form in Python, which is
    exact arithmetic with fractions, takes forty times as long."""
    kind = type(a)
    return kind(FUSED[kind if kind is np.float32 else float](a, b, c))


COMPILED_MATH = types.SimpleNamespace(
    log=compiled(0.0, math.log, -math.inf),
    log1p=compiled(-1.0, math.log1p, -math.inf),
    sqrt=compiled(0.0, math.sqrt, 0.0),
    exp=overflowing(math.exp),
    expm1=overflowing(math.expm1),
    fsum=math.fsum,
)


LINES = "round"  # the file of the lines of a round


def path_of(name: str) -> Path:
    """A generated file."""
    return ROOT / "kernels" / "badmm_kernels" / "cpu" / f"{name}.py"


def source(name: str) -> ast.Module:
    """A generated module's syntax tree."""
    return ast.parse(path_of(name).read_text(encoding="utf-8"))


@cache
def defined(name: str) -> frozenset[str]:
    """The functions and the records that a generated module defines."""
    found = (n.name if isinstance(n, ast.FunctionDef) else ast.unparse(n.targets[0])
             for n in source(name).body if isinstance(n, ast.FunctionDef | ast.Assign))  # fmt: skip
    return frozenset(found)


@cache
def unchanged(name: str) -> types.CodeType:
    """A generated module as code, for every namespace in which it is as it is."""
    return code_of(name, source(name))


def code_of(name: str, tree: ast.Module) -> types.CodeType:
    """A tree as code."""
    code: types.CodeType = compile(tree, f"<mutant of {name}>", "exec")
    return code


def namespace_of(family: str, changed: dict[str, ast.Module]) -> types.ModuleType:
    """A family's namespace, in which some generated files are other trees; outside the package's cache of modules."""
    name = f"badmm_kernels.cpu.{LINES}"
    before = sys.modules.get(name)
    codes = {file: code_of(file, changed[file]) if file in changed else unchanged(file) for file in (LINES, family)}
    sys.modules[name] = executed(LINES, codes[LINES])
    try:
        return executed(family, codes[family])
    finally:
        sys.modules.pop(name)
        sys.modules |= {name: before} if before else {}


def executed(name: str, code: types.CodeType) -> types.ModuleType:
    """Code as the module of a generated file."""
    module = types.ModuleType(f"mutant_{name}")
    module.__file__ = str(path_of(name))
    exec(code, module.__dict__)
    vars(module)["fma"] = fused
    if hasattr(module, "math"):
        vars(module)["math"] = COMPILED_MATH
    return module


def quick_checks(family: str) -> list[Callable[[Any, str], list[Any]]]:
    """The validation's own checks of one family, at fewer points."""
    from validation.checks import (
        autograd as checks_autograd,
        domain as checks_domain,
        elementwise as checks_elementwise,
        full as checks_full,
        full_reductions as checks_full_reductions,
        ivon as checks_ivon,
        layout as checks_layout,
        reductions as checks_reductions,
        rounds as checks_rounds,
        special as checks_special,
    )

    def of(module: Any, **options: Any) -> Callable[[Any, str], list[Any]]:
        return lambda namespace, dtype: list(module.checks(namespace, family, dtype, **options))

    if family == "ivon":
        return [of(checks_ivon, count=24, large=False)]
    if family == "full_gaussian":
        exact = [of(checks_full, sizes=(1, 3, 5)), of(checks_full_reductions, sizes=(1, 3), large=False)]
    else:
        exact = [of(checks_elementwise, count=24, map_count=24), of(checks_reductions, count=4, large=False)]
    found = [of(checks_rounds, size=3), of(checks_autograd), *exact, of(checks_domain)]
    found.append(of(checks_special, count=60))
    if family != "full_gaussian":
        found.append(lambda namespace, dtype: layout_checks(checks_layout, namespace, family, dtype))
    return found


def layout_checks(module: Any, namespace: Any, family: str, dtype: str) -> list[Any]:
    """The layout checks that do not need large arrays."""
    calls = module.sample_calls(family, dtype, 33)
    found = [check(namespace, family, dtype, call) for call in calls for check in (module.size_check, module.out_check)]
    return found + [module.client_axis_check(namespace, family, dtype, call) for call in calls]


DTYPES = ("float64", "float32")


def misses(namespace: Any, family: str, dtypes: Sequence[str] = DTYPES) -> Iterator[str]:
    """The checks that fail, one by one; an exception in a group of checks counts as one."""
    for dtype in dtypes:
        for run in quick_checks(family):
            try:
                found = run(namespace, dtype)
            except Exception as error:
                yield f"{dtype}: {type(error).__name__}: {error}"
                continue
            yield from (f"{dtype} [{item.group}] {item.name}: {item.value:.3g}" for item in found if not item.passed)


def verdict(mutant: Mutant) -> dict[str, str]:
    """What was changed and the first check that failed ("" if none did)."""
    tree, change = planted(source(mutant.file), mutant)
    namespace = namespace_of(mutant.family, {mutant.file: tree})
    return {"change": change, "caught_by": next(misses(namespace, mutant.family), "")}


def main(families: list[str]) -> int:
    """Every mutant of some families, and the unchanged modules."""
    sys.path.insert(0, str(ROOT))
    from tests.kernels.mutant_table import MUTANTS

    warnings.simplefilter("ignore")  # planted errors overflow
    if os.environ.get("NUMBA_DISABLE_JIT") != "1":
        print("mutants: expected NUMBA_DISABLE_JIT=1 in the environment", file=sys.stderr)
        return 2
    results = {}
    for family in families:
        found = {mutant.name: verdict(mutant) for mutant in MUTANTS if mutant.family == family}
        # the unchanged module passes the checks of a type if some error is caught by one of these
        caught = [t for t in DTYPES if t == DTYPES[0] or any(v["caught_by"].startswith(t) for v in found.values())]
        results[family] = {"baseline": list(misses(namespace_of(family, {}), family, caught)), "mutants": found}
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
