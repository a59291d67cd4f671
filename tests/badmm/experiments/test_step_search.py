"""A step size that a run finds for itself: the least loss of a first round, kept by a run that is resumed."""

import math
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from badmm.__main__ import main
from badmm.experiments import store
from badmm.rounds.step_search import GRID, START, step_size
from tests.badmm.rounds.federated_problems import SMALL


@given(st.integers(0, len(GRID) - 1), st.floats(0.1, 10))
def test_the_least_of_a_loss_with_one_valley_is_found(place: int, steepness: float) -> None:
    best = math.log(GRID[place])
    found, losses = step_size(lambda step: steepness * abs(math.log(step) - best))
    assert found == GRID[place]
    assert losses[found] == min(losses.values())
    assert len(losses) <= abs(place - START) + 3


def test_steps_that_diverge_are_left() -> None:
    found, losses = step_size(lambda step: math.nan if step > 2e-4 else step)
    assert found == GRID[0]
    assert math.isinf(losses[GRID[START]])
    with pytest.raises(ValueError, match=r"local\.lr: expected a finite loss"):
        step_size(lambda _: math.nan)


@pytest.mark.slow
def test_a_run_finds_its_step_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.toml"
    file.write_text(SMALL.replace("lr = 0.02", 'lr = "auto"\nschedule = "cosine"').replace("rounds = 6", "rounds = 4"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    only = ["--methods", "scaffold", "--set", "run.horizon=4"]
    assert main(["run", str(file), "--out", str(whole), *only]) == 0
    records = store.History(whole / "scaffold/seed-3/history.jsonl").read()
    trials = {float(step): loss for step, loss in records[0]["trials"].items()}
    chosen = records[0]["lr"]
    assert chosen in GRID and trials[chosen] == min(trials.values())
    assert all("trials" not in record for record in records[1:])
    assert records[2]["lr"] == pytest.approx(0.5 * chosen)
    assert records[0]["loss"] == trials[chosen]  # the first round is that trial again
    # trial rounds are counted in what the run cost
    assert records[0]["flops"] / (records[1]["flops"] - records[0]["flops"]) == pytest.approx(1 + len(trials))
    assert f"local.lr {chosen:.0e}" in " ".join(capsys.readouterr().out.split())
    for rounds in (2, 4):
        more = ["--resume", "--set", f"run.rounds={rounds}"]
        assert main(["run", str(file), "--out", str(parts), *only, *more]) == 0
    for name in ("history.jsonl", "posterior.safetensors"):
        assert (parts / f"scaffold/seed-3/{name}").read_bytes() == (whole / f"scaffold/seed-3/{name}").read_bytes()


def test_a_step_is_a_number_or_auto(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.toml"
    file.write_text(SMALL.replace("lr = 0.02", 'lr = "best"'))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "local.lr" in error and "best" in error
