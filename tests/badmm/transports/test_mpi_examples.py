"""The examples over MPI: compiled without a warning, exact in one round on four ranks, and able to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.badmm.transports.test_engines import BIN, HAS_MPI, ROOT, environment, launcher
from tests.kernels.header_backend import INCLUDE, STRICT

EXAMPLES = ROOT / "examples" / "hpc"
WHERE = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
MPICC, MPIFORT = shutil.which("mpicc", path=WHERE), shutil.which("mpifort", path=WHERE)
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not HAS_MPI, reason="no mpi4py and mpiexec in this environment"),
]


def call(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=folder, env={**environment(), "PATH": WHERE}, capture_output=True, text=True, timeout=120
    )


def built(folder: Path, source: Path = EXAMPLES) -> Path:
    program = folder / "program"
    command = [MPICC, "-std=c99", "-O2", *STRICT, f"-I{INCLUDE}", "least_squares_mpi.c", "-o", program, "-lm"]
    done = call(*command, folder=source)
    assert done.returncode == 0, done.stderr
    return program


def ranks(count: int) -> list[str]:
    """mpiexec without the interpreter."""
    return launcher("mpi", count)[:-1]


@pytest.mark.skipif(MPICC is None or shutil.which("gcc") is None, reason="no mpicc and C compiler on this machine")
def test_the_c_program_solves_the_pooled_problem_in_one_round(tmp_path: Path) -> None:
    program = built(tmp_path)
    for count in (1, 4):
        done = call(*ranks(count), program, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"C, MPI, {count} ranks: relative error after one round")


@pytest.mark.skipif(MPICC is None or shutil.which("gcc") is None, reason="no mpicc and C compiler on this machine")
def test_the_c_program_fails_on_all_ranks_where_the_round_is_not_exact(tmp_path: Path) -> None:
    for path in EXAMPLES.glob("*.[ch]"):
        text = path.read_text(encoding="utf-8").replace("damping = 1.0", "damping = 0.999")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    done = call(*ranks(4), built(tmp_path, tmp_path), folder=tmp_path)
    assert done.returncode != 0
    assert "expected the pooled solution to a relative 1e-12, got" in done.stderr


@pytest.mark.skipif(MPICC is None or MPIFORT is None, reason="no mpifort on this machine")
def test_the_fortran_program_solves_the_pooled_problem_in_one_round(tmp_path: Path) -> None:
    done = call(MPICC, "-O2", "-c", f"-I{INCLUDE}", INCLUDE / "badmm_kernels.c", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    sources = [INCLUDE / "badmm_kernels.f90", EXAMPLES / "least_squares_mpi.f90", "badmm_kernels.o"]
    done = call(MPIFORT, "-O2", *sources, "-o", "program", "-lm", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = call(*ranks(4), tmp_path / "program", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("Fortran, MPI, 4 ranks: relative error after one round")


def test_the_python_program_solves_the_pooled_problem_in_one_round(tmp_path: Path) -> None:
    done = call(*ranks(4), sys.executable, EXAMPLES / "least_squares_mpi.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Python, MPI, 4 ranks: relative error after one round")
