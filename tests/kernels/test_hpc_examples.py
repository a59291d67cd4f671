"""The examples for C, C++, Fortran, CUDA and one's own @njit code: built without a warning, run, and able to fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from badmm_kernels.__main__ import main as where
from tests.kernels.header.test_header import FORTRAN, needs
from tests.kernels.header_backend import INCLUDE, STRICT, missing, run

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "hpc"
FLAG = f"-I{INCLUDE}"
BUILDS = {
    "gcc": [["gcc", "-std=c99", "-O2", "-fopenmp", *STRICT, FLAG, "least_squares.c", "-o", "{out}/program", "-lm"]],
    "g++": [["g++", "-std=c++17", "-O2", *STRICT, FLAG, "least_squares.cpp", "-o", "{out}/program"]],
    "clang++": [["clang++", "-std=c++17", "-O2", *STRICT, FLAG, "least_squares.cpp", "-o", "{out}/program"]],
    "gfortran": [
        ["gcc", "-c", FLAG, str(INCLUDE / "badmm_kernels.c"), "-o", "{out}/kernels.o"],
        ["gfortran", *FORTRAN, "-J{out}", str(INCLUDE / "badmm_kernels.f90"), "least_squares.f90",
         "{out}/kernels.o", "-o", "{out}/program", "-lm"],
    ],
    "nvcc": [["nvcc", "-O2", "-Werror", "all-warnings", FLAG, "least_squares.cu", "-o", "{out}/program"]],
}  # fmt: skip
HOST = [pytest.param(compiler, id=compiler, marks=needs(compiler)) for compiler in BUILDS if compiler != "nvcc"]


def built(compiler: str, out: Path, folder: Path = EXAMPLES) -> Path:
    """The program of one compiler."""
    for command in BUILDS[compiler]:
        done = run([word.format(out=out) for word in command], cwd=folder)
        assert done.returncode == 0, done.stderr
    return out / "program"


@pytest.mark.parametrize("compiler", HOST)
def test_it_solves_the_pooled_problem_in_one_round(compiler: str, tmp_path: Path) -> None:
    done = run([built(compiler, tmp_path)])
    assert done.returncode == 0, done.stderr
    assert "relative error after one round" in done.stdout


@needs("gcc")
@needs("gfortran")
@pytest.mark.parametrize(("compiler", "source"), [("gcc", "least_squares.c"), ("gfortran", "least_squares.f90")])
def test_it_fails_where_the_round_is_not_exact(compiler: str, source: str, tmp_path: Path) -> None:
    for path in EXAMPLES.glob("*.*"):
        text = path.read_text(encoding="utf-8")
        changed = text.replace("damping = 1.0", "damping = 0.999")
        assert path.name != source or changed != text
        (tmp_path / path.name).write_text(changed, encoding="utf-8")
    done = run([built(compiler, tmp_path, tmp_path)])
    assert done.returncode == 1
    assert "expected the pooled solution to a relative 1e-12, got an error of" in done.stderr


def test_the_njit_example_solves_the_pooled_problem_in_one_round() -> None:
    done = run([sys.executable, EXAMPLES / "least_squares.py"], cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "relative error after one round" in done.stdout


@needs("nvcc")
@pytest.mark.slow
def test_the_cuda_example_compiles_and_says_what_fails(tmp_path: Path) -> None:
    program = built("nvcc", tmp_path)
    done = run(["env", "CUDA_VISIBLE_DEVICES=", program])
    assert done.returncode == 1
    assert done.stderr.startswith("least_squares: cudaMalloc: ")


@needs("nvcc")
@needs("nvidia-smi")
@pytest.mark.gpu
def test_the_cuda_example_solves_the_pooled_problem_in_one_round(tmp_path: Path) -> None:
    done = run([built("nvcc", tmp_path)])
    assert done.returncode == 0, done.stderr
    assert "relative error after one round" in done.stdout


def test_cmake_finds_the_package_and_its_tests_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if missing("cmake"):
        pytest.skip(missing("cmake"))
    if missing("gcc") or missing("g++"):
        pytest.skip("no C and C++ compiler on this machine")
    assert where(["--cmakedir"]) == 0
    package = capsys.readouterr().out.strip()
    # without CUDA, which takes longest to configure; nvcc is tested above
    done = run(["cmake", "-S", EXAMPLES, "-B", tmp_path, f"-Dbadmm-kernels_DIR={package}", "-DCMAKE_CUDA_COMPILER="])
    assert done.returncode == 0, done.stderr
    done = run(["cmake", "--build", tmp_path])
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(["ctest", "--test-dir", tmp_path, "--output-on-failure"])
    assert done.returncode == 0, done.stdout
    assert f"100% tests passed, 0 tests failed out of {2 if missing('gfortran') else 3}" in done.stdout
