"""A copy of the checkout in which one room's functions can each be replaced by a changed one (mutmut).

mutmut writes every changed function beside the original and a switch that calls the one that is asked for. It leaves
out decorated functions; those with the decorators of `KEPT` are planted here too. Planted are no errors that only
change the `strict` of a `zip`, an assertion about sequences that the caller has matched, the device of a tensor (also
in `.to(x.device)`), which only tests on a GPU see, the `stacklevel` of a warning, which the switch itself shifts, the
case of `float("inf")` or of the indices of an `einsum`, the number of `reshape(-1)`, of which NumPy only reads the
sign, or a number so large that 1 more is the same.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import libcst as cst
import libcst.matchers as m
from mutmut.mutation import file_mutation
from mutmut.mutation.trampoline_templates import mangle_function_name

ROOT = Path(__file__).resolve().parents[2]
KEPT = {"property", "cached_property", "contextmanager", "abstractmethod"}
UNSEEN = ("strict", "device", "stacklevel")
UNSEEN_ARGUMENT = re.compile(rf",?\s*({'|'.join(UNSEEN)})=[\w.]+|,\s*(?=\))")  # and the comma that one leaves

_skip = file_mutation.MutationVisitor._skip_node_and_children
_arrange = file_mutation.function_trampoline_arrangement


def _kept(node: cst.CSTNode) -> bool:
    """Whether a function is decorated, and only by decorators that go around a switch as well."""
    decorators = node.decorators if isinstance(node, cst.FunctionDef) else ()
    names = [one.decorator.value for one in decorators if isinstance(one.decorator, cst.Name)]
    return bool(decorators) and len(names) == len(decorators) and set(names) <= KEPT


def _skip_decorated(visitor: Any, node: cst.CSTNode) -> bool:
    return _skip(visitor, node.with_changes(decorators=()) if _kept(node) else node)


def _arrange_decorated(function: cst.FunctionDef, mutants: Iterable[Any], class_name: str | None) -> Any:
    """mutmut's functions, with the decorators around the switch alone."""
    if not _kept(function):
        return _arrange(function, mutants, class_name)
    bare = function.with_changes(decorators=())
    declared, (switch, *copies), assigned, names = _arrange(bare, mutants, class_name)
    assert isinstance(switch, cst.FunctionDef)
    decorated = switch.with_changes(decorators=[*function.decorators, *switch.decorators])
    return declared, [decorated, *copies], assigned, names


def copy(out: Path) -> None:
    """The checkout's files, but for what git ignores, and the kernels that Numba has compiled for them."""
    shutil.rmtree(out, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    compiled = [str(path.relative_to(ROOT)) for path in (ROOT / "kernels").rglob("*.nb[ci]")]
    for name in [*filter(None, listed.split("\0")), *compiled]:
        if (ROOT / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, out / name)
    with (out / "pyproject.toml").open("a", encoding="utf-8") as stream:
        stream.write('\n[tool.mutmut]\nsource_paths = ["."]\n')


@dataclass
class Planting:
    """A file of the copy, parsed once, with the errors that mutmut finds in it."""

    path: Path
    parts: tuple[cst.Module, list[file_mutation.Mutation], set[str], set[str]]
    """The module, the errors, and the classes and functions that mutmut leaves alone."""

    @property
    def module(self) -> str:
        """The module's name."""
        return ".".join(self.path.with_suffix("").parts).removeprefix("kernels.").removesuffix(".__init__")

    def named(self) -> dict[str, file_mutation.Mutation]:
        """The errors by name: module, function and number."""
        classes = [part for part in self.parts[0].body if isinstance(part, cst.ClassDef)]
        owners = {id(part): owner.name.value for owner in classes for part in owner.body.body}
        keyword = m.OneOf(*map(m.Name, UNSEEN))
        moved = m.Call(m.Attribute(attr=m.Name("to")), [m.Arg(m.Attribute(attr=m.Name("device")))])
        unseen = {id(one.value) for one in m.findall(self.parts[0], m.Arg(keyword=keyword))}
        unseen |= {id(one) for one in m.findall(self.parts[0], moved)}
        caseless = m.Call(m.Name("float") | m.Attribute(attr=m.Name("einsum")))
        floats = {id(one.args[0].value) for one in m.findall(self.parts[0], caseless)}
        reshapes = m.findall(self.parts[0], m.Call(m.Attribute(attr=m.Name("reshape"))))
        signed = {id(one.expression) for call in reshapes for one in m.findall(call, m.UnaryOperation(m.Minus()))}
        found: dict[str, file_mutation.Mutation] = {}
        for function, errors in file_mutation.group_by_top_level_node(self.parts[1]).items():
            if isinstance(function, cst.FunctionDef):  # and not a class's own statement, which mutmut cannot switch
                mangled = mangle_function_name(name=function.name.value, class_name=owners.get(id(function)))
                numbered = {f"{self.module}.{mangled}__mutmut_{i}": error for i, error in enumerate(errors, 1)}
                found |= {
                    name: error
                    for name, error in numbered.items()
                    if id(error.original_node) not in signed
                    and not _is_unseen(error, unseen)
                    and not _is_same_float(error, floats)
                    and not _is_same_number(error)
                }
        return found

    def write(self, chosen: Mapping[str, file_mutation.Mutation]) -> dict[str, Planted]:
        """Write the file with the chosen errors; a function's are numbered anew, from 1 on."""
        module, _, classes, functions = self.parts
        mutated = file_mutation.combine_mutations_to_source(module, list(chosen.values()), classes, functions)
        (self.path).write_text(mutated.code, encoding="utf-8")
        lines = mutated.code.splitlines()

        def source(name: str) -> list[str]:
            span = mutated.line_span_by_function_name[name]
            return [re.sub(r"x[_ǁ]\S*__mutmut_\w+", "function", line) for line in lines[span.start - 1 : span.end]]

        found, numbers = {}, Counter[str]()
        for name in chosen:
            function = name.rpartition(".")[2].rpartition("_")[0]
            numbers[function] += 1
            switch = f"{function}_{numbers[function]}"
            changes = unified_diff(source(f"{function}_orig"), source(switch), n=0, lineterm="")
            changed = [line for line in changes if line[0] in "+-"][2:]  # without the names of files
            found[name] = Planted(f"{self.module}.{switch}", "\n".join(changed))
        return found


class Planted(NamedTuple):
    """What mutmut's switch takes for an error, and its changed lines."""

    switch: str
    change: str


def plant(out: Path, patterns: Iterable[str], choose: Callable[[list[str]], Iterable[str]]) -> dict[str, Planted]:
    """Write errors into the copy's files that match: those that `choose` returns of the names of all, sorted."""
    file_mutation.MutationVisitor._skip_node_and_children = _skip_decorated
    file_mutation.function_trampoline_arrangement = _arrange_decorated
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.py"))
    plantings: dict[str, tuple[Planting, file_mutation.Mutation]] = {}
    found: dict[str, Planted] = {}
    with contextlib.chdir(out):  # mutmut reads its settings there
        for name in files:
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                text = Path(name).read_text(encoding="utf-8")
                one = Planting(Path(name), file_mutation.create_mutations(name, text))
                plantings |= {key: (one, error) for key, error in one.named().items()}
        chosen = sorted(choose(sorted(plantings)))
        for one, names in groupby(chosen, lambda name: plantings[name][0]):
            found |= one.write({name: plantings[name][1] for name in names})
    return found


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)


def _is_same_float(error: file_mutation.Mutation, values: Container[int]) -> bool:
    """Whether an error changes the case of a word that `float` or `einsum` reads; `values` are the ids of its nodes."""
    alike = _code(error.original_node).lower() == _code(error.mutated_node).lower()
    return alike and id(error.original_node) in values


def _is_same_number(error: file_mutation.Mutation) -> bool:
    """Whether a number and what it is changed to are equal: 1e300 and 1 more."""
    before, after = error.original_node, error.mutated_node
    kinds = cst.BaseNumber
    return isinstance(before, kinds) and isinstance(after, kinds) and before.evaluated_value == after.evaluated_value


def _is_unseen(error: file_mutation.Mutation, values: Container[int]) -> bool:
    """Whether an error changes an argument of `UNSEEN` alone, whose values have the ids `values`."""
    before, after = (UNSEEN_ARGUMENT.sub("", _code(node)) for node in (error.original_node, error.mutated_node))
    return before == after or id(error.original_node) in values
