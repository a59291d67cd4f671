"""The folder of a run: used by one at a time, resumed after a kill at any moment, refused where it was changed."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from badmm.__main__ import main
from badmm.experiments.store import History, locked
from badmm.experiments.store.folder import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
name = "s"
family = "full_gaussian"
[data]
source = "d.csv"
[split]
clients = 3
kind = "iid"
[likelihood]
kind = "logistic_regression"
[run]
rounds = 5
tol = 0.0
"""


def table(path: Path, *, flip: bool = False, name: str = "a") -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    rows = [f"{a:.6f},{b:.6f},{int((a + b > 0) != flip)}" for a, b in x]
    path.write_text("\n".join([f"{name},b,y", *rows]) + "\n")


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """The arguments of a run in tmp_path / "o"."""
    table(tmp_path / "d.csv")
    (tmp_path / "c.toml").write_text(CONFIG)
    return ["run", str(tmp_path / "c.toml"), "--quiet", "--out", str(tmp_path / "o")]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder, made once."""
    folder = tmp_path_factory.mktemp("played")
    table(folder / "d.csv")
    (folder / "c.toml").write_text(CONFIG)
    assert main(["run", str(folder / "c.toml"), "--quiet", "--out", str(folder / "o")]) == 0
    return folder / "o"


@pytest.fixture
def finished(given: list[str], played: Path, tmp_path: Path) -> list[str]:
    """As `given`, with a copy of the finished run in tmp_path / "o"."""
    shutil.copytree(played, tmp_path / "o")
    return given


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "times.jsonl"}


@pytest.mark.pictures
def test_equal_runs_leave_equal_bytes(given: list[str], tmp_path: Path) -> None:
    assert main(given) == 0
    code = "import sys; from badmm.__main__ import main; sys.exit(main(sys.argv[1:]))"
    for turn in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": turn}
        arguments = [*given[:-1], str(tmp_path / turn)]
        assert subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment).returncode == 0
        assert contents(tmp_path / turn) == contents(tmp_path / "o")


def test_the_manifest_says_what_was_run(finished: list[str], tmp_path: Path) -> None:
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert (manifest["name"], manifest["method"], manifest["seed"]) == ("s", "bayes_admm", 0)
    listed = set(manifest["files"])
    assert listed == {p.name for p in (tmp_path / "o").iterdir()} - {
        ".lock",
        "manifest.json",
        "config.toml",
        "times.jsonl",
    }


MOMENTS = (1, 2, 4, 6, 8, 11, 14, 17, 20, 23, 40)
DYING = """
import json, os, sys
from badmm.__main__ import main
from matplotlib.figure import Figure
from tests.badmm.conftest import PICTURE
Figure.savefig = lambda _, buffer, **__: buffer.write(PICTURE)
def dying(function):
    def call(*arguments, **keywords):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return function(*arguments, **keywords)
    return call
first, *runs = json.loads(sys.argv[1])
assert main(first[1]) == 0  # what is imported and compiled here, the children have
os.replace, os.fsync = dying(os.replace), dying(os.fsync)
for moment, arguments in runs:
    child = os.fork()
    if child == 0:
        left = moment
        os._exit(main(arguments))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 9), moment
"""


def checkpointed(folder: Path, every: int, out: Path) -> list[str]:
    """The arguments of a run in `out`, with a checkpoint after so many rounds."""
    options = ["--quiet", "--set", f"run.checkpoint_every={every}"]
    return ["run", str(folder / "c.toml"), *options, "--out", str(out)]


@pytest.fixture(scope="module")
def killed(played: Path) -> Path:
    """A folder of runs EVERY-MOMENT, each killed at its MOMENT-th rename or sync (or ended before)."""
    folder = played.parent
    ends = [(every, moment) for every in (1, 100) for moment in MOMENTS]
    runs = [(m, checkpointed(folder, every, folder / f"{every}-{m}")) for every, m in [(1, 0), *ends, (9, 6)]]
    subprocess.run([sys.executable, "-c", DYING, json.dumps(runs)], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("every", [1, 100])
def test_a_run_killed_at_any_write_resumes_to_the_same_bytes(killed: Path, tmp_path: Path, every: int) -> None:
    assert main(checkpointed(killed, every, tmp_path / "whole")) == 0
    whole = contents(tmp_path / "whole")
    for moment in MOMENTS:
        out = killed / f"{every}-{moment}"
        assert main([*checkpointed(killed, every, out), "--resume"]) == 0
        assert contents(out) == whole, moment


def test_a_killed_run_that_has_no_checkpoint_is_refused_without_resume(
    killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = killed / "9-6"
    assert out.is_dir() and not (out / "state.safetensors").exists()
    assert main(checkpointed(killed, 9, out)) == 2
    assert "--out: expected a folder without results (or --resume)" in capsys.readouterr().err
    assert main([*checkpointed(killed, 9, out), "--resume"]) == 0


def test_the_second_of_two_runs_is_told(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / "o"):
        assert main(given) == 2
    assert "--out: expected a folder that no other run uses, got" in capsys.readouterr().err
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(main(given))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0, 2]
    assert [r["round"] for r in History(tmp_path / "o" / "history.jsonl").read()] == [1, 2, 3, 4, 5]


def flip(path: Path, place: int = 70) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "name",
    ["state.safetensors", "history.jsonl", "posterior.safetensors", "summary.json", "manifest.json", "history.png"],
)
@pytest.mark.parametrize(
    "damage", [flip, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\0" * 99)]
)
def test_damaged_files_are_named(
    finished: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage
) -> None:
    damage(tmp_path / "o" / name)
    before = contents(tmp_path / "o")
    assert main([*finished, "--resume", "--set", "run.rounds=7"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "o") in error and len(error.splitlines()) == 1, error
    assert "manifest.json" in error if name == "manifest.json" else name in error, error
    assert contents(tmp_path / "o") == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: table(folder / "d.csv", flip=True), "--resume: expected the data of"),
        (lambda folder: table(folder / "d.csv", name="c"), "--resume: expected the data of"),
        (lambda folder: (folder / "d.csv").write_text((folder / "d.csv").read_text() + "1,1,1\n"), "expected the data"),
        (lambda folder: (folder / "c.toml").write_text(CONFIG + "seed = 3\n"), "--resume: expected run.seed as in"),
        (lambda folder: (folder / "c.toml").write_text(CONFIG + "[method]\nrho = 0.5\n"), "expected method.rho as in"),
        (
            lambda folder: (folder / "c.toml").write_text(CONFIG.replace("5\ntol", "3\ntol")),
            "run.rounds of at least 5",
        ),
        (
            lambda folder: (folder / "o" / "config.toml").write_text(CONFIG + "seed = 3\n"),
            "config.toml: expected the conf",
        ),
        (lambda folder: (folder / "o" / "manifest.json").unlink(), "expected a folder without results, got"),
    ],
)
def test_resuming_something_else_is_refused_by_name(
    finished: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], change, words: str
) -> None:
    change(tmp_path)
    assert main([*finished, "--resume"]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1, error


def test_data_may_move(finished: list[str], tmp_path: Path) -> None:
    (tmp_path / "d.csv").rename(tmp_path / "moved.csv")
    assert main([*finished, "--resume", "--set", "data.source=moved.csv", "--set", "run.rounds=6"]) == 0
    assert RunFolder(tmp_path / "o").check_files().files


@pytest.mark.parametrize("name", ["[b]bold[/b]", "a[/b]", ":smile:", "with space", "ü"])
def test_a_folder_of_any_name(given: list[str], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([given[0], given[1], "--out", str(tmp_path / name)]) == 0
    assert name in capsys.readouterr().out.replace("\n", "")


def test_a_run_that_does_not_converge_says_so(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for word in given if word != "--quiet"]
    assert main([*given, "--set", "run.tol=1e-12", "--set", "run.rounds=1"]) == 3
    printed = capsys.readouterr()
    assert "NOT CONVERGED after 1 rounds" in printed.out
    assert printed.err.startswith("error: not converged after 1 rounds: expected a gap of at most run.tol ")
    assert main([*given, "--set", "run.tol=1e-8", "--set", "run.rounds=100", "--resume"]) == 0
