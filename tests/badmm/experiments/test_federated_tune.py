"""Tuning: equal budgets, chosen on validation images only, the whole grid written, resumed, bad grids refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from badmm.__main__ import main
from badmm.data import images as data
from badmm.experiments import store, tune
from badmm.experiments.config import ConfigError, networks as config

SMALL = """
name = "small"
[data]
fraction = 0.1
[split]
clients = 3
[model]
name = "linear"
[local]
batch_size = 8
[run]
rounds = 9
seeds = [1]
threads = 1
[methods.fedavg]
[methods.fedprox]
rho = 0.5
[tune]
rounds = 3
seeds = [3, 4]
validation_fraction = 0.25
[tune.grid.fedavg]
local.lr = [1e-3, 1e-2, 3e-2, 1e-1]
[tune.grid.fedprox]
rho = [0.01, 1.0]
local.lr = [1e-3, 1e-1]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def grid(out: Path) -> dict[str, Any]:
    return json.loads((out / "tuning.json").read_text())


@pytest.mark.pictures
def test_the_whole_grid_is_tried_with_one_budget(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["tune", str(small), "--out", str(out)]) == 0
    found = grid(out)
    assert found["budget_in_rounds"] == {"fedavg": 4 * 3 * 2, "fedprox": 4 * 3 * 2}
    played = sum(len(store.History(path).read()) for path in out.rglob("history.jsonl"))
    assert played == sum(found["budget_in_rounds"].values())
    assert [point["settings"] for point in found["methods"]["fedprox"]["points"]] == [
        {"rho": rho, "local.lr": lr} for rho in (0.01, 1.0) for lr in (1e-3, 1e-1)
    ]
    for label, method in found["methods"].items():
        for index, point in enumerate(method["points"]):
            folders = [out / "points" / f"{label}-{index:03d}" / f"seed-{seed}" for seed in (3, 4)]
            ends = [store.History(folder / "history.jsonl").read()[-1] for folder in folders]
            assert point["scores"] == pytest.approx([100 * end["accuracy"] for end in ends])
            assert point["mean"] == pytest.approx(sum(point["scores"]) / 2)
        means = [point["mean"] for point in method["points"]]
        assert method["chosen"] == int(np.argmax(means))
        assert len(set(means)) > 1
    text = (out / "tuning.md").read_text()
    assert text.count("| chosen") == 2
    assert "4 points per method × 3 rounds × 2 seeds (3, 4)" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 * (2 + 4)
    assert (out / "effect.png").read_bytes().startswith(b"\x89PNG")
    assert "Chosen" in capsys.readouterr().out


def test_the_file_that_comes_out_holds_the_chosen_settings_and_runs(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["tune", str(small), "--out", str(out), "--quiet"]) == 0
    before, after, found = config.load(small), config.load(out / "tuned.toml"), grid(out)
    assert after.tune is None
    assert after.run == before.run and after.data == before.data and after.data.evaluate == "test"
    for label, method in found["methods"].items():
        for key, value in method["points"][method["chosen"]]["settings"].items():
            table: Any = after.methods[label]
            for name in key.split("."):
                table = getattr(table, name)
            assert table == value
    assert main(["run", str(out / "tuned.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0


def test_test_images_are_never_looked_at(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["tune", str(small), "--out", str(tmp_path / "a"), "--quiet"]) == 0
    images = data.load("digits")
    without = replace(images, test_images=images.test_images[:0], test_labels=images.test_labels[:0])
    monkeypatch.setattr(data, "load", lambda *_: without)
    assert main(["tune", str(small), "--out", str(tmp_path / "b"), "--quiet"]) == 0
    assert grid(tmp_path / "a") == grid(tmp_path / "b")


@pytest.mark.parametrize("rounds", [0, 7, 40])
def test_a_tuning_that_was_stopped_goes_on(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    assert main(["tune", str(small), "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    append, written = store.History.append, list[Any]()

    def dying(self: store.History, record: Any) -> None:
        if len(written) == rounds:
            raise KeyboardInterrupt
        written.append(record)
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(store.History, "append", dying)
        assert main(["tune", str(small), "--out", str(tmp_path / "parts"), "--quiet"]) == 130
    assert not (tmp_path / "parts" / "tuned.toml").exists()
    assert main(["tune", str(small), "--out", str(tmp_path / "parts"), "--quiet", "--resume"]) == 0
    for name in ("tuning.json", "tuning.md", "tuned.toml"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_point_that_diverges_is_reported_and_not_chosen(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = ["tune.grid.fedavg.local.lr=[1e38, 1e-2]", "tune.grid.fedprox.rho=[0.5]", "local.optimizer=sgd"]
    options = [word for change in changes for word in ("--set", change)]
    assert main(["tune", str(small), "--out", str(out), "--quiet", *options]) == 0
    first, second = grid(out)["methods"]["fedavg"]["points"]
    assert first["scores"] == [None, None] and first["mean"] is None
    assert set(first["failures"]) == {"3", "4"} and "not finite" in first["failures"]["3"]
    assert second["failures"] == {}
    assert grid(out)["methods"]["fedavg"]["chosen"] == 1
    assert "seed 3: client" in (out / "tuning.md").read_text()


def test_a_method_without_any_score_is_an_error_with_the_grid_written(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    changes = ["tune.grid.fedavg.local.lr=[1e38]", "tune.grid.fedprox.rho=[0.5]", "tune.grid.fedprox.local.lr=[0.01]"]
    options = [word for change in [*changes, "local.optimizer=sgd"] for word in ("--set", change)]
    assert main(["tune", str(small), "--out", str(out), "--quiet", *options]) == 3
    assert "tune.grid.fedavg: expected a point that ends with a finite score, got none of 1" in capsys.readouterr().err
    assert grid(out)["methods"]["fedprox"]["chosen"] == 0
    assert not (out / "tuned.toml").exists()


def test_the_best_is_the_first_of_equals_and_edges_are_named() -> None:
    table = config.method_table("fedavg", {}, config.Local())
    trials = [
        tune.Trial({"rho": rho}, table, scores) for rho, scores in ((1.0, [2.0]), (2.0, [3.0, 3.0]), (3.0, [3.0]))
    ]
    assert tune.best(trials, True) == 1
    assert tune.best(trials, False) == 0
    assert tune.best([tune.Trial({}, table, [None, 1.0])], True) is None
    assert tune.boundary_settings(trials, 0) == ["rho"]
    assert tune.boundary_settings(trials, 1) == []


def test_unequal_budgets_are_refused_unless_allowed(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tune", str(small), "--quiet", "--out", str(tmp_path / "out"), "--set", "tune.grid.fedprox.rho=[1.0]"]
    assert main(arguments) == 2
    words = "tune.grid: expected equal numbers of points (or tune.unequal = true), got fedavg 4, fedprox 2"
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--set", "tune.unequal=true"]) == 0
    assert "2 to 4 (unequal budgets) points" in (tmp_path / "out" / "tuning.md").read_text()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tune.grid.fedprox.rho=0.5", ["tune.grid.fedprox.rho", "a list of different values", "0.5"]),
        ("tune.grid.fedprox.rho=[1.0, 1.0]", ["tune.grid.fedprox.rho", "a list of different values", "[1.0, 1.0]"]),
        ("tune.grid.fedprox.rho=[-1.0, 1.0]", ["tune.grid.fedprox.rho", "at least 0", "-1.0"]),
        ("tune.grid.fedavg.rho=[1.0]", ["tune.grid.fedavg.rho", "local", "unknown key"]),
        ("tune.grid.fedavg.local.rate=[1.0]", ["tune.grid.fedavg.local.rate", "optimizer, lr", "unknown key"]),
        ("tune.grid.pvi.rho=[1.0]", ["tune.grid.pvi", "fedavg, fedprox", "unknown method"]),
        ("tune.seeds=[3, 3]", ["tune.seeds", "different integers", "[3, 3]"]),
        ("tune.validation_fraction=0", ["tune.validation_fraction", "greater than 0", "0"]),
        ("tune.score=f1", ["tune.score", "'accuracy'", "f1"]),
    ],
)
def test_errors_name_key_expectation_and_value(small: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        tune.from_file(small, [override], quiet=True)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "expected" in str(caught.value) and "got" in str(caught.value)


def test_a_file_without_grids_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(SMALL[: SMALL.index("[tune]")])
    assert main(["tune", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "tune: expected a section with a grid for every method, got none" in capsys.readouterr().err


def test_another_grid_does_not_go_on_from_this_one(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tune", str(small), "--quiet", "--out", str(tmp_path / "out"), "--set", "tune.rounds=1"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "--out: expected a folder without results (or --resume)" in capsys.readouterr().err
    assert main([*arguments, "--resume", "--set", "tune.grid.fedprox.rho=[0.02, 1.0]"]) == 2
    assert "--resume: expected methods.fedprox-000.rho as in" in capsys.readouterr().err


def test_more_rounds_than_a_decay_is_made_for_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.horizon: expected at least the 12 rounds of tune, got 10"):
        tune.from_file(small, ["run.horizon=10", "tune.rounds=12"], tmp_path / "out")


def test_what_was_chosen_can_be_run_at_once(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["tune", str(small), "--out", str(out), "--run", "--quiet"]) == 0
    tuned = config.load(out / "tuned.toml")
    for label, table in tuned.methods.items():
        ran = config.load(out / "tuned" / label / "seed-1" / "config.toml")
        assert ran.methods == {label: table}
        assert (ran.run.rounds, ran.data.evaluate) == (9, "test")
    assert (out / "tuned" / "summary.md").is_file()
