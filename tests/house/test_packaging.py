"""What an installation holds: the header, the Fortran interface and the CMake package, and where it says they are."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import badmm
import badmm_kernels
import derive
import validation
from badmm_kernels.__main__ import main
from tests.kernels.header_backend import INCLUDE

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_says_where_things_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--includes", "--includedir", "--cmakedir", "--pkgconfigdir"]) == 0
    flag, include, cmake, pkgconfig = capsys.readouterr().out.splitlines()
    assert flag == f"-I{include}" and Path(include) == INCLUDE
    assert {p.name for p in Path(include).iterdir()} >= {
        "badmm_kernels.h",
        "badmm_kernels.c",
        "badmm_kernels.f90",
        "badmm",
    }
    assert (Path(cmake) / "badmm-kernels-config.cmake").is_file()
    assert (Path(pkgconfig) / "badmm-kernels.pc").is_file()
    assert main([]) == 2
    assert "usage: python -m badmm_kernels" in capsys.readouterr().err


def test_the_command_loads_nothing_heavy() -> None:
    heavy = ("numpy", "numba", "scipy", "sympy", "torch", "cupy")
    code = f"import sys, badmm_kernels.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_cmake_package_has_the_projects_version() -> None:
    text = (ROOT / "kernels" / "badmm_kernels" / "cmake" / "badmm-kernels-config-version.cmake").read_text(
        encoding="utf-8"
    )
    assert re.findall(r'PACKAGE_VERSION "(.*?)"', text)[0] == badmm_kernels.__version__


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The files of a wheel and of a source distribution, built from this checkout by the project's own back end."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        whole = set(wheel.namelist())
    with tarfile.open(next(folder.glob("*.tar.gz"))) as source:
        listed = {name.split("/", 1)[1] for name in source.getnames() if "/" in name}
    return whole, listed


def tracked(*folders: str) -> set[str]:
    """What a checkout holds below these folders, without what running it leaves there."""
    found = {p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file()}
    return {str(p.relative_to(ROOT)) for p in found if "__pycache__" not in p.parts}


def test_a_wheel_has_four_names_at_its_top_and_everything_below_them(archives: tuple[set[str], set[str]]) -> None:
    wheel, _ = archives
    top = {name.split("/")[0] for name in wheel if ".dist-info/" not in name}
    assert top == {"badmm", "badmm_kernels", "badmm_derive", "badmm_validation"}
    moved = {"kernels/badmm_kernels": "badmm_kernels", "derive": "badmm_derive", "validation": "badmm_validation"}
    for name in tracked("badmm", *moved):
        folder = next((f for f in moved if name.startswith(f + "/")), None)
        assert (name if folder is None else moved[folder] + name.removeprefix(folder)) in wheel, name
    assert {f"{package}/py.typed" for package in top} <= wheel


def test_a_source_distribution_holds_what_a_reader_needs(archives: tuple[set[str], set[str]]) -> None:
    _, source = archives
    assert tracked("configs", "docs", "examples", "tests", "benchmarks") <= source
    files = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "Makefile", "mkdocs.yml"}
    assert files | {"pyproject.toml", "constraints.txt", "constraints-lowest.txt"} <= source


def test_every_package_says_its_version() -> None:
    for package in (badmm, badmm_kernels, derive, validation):
        assert package.__version__ == badmm_kernels.__version__


@pytest.mark.parametrize("folder", ["derive", "validation"])
def test_what_an_installation_renames_names_itself_nowhere(folder: str) -> None:
    """derive/ is badmm_derive where it is installed: its files import each other by relative names alone."""
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong += [f"{path}: {m}" for m in modules if m and m.split(".")[0] == folder]
    assert not wrong


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """The packages of the derivation as an installation has them, with no checkout around them."""
    for source, package in (("derive", "badmm_derive"), ("kernels/badmm_kernels", "badmm_kernels")):
        shutil.copytree(ROOT / source, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def derived(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "badmm_derive", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_an_installed_derivation_compares_with_the_installed_kernels(installation: Path) -> None:
    done = derived(installation, "gamma", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "generated files are what derive writes" in done.stdout
    header = installation / "badmm_kernels" / "include" / "badmm" / "gamma.h"
    header.write_text(header.read_text(encoding="utf-8") + "/* edited */\n", encoding="utf-8")
    done = derived(installation, "gamma", "--check")
    assert done.returncode == 1
    assert "edited by hand: badmm_kernels/include/badmm/gamma.h" in done.stdout
    assert "To mend it: install bayesian-admm again" in done.stdout


def test_an_installed_derivation_writes_only_where_it_is_told(installation: Path) -> None:
    before = {path: path.read_bytes() for path in installation.rglob("*") if path.is_file()}
    done = derived(installation, "gamma")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "--out: expected a folder to write below, as an installation has no checkout, got none"
    ]
    assert {path: path.read_bytes() for path in before} == before
    assert "log_partition" in derived(installation, "gamma", "--show", "family").stdout


def floors() -> dict[str, str]:
    """The lowest version that pyproject.toml allows of each package that users need, and of what runs the tests."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = table["optional-dependencies"]
    tools = [text for text in extras["test"] if text.startswith(("pytest>", "hypothesis>"))]
    wanted = [*table["dependencies"], *extras["derive"], *extras["run"], *extras["torch"], *tools]
    return dict(re.match(r"([\w-]+)>=([\d.]+)$", text).groups() for text in wanted)  # type: ignore[union-attr, misc]


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (*version.split("."), "0", "0")[:3])


def test_the_lowest_constraints_are_the_floors() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    listed = dict(line.split("==") for line in lines if "==" in line)
    assert {name: release(listed[name]) for name in floors()} == {n: release(v) for n, v in floors().items()}


def test_the_constraints_lie_above_the_floors() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    listed = dict(line.split("==") for line in lines if "==" in line)
    assert {n for n, v in floors().items() if release(listed[n]) < release(v)} == set()
