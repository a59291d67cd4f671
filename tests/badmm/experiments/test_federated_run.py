"""Federated runs from a file: what they leave, that killed ones end the same, clients that fail."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from badmm.__main__ import main
from badmm.clients.federation import ClientData
from badmm.experiments import metrics, store
from badmm.experiments.config import networks as config
from badmm.experiments.posterior import load_posterior
from badmm.methods import NETWORKS
from badmm.rounds import loop, network_round as rounds
from badmm.rounds.network_method import NetworkMethod, State
from tests.badmm.rounds.federated_problems import DIM, SMALL, federation, idx_bytes, one_round, with_data

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.pictures
def test_a_run_leaves_whole_results(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["run", str(small), "--out", str(out), "--seeds", "3,4"]) == 0
    assert "small: 6 rounds, scored on the test images; seeds 3, 4" in capsys.readouterr().out
    names = [".lock", "curves.png", "pvi", "reliability.png", "scaffold", "summary.json", "summary.md"]
    assert sorted(path.name for path in out.iterdir()) == names
    for label in ("scaffold", "pvi"):
        for seed in (3, 4):
            folder = out / label / f"seed-{seed}"
            names = [".lock", "config.toml", "history.jsonl", "manifest.json", "posterior.safetensors"]
            names += ["state.safetensors", "summary.json", "times.jsonl"]
            assert sorted(path.name for path in folder.iterdir()) == names
            records = store.History(folder / "history.jsonl").read()
            assert [record["round"] for record in records] == [1, 2, 3, 4, 5, 6]
            assert label == "pvi" or records[-1]["loss"] < records[0]["loss"]
            assert (records[0]["averaged"] is None) == (label == "scaffold")
            size = 64 * 6 + 6 + 6 * 10 + 10
            assert records[-1]["bytes_up"] == records[-1]["bytes_down"] == 6 * 4 * 2 * size * 4
            # 2 epochs, for SCAFFOLD a pass over all points more
            passes = 3 if label == "scaffold" else 2
            assert records[-1]["flops"] == 6 * passes * 144 * 2 * (2 * 64 * 6 + 3 * 6 * 10)
            assert records[-1]["used"] == 4
            assert config.load(folder / "config.toml").run.seeds == [seed]
    summaries = json.loads((out / "summary.json").read_text())
    assert [(entry["label"], entry["seed"]) for entry in summaries] == [
        ("scaffold", 3),
        ("pvi", 3),
        ("scaffold", 4),
        ("pvi", 4),
    ]
    posterior = load_posterior(out / "pvi" / "seed-3")
    assert {name: tuple(value.shape) for name, value in posterior.precision.items()} == {
        "layers.0.weight": (6, 64),
        "layers.0.bias": (6,),
        "layers.1.weight": (10, 6),
        "layers.1.bias": (10,),
    }
    assert all((value > 0).all() for value in posterior.precision.values())
    for entry in summaries:
        # the bins are those of the predictions that the last round's scores are of
        ways = [("mean", entry["ece"])] + ([("averaged", entry["averaged"]["ece"])] if entry["averaged"] else [])
        for way, error in ways:
            bins = {name: np.array(column) for name, column in entry["reliability"][way].items()}
            gaps = np.abs(bins["accuracy"] - bins["confidence"])
            assert gaps @ bins["share"] == pytest.approx(error, rel=1e-10)
            assert np.array_equal(bins["bin"], np.minimum((bins["confidence"] * 15).astype(int), 14))
        assert (entry["reliability"]["averaged"] is None) == (entry["label"] == "scaffold")


def test_runs_killed_at_random_moments_end_the_same(small: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.badmm.experiments.kill_federated",
        str(small),
        str(tmp_path / "kills"),
        "8",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["same"] * 8, done.stdout
    # some were killed before the first round, some in the middle of the first method, some in the second
    played = {int(line.split()[1]) for line in lines}
    assert len(played) >= 4, done.stdout


def test_a_finished_run_can_be_taken_further(small: Path, tmp_path: Path) -> None:
    arguments = ["run", str(small), "--quiet", "--out"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert main([*arguments, str(tmp_path / "parts"), "--set", "run.rounds=2"]) == 0
    assert main([*arguments, str(tmp_path / "parts"), "--resume"]) == 0
    for name in ("scaffold/seed-3/state.safetensors", "pvi/seed-3/state.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_results_do_not_depend_on_how_clients_are_stacked(small: Path, tmp_path: Path) -> None:
    ends = []
    for stack in (1, 3, 4):
        out = tmp_path / str(stack)
        assert main(["run", str(small), "--quiet", "--out", str(out), "--set", f"run.stack={stack}"]) == 0
        mean = load_posterior(out / "scaffold" / "seed-3").mean
        ends.append(np.concatenate([value.numpy().ravel() for value in mean.values()]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=2e-4)
    np.testing.assert_allclose(ends[2], ends[0], rtol=0, atol=2e-4)


class Faulty(ClientData):
    """Data of which the rows of one client cannot be read."""

    bad: int = 2

    def points(
        self, index: torch.Tensor, dtype: torch.dtype, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.isin(index, self.rows[self.bad]).any():
            raise OSError("the disk is gone")
        return super().points(index, dtype, out)


def test_workers_leave_out_who_fails_and_give_the_threads_back() -> None:
    fed = with_data(federation("squares", epochs=2, lr=0.1), Faulty)
    before = torch.get_num_threads()
    state, outcome = one_round(NETWORKS["fedavg"](), fed, largest=2, workers=2)
    alone, other = one_round(NETWORKS["fedavg"](), fed, largest=2)
    assert list(outcome.excluded) == [Faulty.bad] and outcome.excluded == other.excluded
    assert outcome.used == other.used and torch.equal(state.server["mean"], alone.server["mean"])
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="workers: expected a positive integer, got 0"):
        one_round(NETWORKS["fedavg"](), fed, workers=0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_client_that_fails_is_left_out(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The round ends as if the client had not been asked; it keeps its rows."""
    method = NETWORKS[name]()
    fed = federation("squares", epochs=2, lr=0.1)
    inputs = fed.data.inputs.clone()
    inputs[fed.data.rows[2][1]] = float("nan")
    broken = with_data(fed, Faulty) if fault == "raises" else with_data(fed, ClientData, inputs)
    start = method.start(broken, torch.full((DIM,), 0.1, dtype=torch.float64))
    state, outcome = one_round(method, broken)
    assert list(outcome.excluded) == [2]
    reason = outcome.excluded[2]
    assert "OSError: the disk is gone" in reason if fault == "raises" else "finite" in reason or "nan" in reason
    assert outcome.used == [0, 1, 3]
    for key, tensor in state.clients.items():
        assert torch.equal(tensor[2], start.clients[key][2])
    monkeypatch.setattr(loop, "participants", lambda *_: [0, 1, 3])
    without, _ = one_round(method, fed)
    for key, tensor in state.server.items():
        torch.testing.assert_close(tensor, without.server[key], rtol=1e-10, atol=1e-12)


def test_a_precision_that_is_not_positive_is_left_out() -> None:
    fed = federation("squares", epochs=1, lr=1e-4)
    method = NETWORKS["fedlap_cov"]()
    state = method.start(fed, torch.zeros(DIM, dtype=torch.float64))
    state.clients["dual_precision"][1] = -100.0
    outcome = rounds.play(method, fed, state, lr=1e-4)
    assert list(outcome.excluded) == [1]
    assert "precision" in outcome.excluded[1] and "positive" in outcome.excluded[1]


def test_failures_are_counted_and_reported(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from badmm.experiments.problems import networks as problem

    monkeypatch.setattr(problem, "ClientData", Faulty)
    out = tmp_path / "out"
    assert main(["run", str(small), "--out", str(out), "--set", "run.rounds=2"]) == 0
    records = store.History(out / "pvi" / "seed-3" / "history.jsonl").read()
    assert [record["excluded"] for record in records] == [{"2": "raised OSError: the disk is gone"}] * 2
    assert records[0]["used"] == 3
    assert json.loads((out / "pvi" / "seed-3" / "summary.json").read_text())["excluded"] == 2
    printed = capsys.readouterr().out
    assert "pvi, seed 3, round 2: client 2 left out: raised OSError: the disk is gone" in printed


def test_what_is_written_reads_back(small: Path, tmp_path: Path) -> None:
    first = config.load(small, ["methods.scaffold.server_step=0.5", "local.clip=10.0"])
    (tmp_path / "again.toml").write_text(first.dump())
    assert config.load(tmp_path / "again.toml") == first
    assert first.methods["pvi"].local.clip == 10.0
    assert first.methods["pvi"].local.lr == 0.05
    assert first.methods["scaffold"].model_dump(exclude_none=True) == {
        "method": "scaffold",
        "control": "gradient",
        "server_step": 0.5,
        "local": {**first.local.model_dump(), "clip": 10.0},
    }


def test_image_files_are_played_from_a_root(small: Path, tmp_path: Path) -> None:
    """Files in the standard format, synthetic: the class is where the bright pixel is."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 200), ("t10k", 50)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.zeros((count, 4, 4), np.uint8)
        images.reshape(count, 16)[np.arange(count), labels] = 255
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            (raw / f"{stem}-{name}-ubyte").write_bytes(idx_bytes(array))
    small.write_text(SMALL.replace('name = "mlp"\nhidden = [6]', 'name = "linear"'))
    changes = ["data.source=mnist", "data.fraction=1.0", "split.kind=shards", "split.clients=10"]
    changes += ["split.points=20", "run.rounds=15", "local.lr=0.1"]
    options = [word for change in changes for word in ("--set", change)]
    out = tmp_path / "out"
    assert main(["run", str(small), "--quiet", "--out", str(out), "--data-root", str(tmp_path), *options]) == 0
    summary = json.loads((out / "scaffold" / "seed-3" / "summary.json").read_text())
    assert summary["accuracy"] == summary["worst_client"] == 1.0


def test_validation_scores_never_see_the_test_images(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from badmm.data import images as data
    from badmm.experiments.problems import networks as problem

    images = data.load("digits")
    table: list[Any] = ["data.evaluate=validation", "data.validation_fraction=0.25", "data.fraction=1.0"]
    experiment = problem.build(config.load(small, table), "scaffold", 3, images)
    assert isinstance(experiment.held_out, metrics.HeldOut)
    assert len(experiment.held_out.labels) == round(len(images.train_labels) * 0.25)
    assert sum(experiment.federation.counts) == len(images.train_labels) - len(experiment.held_out.labels)
    held = {row.tobytes() for row in experiment.held_out.inputs.numpy()}
    assert not held & {row.tobytes() for row in images.test_images}


def test_methods_share_split_and_start_for_a_seed(small: Path) -> None:
    from badmm.experiments.problems import networks as problem

    loaded = config.load(small)
    first, second = (problem.build(loaded, label, 3) for label in loaded.methods)
    for a, b in zip(first.federation.data.rows, second.federation.data.rows, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.federation.stack.initial(), second.federation.stack.initial())
    other = problem.build(loaded, "pvi", 4)
    assert not torch.equal(first.federation.stack.initial(), other.federation.stack.initial())


def test_event_files_need_their_package(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    out = tmp_path / "out"
    assert main(["run", str(small), "--out", str(out), "--set", "run.tensorboard=true"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: run.tensorboard: expected the package tensorboard (pip install")
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_event_files_hold_what_the_history_holds(small: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing import event_accumulator as reader

    from badmm.experiments import events

    arguments = ["run", str(small), "--quiet", "--out", str(tmp_path / "out"), "--set", "run.tensorboard=true"]
    assert main([*arguments, "--set", "run.rounds=2"]) == 0
    assert main([*arguments, "--resume"]) == 0
    folder = tmp_path / "out" / "pvi" / "seed-3"
    found = reader.EventAccumulator(str(folder / "tensorboard")).Reload()
    records = store.History(folder / "history.jsonl").read()
    for tag in events.scalars(records[0]):
        series = {event.step: event.value for event in found.Scalars(tag)}
        expected = {record["round"]: events.scalars(record)[tag] for record in records}
        assert series == pytest.approx(expected, rel=1e-6), tag


def test_some_methods_only(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["run", str(small), "--out", str(out), "--methods", "pvi", "--set", "run.rounds=1", "--quiet"]) == 0
    assert (out / "pvi").is_dir() and not (out / "scaffold").exists()
    assert main(["run", str(small), "--out", str(out), "--methods", "fedavg"]) == 2
    assert "--methods: expected some of scaffold, pvi, got 'fedavg'" in capsys.readouterr().err


def test_a_run_whose_state_lacks_a_tensor_of_the_method_is_refused(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that another version of the package began."""
    arguments = ["run", str(small), "--quiet", "--out", str(tmp_path / "out"), "--methods", "scaffold", "--set"]
    start = NETWORKS["scaffold"].start
    assert main([*arguments, "run.rounds=1"]) == 0

    def with_another(method: NetworkMethod, *given: Any) -> State:
        state = start(method, *given)
        state.server["scale"] = torch.ones(1)
        return state

    monkeypatch.setattr(NETWORKS["scaffold"], "start", with_another)
    assert main([*arguments, "run.rounds=2", "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: --resume: expected a checkpoint of scaffold with the tensor 'scale', got one without"
    )
    assert len(error.splitlines()) == 1


def test_a_decay_may_be_made_for_more_rounds(small: Path, tmp_path: Path) -> None:
    """The first rounds of a longer run: same bits, and it can be taken further."""
    text = small.read_text().replace("lr = 0.02\n", 'lr = 0.02\nschedule = "cosine"\n', 1)
    ends = []
    for name, settings in {"long": "rounds = 2", "short": "rounds = 1\nhorizon = 2"}.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(text.replace("rounds = 6", settings))
        assert main(["run", str(path), "--out", str(tmp_path / name), "--methods", "scaffold", "--quiet"]) == 0
    more = ["--resume", "--set", "run.rounds=2", "--methods", "scaffold", "--quiet"]
    assert main(["run", str(tmp_path / "short.toml"), "--out", str(tmp_path / "short"), *more]) == 0
    for name in ("long", "short"):
        ends.append(load_file(tmp_path / name / "scaffold" / "seed-3" / "posterior.safetensors"))
    assert all(np.array_equal(ends[0][key], ends[1][key]) for key in ends[0])
