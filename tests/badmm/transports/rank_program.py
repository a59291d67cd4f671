"""One rank of some runs, started by mpiexec or torchrun: `rank_program.py ENGINE CASE[,CASE...] SIZE[,SIZE...] FOLDER`.

ENGINE is "mpi" or "torch". The first SIZE ranks run every case, for each size in turn, while the others wait: a program
runs many because an interpreter that imports this package starts as slowly as they run. A rank writes
FOLDER/SIZE/CASE-RANK.npz with what it got, or FOLDER/SIZE/CASE-RANK.txt with the error that ended the case. The exit
status is that of the last case: 0, or 3 for an error. A case that ends the launch is run by itself, on all ranks and in
FOLDER.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import badmm
from badmm.demo import problems
from badmm.demo.problems import DemoProblem
from badmm.transports.ranks import share_of

PROBLEMS = [
    *((name, family) for name in ("diabetes", "breast_cancer") for family in ("full_gaussian", "diagonal_gaussian")),
    ("digits", "diagonal_gaussian"),
]
"""Every rule for expectations, both shapes of messages; the digits under the full family take as long as all others."""
CLIENTS = 5
"""The first of each problem's clients: no multiple of the ranks, and half the time of all."""
ROUNDS = 4
"""Rounds of each problem: enough for mixing to begin; every one of them is compared bit for bit anyway."""


def problem_of(name: str) -> DemoProblem:
    """A problem of the demo with its first clients."""
    problem = problems.make(name, 0)
    return replace(problem, clients=problem.clients[:CLIENTS])


def solve_arguments(problem: DemoProblem, family: str) -> dict[str, Any]:
    return {
        "family": family,
        "prior": problem.prior,
        "expectation": problem.expectation(family),
        "rounds": ROUNDS,
    }


def engine(name: str, **options: Any) -> Any:
    """A transport of all ranks, as a user makes one."""
    if name == "torch":
        from badmm.transports.torch_distributed import TorchDistributed

        return TorchDistributed(**options)
    from badmm.transports.mpi import MPI

    return MPI(**options)


def first(everyone: Any, size: int) -> Any:
    """The communicator or process group of the first ranks; to be called by all."""
    if not hasattr(everyone, "communicator"):
        import torch.distributed as dist

        return dist.new_group(list(range(size)))
    from mpi4py import MPI as mpi

    return everyone.communicator.Split(0 if everyone.rank < size else mpi.UNDEFINED, everyone.rank)


def meet(everyone: Any) -> None:
    """Wait for all ranks, asleep."""
    if not hasattr(everyone, "communicator"):
        import torch.distributed as dist

        dist.barrier()
        return
    request = everyone.communicator.Ibarrier()
    while not request.Test():
        time.sleep(0.01)


def own(transport: Any, clients: list[Any]) -> list[Any]:
    return [clients[k] for k in share_of(transport.rank, transport.size, len(clients))]


def posteriors(transport: Any) -> dict[str, Any]:
    """Every problem of the demo under both Gaussian families, in either order of summation."""
    found: dict[str, Any] = {}
    for deterministic in (False, True):
        transport.deterministic = deterministic
        for name, family in PROBLEMS:
            problem = problem_of(name)
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
    """Quadratics, with a bad client on the last rank or a bad callback on the first."""
    clients: list[Any] = [badmm.likelihoods.Quadratic((k + 1.0) * np.eye(2), np.ones(2)) for k in range(CLIENTS)]
    clients = own(transport, clients)
    callbacks = []
    if how == "callback":

        def full(state: Any) -> None:
            raise OSError(f"no space left after round {state.round}")

        callbacks = [full] if transport.rank == 0 else []
    elif transport.rank == transport.size - 1:
        clients[0] = Bad(clients[0], how)
    prior = badmm.Gaussian(np.zeros(2), 1.0)
    arguments: dict[str, Any] = {"family": "full_gaussian", "prior": prior, "rho": 0.5, "rounds": ROUNDS, "tol": 0.0}
    result = badmm.solve(clients, transport=transport, workers=1, callbacks=callbacks, **arguments)
    return {"natural": result.natural[0]}


def attempt(transport: Any, case: str, folder: Path) -> int:
    """Run one case; return 0, or 3 for an error that is written down."""
    place = folder / f"{case}-{transport.rank}"
    try:
        found = posteriors(transport) if case == "posteriors" else bad(transport, case)
    except (badmm.checks.RankError, badmm.checks.ClientError, OSError) as error:
        place.with_suffix(".txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        return 3
    np.savez(place.with_suffix(".npz"), **found)
    return 0


def main() -> int:
    name, cases, sizes, place = sys.argv[1:]
    if cases in ("die", "sleep"):  # which ends the launch
        return attempt(engine(name, deadline=2.0 if cases == "sleep" else None), cases, Path(place))
    everyone, status = engine(name), 0
    for size in map(int, sizes.split(",")):
        folder, group = Path(place) / str(size), first(everyone, size)
        folder.mkdir(exist_ok=True)
        for case in cases.split(",") if everyone.rank < size else ():
            status = attempt(type(everyone)(group), case, folder)
        meet(everyone)
    return status


if __name__ == "__main__":
    sys.exit(main())
