"""The layout's rules: which package may import which, what `import badmm_kernels` may load, how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"derive": "derive", "badmm_kernels": "kernels/badmm_kernels", "badmm": "badmm", "validation": "validation"}
FORBIDDEN = {
    "derive": {"badmm_kernels", "badmm", "validation"},
    "badmm_kernels": {
        "derive",
        "badmm",
        "validation",
        "sympy",
        "mpmath",
        "torch",
        "sklearn",
        "matplotlib",
        "rich",
        "pydantic",
    },
    "badmm": {"derive", "validation", "sympy", "mpmath"},
    "validation": {"derive"},
}
# the command line, its plots, the data sets and the engine of files may use what the extra `run` installs; the solver
# may not
COMMAND_LINE = {"sklearn", "matplotlib", "rich", "pydantic", "safetensors"}
COMMAND_LINE_ROOMS = {"demo", "experiments", "data", "glm", "transports"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / PACKAGES.get(package, package)).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def generated(path: Path) -> bool:
    head = path.read_text(encoding="utf-8")[:400].lower()
    return "generated" in head and "python -m derive" in head


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_in_one_direction(package: str) -> None:
    files = sources(package)
    assert files, f"{package} has no source files"
    own = {ROOT / "kernels" / "badmm_kernels" / "torch": {"torch"}}  # loaded only where it is asked for
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in files
        if (found := (imported(path) & FORBIDDEN[package]) - own.get(path.parent, set()))
    }
    assert not wrong


def test_only_the_command_line_needs_the_run_extra() -> None:
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in sources("badmm")
        if (found := imported(path) & COMMAND_LINE) and not COMMAND_LINE_ROOMS & set(path.relative_to(ROOT).parts)
    }
    assert not wrong


@pytest.mark.parametrize("module", ["badmm_kernels", "badmm"])
def test_import_stays_light(module: str) -> None:
    heavy = ("sympy", "torch", "cupy", "matplotlib", "sklearn", "pydantic")
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


def test_no_hand_written_file_is_too_long() -> None:
    folders = (*PACKAGES, "tests", "benchmarks")
    paths = [path for folder in folders for path in sources(folder) if not generated(path)]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: count for name, count in lengths.items() if count > 400} == {}
