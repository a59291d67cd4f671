"""A run on ranks that is resumed by another number of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from badmm.experiments.config import validate
from badmm.experiments.engines import Engine
from badmm.experiments.jobs.solver import SolverJob
from badmm.experiments.store import ranks
from badmm.experiments.store.folder import Checkpoint, RunFolder
from badmm.transports.sealed import load_tensors
from tests.badmm.transports.test_ranks import Threads, play


def config(rounds: int, participation: float) -> Any:
    return validate(
        {
            "name": "trial",
            "family": "diagonal_gaussian",
            "data": {"source": "diabetes"},
            "split": {"clients": 5, "kind": "iid"},
            "likelihood": {"kind": "linear_regression", "noise_variance": 3000.0},
            "run": {"rounds": rounds, "tol": 0.0, "participation": participation},
        }
    )


def go(size: int, root: Path, rounds: int, participation: float = 1.0) -> list[Any]:
    """Rounds up to a number of them, from the checkpoints of the ranks there were before; what each rank raised."""
    settings = config(rounds, participation)

    def act(rank: Threads) -> None:
        folder = RunFolder(ranks.folder(root, rank.rank))
        folder.path.mkdir(parents=True, exist_ok=True)
        captured: list[Callable[[], Checkpoint]] = []
        job = SolverJob(settings, Engine(rank), root)
        job.run_rounds(folder.checkpoint()[0], (), lambda record, capture: captured.append(capture))
        folder.save(captured[-1]())

    return [error for error in play(size, act, deterministic=True) if error is not None]


@pytest.mark.parametrize("participation", [1.0, 0.6])
def test_any_number_of_ranks_goes_on_with_the_same_bits(participation: float, tmp_path: Path) -> None:
    assert not go(1, tmp_path / "whole", 7, participation)
    for size, rounds in ((3, 3), (2, 5), (5, 6), (1, 7)):
        assert not go(size, tmp_path / "parts", rounds, participation)
    whole, parts = (load_tensors(tmp_path / name / "state.safetensors")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_a_rank_without_its_checkpoint_is_named(tmp_path: Path) -> None:
    go(3, tmp_path / "run", 2)
    (tmp_path / "run" / "rank-2" / "state.safetensors").unlink()
    assert str(go(1, tmp_path / "run", 4)[0]).startswith(
        "--resume: expected a checkpoint of round 2 of each of 3 ranks, got none in "
    )
