"""MPI and torch.distributed as they are started by users: the posterior of one process, and runs that end by name."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import badmm
from badmm.demo import problems
from tests.badmm.transports.rank_program import PROBLEMS, solve_arguments

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("rank_program.py")
BIN = Path(sys.executable).parent
LOOPBACK = {"HYDRA_IFACE": "lo", "GLOO_SOCKET_IFNAME": "lo", "OMPI_MCA_btl": "self,sm"}
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
HAS_MPI = (BIN / "mpiexec").exists() and importlib.util.find_spec("mpi4py") is not None
HAS_TORCH = importlib.util.find_spec("torch") is not None
EVERYTHING = os.environ.get("BADMM_ENGINES") == "all"
"""Whether to start every engine on every number of ranks, as `make engines` does; else a few that show the most."""
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


def start(engine: str, ranks: int, case: str, folder: Path, limit: float = 240.0) -> int:
    """Run a case on so many ranks and return the launcher's exit status."""
    environment = {**os.environ, **LOOPBACK, **ROOT_MAY, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    command = [*launcher(engine, ranks), str(PROGRAM), engine, case, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit)
    if case == "posteriors":
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.returncode


def told(folder: Path, case: str, ranks: int) -> dict[int, str]:
    """What ended each rank that could still write it."""
    paths = {rank: folder / f"{case}-{rank}.txt" for rank in range(ranks)}
    return {rank: path.read_text(encoding="utf-8") for rank, path in paths.items() if path.exists()}


@cache
def alone() -> dict[tuple[str, str], badmm.Result]:
    """The runs in this process."""
    results = {}
    for name, family in PROBLEMS:
        problem = problems.make(name, 0)
        results[name, family] = badmm.solve(problem.clients, workers=1, **solve_arguments(problem, family))
    return results


def often(engine: str, *, quick: bool) -> None:
    if not (quick or EVERYTHING):
        pytest.skip(f"{engine}: make engines runs it (BADMM_ENGINES=all)")


def test_the_runs_that_ranks_are_compared_with_are_exact_in_one_round() -> None:
    problem = problems.make("diabetes", 0)
    arguments = solve_arguments(problem, "full_gaussian") | {"rounds": 1}
    one = badmm.solve(problem.clients, workers=1, **arguments)
    for after_one, at_the_end in zip(one.natural, alone()["diabetes", "full_gaussian"].natural, strict=True):
        assert np.abs(after_one - at_the_end).max() <= 1e-12 * np.abs(at_the_end).max()


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_give_the_posterior_of_one_process(engine: str, ranks: int, tmp_path: Path) -> None:
    often(engine, quick=(engine, ranks) in [("mpi", 4), ("torch", 2)])
    start(engine, ranks, "posteriors", tmp_path)
    everyone = [dict(np.load(tmp_path / f"posteriors-{rank}.npz")) for rank in range(ranks)]
    for (name, family), result in alone().items():
        for order in ("any order", "deterministic"):
            key = f"{name}/{family}/{order}"
            assert sum(int(one[f"{key}/clients"]) for one in everyone) == len(result.duals[0])
            for i, expected in enumerate(result.natural):
                found = everyone[0][f"{key}/{i}"]
                assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max(), key
                assert order == "any order" or np.array_equal(found, expected), key
                assert all(np.array_equal(found, one[f"{key}/{i}"]) for one in everyone), key


@pytest.mark.parametrize("case", ["raise", "callback"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_rank_that_fails_ends_the_run_on_all_ranks_by_name(engine: str, case: str, tmp_path: Path) -> None:
    often(engine, quick=(engine, case) == ("mpi", "raise"))
    assert start(engine, 3, case, tmp_path, 120.0) != 0
    reasons = told(tmp_path, case, 3)
    if case == "raise":
        why = "ClientError: client 6: expectations raised OSError: the disk of this site is gone"
        assert reasons == dict.fromkeys(range(3), why)
    else:
        why = "OSError: no space left after round 1"
        assert reasons == {0: why} | dict.fromkeys((1, 2), f"RankError: rank 0: {why}")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rank_that_dies_or_sleeps_hangs_no_other(engine: str, tmp_path: Path) -> None:
    often(engine, quick=False)
    for case in ("die", "sleep"):
        assert start(engine, 2, case, tmp_path, 120.0) != 0
    late = told(tmp_path, "sleep", 2)[0]
    assert late.startswith("RankError: rank 0: ") and "not" in late
