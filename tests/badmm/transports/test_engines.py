"""MPI and torch.distributed as they are started by users: the posterior of one process, and runs that end by name."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm
from badmm.transports.ranks import share_of
from tests.badmm.transports.rank_program import CLIENTS, PROBLEMS, problem_of, solve_arguments

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("rank_program.py")
BIN = Path(sys.executable).parent
LOOPBACK = {"HYDRA_IFACE": "lo", "GLOO_SOCKET_IFNAME": "lo", "OMPI_MCA_btl": "self,sm"}
# ranks outnumber cores here: one that polls lets another run
YIELDING = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
HAS_MPI = (BIN / "mpiexec").exists() and importlib.util.find_spec("mpi4py") is not None
HAS_TORCH = importlib.util.find_spec("torch") is not None
ENGINES = [
    pytest.param("mpi", marks=pytest.mark.skipif(not HAS_MPI, reason="no mpi4py and mpiexec in this environment")),
    pytest.param("torch", marks=pytest.mark.skipif(not HAS_TORCH, reason="no torch in this environment")),
]


def launcher(engine: str, ranks: int) -> list[str]:
    """The command that starts a program on so many ranks, on this machine alone."""
    if engine == "torch":
        # gloo meets in files and on the loopback interface; torchrun's own store listens there too
        run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
        return [*run, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost"]
    command = [str(BIN / "mpiexec"), "-n", str(ranks)]
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    # more ranks than cores are meant
    return [*command, *(["--oversubscribe"] if "Open MPI" in version else []), sys.executable]


def environment() -> dict[str, str]:
    """That of every program that is started here."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **LOOPBACK, **YIELDING, **ROOT_MAY, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@dataclass(frozen=True)
class Ended:
    """What ranks left: the launcher's exit status and output, and their files."""

    ranks: int
    status: int
    output: str
    folder: Path

    def arrays(self, case: str) -> list[dict[str, Any]]:
        """What every rank found in a case that went well."""
        paths = [self.folder / f"{case}-{rank}.npz" for rank in range(self.ranks)]
        assert all(path.exists() for path in paths), self.output
        return [dict(np.load(path)) for path in paths]

    def reasons(self, case: str) -> dict[int, str]:
        """What ended each rank that could still write it."""
        paths = {rank: self.folder / f"{case}-{rank}.txt" for rank in range(self.ranks)}
        return {rank: path.read_text(encoding="utf-8") for rank, path in paths.items() if path.exists()}


def start(engine: str, ranks: int, cases: str, sizes: str, folder: Path) -> tuple[int, str]:
    """Run cases one after the other on the first ranks of a launch; return the launcher's exit status and output."""
    command = [*launcher(engine, ranks), str(PROGRAM), engine, cases, sizes, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, int, str]]:
    """One launch per engine: runs that fail, which leave the ranks in step, and runs that go well after them."""

    @cache
    def launch(engine: str) -> tuple[Path, int, str]:
        folder = tmp_path_factory.mktemp(engine)
        return folder, *start(engine, 4, "callback,raise,posteriors", "1,2,4", folder)

    return launch


@pytest.fixture(params=[1, 2, 4])
def ended(request: pytest.FixtureRequest, engine: str, launched: Callable[[str], tuple[Path, int, str]]) -> Ended:
    """What so many ranks of the engine's launch left."""
    folder, status, output = launched(engine)
    return Ended(request.param, status, output, folder / str(request.param))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@cache
def alone() -> dict[tuple[str, str], badmm.Result]:
    """The runs in this process."""
    results = {}
    for name, family in PROBLEMS:
        problem = problem_of(name)
        results[name, family] = badmm.solve(problem.clients, workers=1, **solve_arguments(problem, family))
    return results


def test_the_runs_that_ranks_are_compared_with_are_exact_in_one_round() -> None:
    problem = problem_of("diabetes")
    arguments = solve_arguments(problem, "full_gaussian") | {"rounds": 1}
    one = badmm.solve(problem.clients, workers=1, **arguments)
    for after_one, at_the_end in zip(one.natural, alone()["diabetes", "full_gaussian"].natural, strict=True):
        assert np.abs(after_one - at_the_end).max() <= 1e-12 * np.abs(at_the_end).max()


@pytest.mark.engines
def test_ranks_give_the_posterior_of_one_process(ended: Ended) -> None:
    everyone = ended.arrays("posteriors")
    assert ended.status == 0, ended.output
    for (name, family), result in alone().items():
        for order in ("any order", "deterministic"):
            key = f"{name}/{family}/{order}"
            assert sum(int(one[f"{key}/clients"]) for one in everyone) == len(result.duals[0])
            for i, expected in enumerate(result.natural):
                found = everyone[0][f"{key}/{i}"]
                assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max(), key
                assert order == "any order" or np.array_equal(found, expected), key
                assert all(np.array_equal(found, one[f"{key}/{i}"]) for one in everyone), key


@pytest.mark.engines
def test_a_client_that_raises_ends_the_run_on_all_ranks_by_its_name(ended: Ended) -> None:
    client = share_of(ended.ranks - 1, ended.ranks, CLIENTS)[0]
    why = f"ClientError: client {client}: expectations raised OSError: the disk of this site is gone"
    assert ended.reasons("raise") == dict.fromkeys(range(ended.ranks), why), ended.output


@pytest.mark.engines
def test_a_callback_that_raises_ends_the_run_on_all_ranks_by_its_ranks_name(ended: Ended) -> None:
    why = "OSError: no space left after round 1"
    others = dict.fromkeys(range(1, ended.ranks), f"RankError: rank 0: {why}")
    assert ended.reasons("callback") == {0: why} | others, ended.output


@pytest.mark.engines
def test_a_rank_that_dies_or_sleeps_hangs_no_other(engine: str, tmp_path: Path) -> None:
    for case in ("die", "sleep"):
        status, output = start(engine, 2, case, "", tmp_path)
        assert status != 0
    late = Ended(2, status, output, tmp_path).reasons("sleep")[0]
    assert late.startswith("RankError: rank 0: ") and "not" in late
