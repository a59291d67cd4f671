"""What an installation holds: the header, the Fortran interface and the CMake package, and where it says they are."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kernels.__main__ import main
from tests.header_backend import INCLUDE

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_command_says_where_things_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--includes", "--includedir", "--cmakedir"]) == 0
    flag, include, cmake = capsys.readouterr().out.splitlines()
    assert flag == f"-I{include}" and Path(include) == INCLUDE
    assert {p.name for p in Path(include).iterdir()} >= {
        "badmm_kernels.h",
        "badmm_kernels.c",
        "badmm_kernels.f90",
        "badmm",
    }
    assert (Path(cmake) / "badmm-kernels-config.cmake").is_file()
    assert main([]) == 2
    assert "usage: python -m kernels" in capsys.readouterr().err


def test_the_command_loads_nothing_heavy() -> None:
    heavy = ("numpy", "numba", "scipy", "sympy", "torch", "cupy")
    code = f"import sys, kernels.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_every_file_that_is_not_python_is_package_data() -> None:
    """The patterns of pyproject.toml cover what the header's users need."""
    data = PROJECT["tool"]["setuptools"]["package-data"]["kernels"]
    covered = {p for pattern in data for p in (ROOT / "kernels").glob(pattern) if p.is_file()}
    others = {p for p in (ROOT / "kernels").rglob("*") if p.suffix in (".h", ".c", ".f90", ".cmake", ".cuh", ".cu")}
    assert len(others) >= 9
    assert others <= covered


def test_the_cmake_package_has_the_projects_version() -> None:
    text = (ROOT / "kernels" / "cmake" / "badmm-kernels-config-version.cmake").read_text(encoding="utf-8")
    assert re.findall(r'PACKAGE_VERSION "(.*?)"', text)[0] == PROJECT["project"]["version"]
