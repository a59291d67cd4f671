"""A federated run that cannot start or cannot go on: what is said, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from badmm.__main__ import main
from badmm.checks import ClientError, ServerDomainError
from badmm.clients.federation import ClientData
from badmm.experiments.config import ConfigError, networks as config
from badmm.methods import NETWORKS
from tests.badmm.rounds.federated_problems import DIM, SIZES, SMALL, federation, one_round, with_data


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_a_run_is_not_resumed_with_fewer_rounds_than_it_has_played(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(small), "--quiet", "--out", str(tmp_path / "out"), "--set"]
    assert main([*arguments, "run.rounds=2"]) == 0
    assert main([*arguments, "run.rounds=1", "--seeds", "3,4", "--resume"]) == 2
    assert "--resume: expected run.rounds of at least 2, which" in capsys.readouterr().err
    assert not (tmp_path / "out" / "pvi" / "seed-4").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([], "--out: expected a folder without results (or --resume)"),
        (["--resume", "--set", "methods.pvi.damping=0.2"], "expected methods.pvi.damping as in"),
        (["--resume", "--set", "local.schedule=cosine"], "expected local.schedule as in"),
        (["--resume", "--set", "split.clients=5"], "expected split.clients as in"),
    ],
)
def test_results_are_kept_from_other_settings(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    arguments = ["run", str(small), "--quiet", "--set", "run.rounds=1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert main([*arguments, *extra]) == 2
    assert words in capsys.readouterr().err


def test_a_schedule_that_depends_on_the_rounds_cannot_be_taken_further(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(small), "--quiet", "--set", "local.schedule=cosine", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--set", "run.rounds=1"]) == 0
    assert main([*arguments, "--resume"]) == 2
    assert "--resume: expected run.rounds as in" in capsys.readouterr().err


def test_a_round_without_any_client_is_an_error() -> None:
    inputs = torch.full((sum(SIZES), DIM), float("nan"), dtype=torch.float64)
    broken = with_data(federation("squares", epochs=1), ClientData, inputs)
    with pytest.raises(ClientError, match=r"client 0: no client could be used in round 1; this one: .*finite"):
        one_round(NETWORKS["fedavg"](), broken)


def test_a_run_that_cannot_go_on_does_not_end_the_others(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "out", ["--quiet", "--seeds", "3,4", "--set", "run.rounds=2"]
    diverging = ["--set", "local.optimizer=sgd", "--set", "methods.scaffold.local.lr=1e38"]
    assert main(["run", str(small), "--out", str(out), *options, *diverging]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: 2 of 4 runs failed; scaffold, seed 3: client ")
    assert len(error.splitlines()) == 1
    found = json.loads((out / "summary.json").read_text())
    assert [(entry["label"], "failure" in entry) for entry in found] == [("scaffold", True), ("pvi", False)] * 2
    assert "## Could not go on" in (out / "summary.md").read_text()
    assert (out / "curves.png").exists() and (out / "reliability.png").exists()
    assert main(["run", str(small), "--out", str(out), *options, *diverging, "--resume"]) == 3


def test_a_run_of_which_nothing_is_left_says_so(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--set", "local.optimizer=sgd", "--set", "methods.scaffold.local.lr=1e38", "--methods", "scaffold"]
    assert main(["run", str(small), "--out", str(tmp_path / "out"), "--quiet", *options]) == 3
    assert "error: 1 of 1 runs failed; scaffold, seed 3" in capsys.readouterr().err


def test_a_server_update_that_the_kernels_refuse_ends_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("natural: expected finite, got inf at index 3")

    monkeypatch.setattr(NETWORKS["fedavg"], "server", refuse)
    with pytest.raises(ServerDomainError, match=r"no server update in round 1: natural: expected finite, got inf"):
        one_round(NETWORKS["fedavg"](), federation("squares", epochs=1))


def test_a_method_may_do_without_the_shared_clip(small: Path) -> None:
    found = config.load(small, ["local.clip=10.0", "methods.pvi.local.clip=inf"]).methods
    assert found["scaffold"].local.clip == 10.0
    assert found["pvi"].local.clip is None


def test_a_device_that_is_not_there_is_told_before_anything_is_written(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["run", str(small), "--out", str(tmp_path / "out"), "--set", "run.device=cuda:1"]) == 2
    assert (
        "error: run.device: expected a device that torch can use here (0 GPUs), got 'cuda:1'" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_method_without_kernels_for_the_device_is_told_before_anything_is_written(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from badmm.methods import admm

    def none(family: str, device: torch.device) -> None:
        raise RuntimeError("device: expected CuPy")

    monkeypatch.setattr(admm, "kernels", none)
    assert main(["run", str(small), "--out", str(tmp_path / "out")]) == 2
    assert "error: methods.pvi: device: expected CuPy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("methods.pvi.rho=1.0", ["methods.pvi.rho", "precision, damping", "unknown key"]),
        ("methods.pvi.damping=2.0", ["methods.pvi.damping", "(0, 1]", "2.0"]),
        ('methods.pvi.damping="x"', ["methods.pvi.damping", "number", "'x'"]),
        ("methods.pvi.samples=1.5", ["methods.pvi.samples", "integer", "1.5"]),
        ("methods.pvi.local.lr=-1", ["methods.pvi.local.lr", "positive number", "-1"]),
        ("methods.pvi.local.rate=1", ["methods.pvi.local.rate", "optimizer, lr", "unknown key"]),
        ("methods.magic.rho=1", ["methods.magic.method", "fedavg, fedprox", "'magic'"]),
        ("methods.again.method=sgd", ["methods.again.method", "fedavg", "'sgd'"]),
        ("split.kind=label", ["split.kind", "'iid', 'dirichlet', 'shards' or 'file'", "label"]),
        ("data.evaluate=validation", ["data.validation_fraction", "more than 0", "0"]),
        ("report.reference=fedavg", ["report.reference", "scaffold, pvi", "'fedavg'"]),
        ("report.rounds=[0]", ["report.rounds", "at least 1", "[0]"]),
        ("run.seeds=[1, 1]", ["run.seeds", "different integers", "[1, 1]"]),
        ("methods.pvi.local.weight_decay=1e-3", ["methods.pvi.local.weight_decay", "0, as the method has", "0.001"]),
        ("methods.ivon_admm.local.clip=1.0", ["methods.ivon_admm.local.clip", "none", "1.0"]),
        ('methods.scaffold.control="steps"', ["methods.scaffold.control", "sgd", "steps"]),
        ("run.device=gpu", ["run.device", '"cuda:N"', "'gpu'"]),
        ("run.participation=0", ["run.participation", "greater than 0", "0"]),
        ("model.name=vgg", ["model.name", "'mlp'", "vgg"]),
        ("family=gamma", ["family", "name, data, split", "unknown key"]),
    ],
)
def test_errors_name_key_expectation_and_value(small: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(small, [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "expected" in str(caught.value) and "got" in str(caught.value)


def test_a_missing_root_ends_with_one_line(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(small), "--set", "data.source=mnist", "--out", str(tmp_path / "out")]
    root = tmp_path / 'o\'brien "é"'
    root.mkdir()
    assert main([*arguments, "--data-root", str(root)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data.root: expected a file train-images-idx3-ubyte")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
