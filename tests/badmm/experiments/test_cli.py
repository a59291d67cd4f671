"""`python -m badmm run`: what it leaves behind, and that a run that was killed ends where an unbroken one does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from badmm.__main__ import main
from badmm.experiments import config, run, store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
LOGISTIC = """
name = "small"
family = "{family}"
[data]
source = "breast_cancer"
components = 5
test_fraction = 0.2
[split]
clients = 4
[likelihood]
kind = "logistic_regression"
[run]
rounds = 12
tol = 0.0
"""
GAMMA = ROOT / "configs" / "horse_kicks.toml"


@pytest.fixture
def logistic(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(LOGISTIC.replace("{family}", "full_gaussian"))
    return path


def posterior_bytes(folder: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(folder / "posterior.safetensors").items()}


def without_times(folder: Path) -> list[dict[str, object]]:
    records = store.History(folder / "history.jsonl").read()
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


@pytest.mark.pictures
def test_a_run_leaves_whole_results(logistic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["run", str(logistic), "--out", str(out), "--set", "run.tol=1e-6"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            ".lock",
            "config.toml",
            "history.jsonl",
            "history.png",
            "manifest.json",
            "posterior.png",
            "posterior.safetensors",
            "state.safetensors",
            "summary.json",
            "times.jsonl",
        ]
    )
    summary = json.loads((out / "summary.json").read_text())
    records = store.History(out / "history.jsonl").read()
    assert summary["converged"]
    assert summary["scores"]["averaged"]["accuracy"] > 0.9
    assert [record["round"] for record in records] == list(range(1, summary["rounds"] + 1))
    assert records[-1]["gap"] <= 1e-6 < records[0]["gap"]
    assert records[-1]["objective"] < records[0]["objective"]
    tensors = load_file(out / "posterior.safetensors")
    assert tensors["mean"].shape == (6,)
    assert np.all(np.linalg.eigvalsh(tensors["precision"]) > 0)
    for picture in ("history.png", "posterior.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert config.read(out / "config.toml")["run"]["tol"] == 1e-6
    assert "written to" in capsys.readouterr().out


def test_gamma_rates_are_the_conjugate_answer(tmp_path: Path) -> None:
    assert main(["run", str(GAMMA), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    tensors = load_file(tmp_path / "out" / "posterior.safetensors")
    # 196 deaths in 14 corps over 20 years, and the prior's one and one
    assert tensors["shape"] == pytest.approx([197.0], rel=1e-12)
    assert tensors["rate"] == pytest.approx([281.0], rel=1e-12)


def few_images(source: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have about `count` training images and 20 test images, enough to see that a configuration fits the code; skips
    where there are no files."""
    from badmm.data import images as data

    try:
        whole = data.load(source)
    except ValueError as error:
        pytest.skip(f"the files of {source} are not at hand: {error}")
    train = slice(None, None, len(whole.train_labels) // count)
    test = slice(None, None, len(whole.test_labels) // 20)
    few = replace(
        whole,
        train_images=whole.train_images[train],
        train_labels=whole.train_labels[train],
        test_images=whole.test_images[test],
        test_labels=whole.test_labels[test],
    )
    monkeypatch.setattr(data, "load", lambda *_: few)


@pytest.mark.parametrize("example", sorted(path.stem for path in (ROOT / "configs").glob("*.toml")))
def test_examples_run(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "configs" / f"{example}.toml"
    table = config.read(path)
    changes = ["run.rounds=2", "run.tol=0.0"]
    if "model" in table:
        few_images(table.get("data", {}).get("source", "digits"), 4 * table["split"]["clients"], monkeypatch)
        changes = ["run.rounds=1", "run.seeds=[62]", "run.threads=1"]
        changes += ["split.minimum=1"] * (table["split"]["kind"] == "dirichlet")
        changes += [f"methods.{label}.local.epochs=1" for label in table["methods"]]
    overrides = [word for change in changes for word in ("--set", change)]
    assert main(["run", str(path), "--out", str(tmp_path / "out"), "--quiet", *overrides]) == 0
    histories = [store.History(found).read() for found in (tmp_path / "out").rglob("history.jsonl")]
    assert histories and all(0 < len(history) <= 2 for history in histories)


@pytest.mark.parametrize("example", sorted(path.stem for path in (ROOT / "configs").glob("*.toml")))
def test_examples_are_valid_without_their_data(example: str) -> None:
    path = ROOT / "configs" / f"{example}.toml"
    if "model" not in config.read(path):
        assert config.load(path).name
        return
    from badmm.experiments import tune
    from badmm.experiments.config.networks import NetworkConfig

    loaded = config.load(path)
    assert isinstance(loaded, NetworkConfig)
    if loaded.tune is not None:
        assert len({len(points) for points in tune.grids(loaded, loaded.tune).values()}) == 1
    assert [table.make().name for table in loaded.methods.values()] == [t.method for t in loaded.methods.values()]
    assert loaded.data.root is None and loaded.data.evaluate == "test"


KILLED = """
import json, os, sys
from badmm.experiments import store
from badmm.__main__ import main
first, *runs = json.loads(sys.argv[1])
assert main(first) == 0  # what is imported and compiled here, the children have
written = 0
append = store.History.append
def dying(self, record):
    global written
    written += 1
    if written == 6:
        with self.path.open("ab") as stream:
            stream.write(b'{"round": ' + str(record["round"]).encode() + b', "ga')  # torn in the middle of a line
        os._exit(9)
    append(self, record)
store.History.append = dying
for arguments in runs:
    child = os.fork()
    if child == 0:
        os._exit(main(arguments))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
"""
EVERY, STRUCTURES = (1, 3), ("full_gaussian", "diagonal_gaussian")


def checkpointed(folder: Path, family: str, every: int, out: str) -> list[str]:
    """The arguments of a run of a family in FOLDER/OUT, with a checkpoint after so many rounds."""
    path = folder / f"{family}.toml"
    path.write_text(LOGISTIC.replace("{family}", family))
    return ["run", str(path), "--quiet", "--set", f"run.checkpoint_every={every}", "--out", str(folder / out)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs FAMILY-EVERY, each killed while it wrote the sixth line of its history."""
    folder = tmp_path_factory.mktemp("killed")
    runs = [checkpointed(folder, family, every, f"{family}-{every}") for family in STRUCTURES for every in EVERY]
    first = [*checkpointed(folder, STRUCTURES[0], 1, "first"), "--set", "run.rounds=2"]
    subprocess.run([sys.executable, "-c", KILLED, json.dumps([first, *runs])], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("family", STRUCTURES)
@pytest.mark.parametrize("every", EVERY)
def test_a_killed_run_resumes_bit_for_bit(killed: Path, family: str, every: int) -> None:
    whole, broken = (checkpointed(killed, family, every, f"{family}-{every}{kind}") for kind in ("-whole", ""))
    assert main(whole) == 0
    assert not (Path(broken[-1]) / "posterior.safetensors").exists()
    assert main([*broken, "--resume"]) == 0
    assert posterior_bytes(Path(broken[-1])) == posterior_bytes(Path(whole[-1]))
    assert without_times(Path(broken[-1])) == without_times(Path(whole[-1]))


def test_a_finished_run_can_be_taken_further(logistic: Path, tmp_path: Path) -> None:
    arguments = ["run", str(logistic), "--quiet", "--out"]
    main([*arguments, str(tmp_path / "whole")])
    main([*arguments, str(tmp_path / "parts"), "--set", "run.rounds=5"])
    main([*arguments, str(tmp_path / "parts"), "--resume"])
    assert posterior_bytes(tmp_path / "parts") == posterior_bytes(tmp_path / "whole")


def test_results_are_not_overwritten(logistic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(logistic), "--quiet", "--set", "run.rounds=1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    before = posterior_bytes(tmp_path / "out")
    assert main(arguments) == 2
    assert "--out: expected a folder without results (or --resume), got" in capsys.readouterr().err
    assert posterior_bytes(tmp_path / "out") == before


def test_resuming_another_problem_is_refused(
    logistic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(logistic), "--quiet", "--set", "run.rounds=1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert main([*arguments, "--resume", "--set", "prior.precision=2.0"]) == 2
    assert "expected prior.precision as in" in capsys.readouterr().err


def test_the_default_folder_is_named_after_the_run(
    logistic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run.from_file(logistic, ["run.rounds=1"], quiet=True)
    assert (tmp_path / "runs" / "small" / "summary.json").is_file()
