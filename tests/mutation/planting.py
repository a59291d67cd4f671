"""A copy of the checkout in which one room's functions can each be replaced by a changed one (mutmut).

mutmut writes every changed function beside the original and a switch that calls the one that is asked for. It leaves
out decorated functions; those with the decorators of `KEPT` are planted here too. Planted are no errors that only
change the `strict` of a `zip`, an assertion about sequences that the caller has matched.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import shutil
import subprocess
from collections.abc import Iterable
from difflib import unified_diff
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut.mutation import file_mutation

ROOT = Path(__file__).resolve().parents[2]
KEPT = {"property", "cached_property", "cache", "contextmanager", "abstractmethod"}
STRICT = re.compile(r",?\s*strict=\w+")

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


def plant(out: Path, patterns: Iterable[str]) -> dict[str, str]:
    """Write the changed functions into the copy's files that match; each error by name, with its changed lines."""
    file_mutation.MutationVisitor._skip_node_and_children = _skip_decorated  # type: ignore[method-assign]
    file_mutation.function_trampoline_arrangement = _arrange_decorated
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.py"))
    found: dict[str, str] = {}
    with contextlib.chdir(out):  # mutmut reads its settings there
        for name in files:
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                found |= _plant(Path(name))
    return found


def _plant(path: Path) -> dict[str, str]:
    module = ".".join(path.with_suffix("").parts).removeprefix("kernels.").removesuffix(".__init__")
    mutated = file_mutation.mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
    path.write_text(mutated.code, encoding="utf-8")
    lines = mutated.code.splitlines()

    def source(name: str) -> list[str]:
        span = mutated.line_span_by_function_name[name]
        return [re.sub(r"x[_ǁ]\S*__mutmut_\w+", "function", line) for line in lines[span.start - 1 : span.end]]

    found = {}
    for name in mutated.mutant_names:
        before, after = source(name.rpartition("__mutmut_")[0] + "__mutmut_orig"), source(name)
        if STRICT.sub("", "\n".join(before)) != STRICT.sub("", "\n".join(after)):
            changes = [line for line in unified_diff(before, after, n=0, lineterm="") if line[0] in "+-"]
            found[f"{module}.{name}"] = "\n".join(changes[2:])  # without the names of files
    return found
