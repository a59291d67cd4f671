"""One rank of some runs, started by mpiexec or torchrun: `rank_program.py ENGINE CASE[,CASE...] FOLDER`.

ENGINE is "mpi" or "torch". For every case each rank writes FOLDER/CASE-RANK.npz with what it got, or
FOLDER/CASE-RANK.txt with the error that ended it. The exit status is that of the last case: 0, or 3 for an error. One
program runs many cases because an interpreter that imports this package starts as slowly as most of them run.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import badmm
from badmm.demo import problems
from badmm.demo.problems import DemoProblem
from badmm.transports.ranks import share_of

PROBLEMS = [
    (name, family)
    for name in ("diabetes", "breast_cancer", "digits")
    for family in ("full_gaussian", "diagonal_gaussian")
]
ROUNDS = 4
"""Rounds of each problem: enough for mixing to begin; every one of them is compared bit for bit anyway."""


def solve_arguments(problem: DemoProblem, family: str) -> dict[str, Any]:
    return {
        "family": family,
        "prior": problem.prior,
        "expectation": problem.expectation(family),
        "rounds": ROUNDS,
    }


def engine(name: str, **options: Any) -> Any:
    if name == "torch":
        from badmm.transports.torch_distributed import TorchDistributed

        return TorchDistributed(**options)
    from badmm.transports.mpi import MPI

    return MPI(**options)


def own(transport: Any, clients: list[Any]) -> list[Any]:
    return [clients[k] for k in share_of(transport.rank, transport.size, len(clients))]


def posteriors(transport: Any) -> dict[str, Any]:
    """Every problem of the demo under both Gaussian families, in either order of summation."""
    found: dict[str, Any] = {}
    for deterministic in (False, True):
        transport.deterministic = deterministic
        for name, family in PROBLEMS:
            problem = problems.make(name, 0)
            arguments = solve_arguments(problem, family)
            result = badmm.solve(own(transport, problem.clients), transport=transport, workers=1, **arguments)
            key = f"{name}/{family}/{'deterministic' if deterministic else 'any order'}"
            found |= {f"{key}/{i}": slot for i, slot in enumerate(result.natural)}
            found[f"{key}/rounds"] = np.array(result.rounds)
            found[f"{key}/clients"] = np.array(len(result.duals[0]))
    return found


class Bad:
    """A client that raises, ends its process, or takes its time at its third evaluation."""

    def __init__(self, client: Any, how: str) -> None:
        self.client, self.how, self.calls = client, how, 0

    def expectations(self, posterior: Any) -> Any:
        self.calls += 1
        if self.calls == 3:
            if self.how == "raise":
                raise OSError("the disk of this site is gone")
            if self.how == "die":
                os._exit(9)
            time.sleep(600)
        return self.client.expectations(posterior)


def bad(transport: Any, how: str) -> dict[str, Any]:
    """Breast cancer, with a bad client on the last rank."""
    problem = problems.make("breast_cancer", 0)
    clients = own(transport, problem.clients)
    if transport.rank == transport.size - 1 and how != "callback":
        clients[0] = Bad(clients[0], how)
    arguments = solve_arguments(problem, "full_gaussian")
    if how == "callback" and transport.rank == 0:

        def full(state: Any) -> None:
            raise OSError(f"no space left after round {state.round}")

        arguments["callbacks"] = [full]
    return {"natural": badmm.solve(clients, transport=transport, workers=1, **arguments).natural[0]}


def attempt(name: str, case: str, folder: Path) -> int:
    """Run one case on a transport of its own; return 0, or 3 for an error that is written down."""
    transport = engine(name, deadline=2.0 if case == "sleep" else None)
    place = folder / f"{case}-{transport.rank}"
    try:
        found = posteriors(transport) if case == "posteriors" else bad(transport, case)
    except (badmm.checks.RankError, badmm.checks.ClientError, OSError) as error:
        place.with_suffix(".txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        return 3
    np.savez(place.with_suffix(".npz"), **found)
    return 0


def main() -> int:
    name, cases, folder = sys.argv[1:]
    status = 0
    for case in cases.split(","):
        status = attempt(name, case, Path(folder))
    return status


if __name__ == "__main__":
    sys.exit(main())
