"""`badmm run --transport`: a configuration gives on ranks and at sites what it gives in one process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from badmm.__main__ import main
from badmm.transports.sealed import load_tensors
from tests.badmm.transports.test_engines import ENGINES, ROOT, environment, launcher

NETWORKS = ROOT / "configs" / "digits_federated.toml"
FEW = [
    "--methods",
    "ivon_admm,fedavg",
    "--seeds",
    "62",
    "--set",
    "run.rounds=2",
    "--set",
    "local.epochs=1",
    "--set",
    'run.dtype="float64"',
    "--quiet",
]
SITES = ("north", "south", "east")
CONFIG = """
name = "trial"
family = "full_gaussian"
[data]
source = "{source}"
target = "ill"
standardize = false
[split]
{split}
[likelihood]
kind = "logistic_regression"
"""


def posterior(folder: Path) -> dict[str, np.ndarray]:
    return load_tensors(folder / "posterior.safetensors")[0]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a federation of networks in this process."""
    folder = tmp_path_factory.mktemp("local")
    assert main(["run", str(NETWORKS), *FEW, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.engines
@pytest.mark.parametrize("engine", ENGINES)
def test_a_federation_of_networks_on_two_ranks_is_the_local_one(engine: str, local: Path, tmp_path: Path) -> None:
    command = [*launcher(engine, 2), "-m", "badmm", "run", str(NETWORKS), *FEW, "--transport", engine]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "ranks")], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for method in ("ivon_admm", "fedavg"):
        place = f"{method}/seed-62"
        expected = posterior(local / place)
        for folder in (tmp_path / "ranks", tmp_path / "ranks" / "rank-1"):
            for name, found in posterior(folder / place).items():
                assert np.abs(found - expected[name]).max() <= 1e-10 * np.abs(expected[name]).max(), (method, name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of each site, all of them as one with a column of sites, and what a server needs: the columns."""
    rng, together = np.random.default_rng(0), ["age,dose,ill,site"]
    for place, name in enumerate(SITES):
        X = rng.normal(size=(40, 2))
        y = (rng.random(40) < 1 / (1 + np.exp(-(X @ [1.0, -0.5] + 0.2)))).astype(int)
        lines = [f"{a!r},{b!r},{c}" for (a, b), c in zip(X.tolist(), y, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,dose,ill", *lines]) + "\n", encoding="utf-8")
        together += [f"{line},{place}-{name}" for line in lines]
    (tmp_path / "all.csv").write_text("\n".join(together) + "\n", encoding="utf-8")
    (tmp_path / "server.csv").write_text("age,dose,ill\n0.0,0.0,0\n1.0,1.0,1\n", encoding="utf-8")
    for name in (*SITES, "server"):
        text = CONFIG.format(source=f"{name}.csv", split='kind = "iid"\nclients = 1')
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    text = CONFIG.format(source="all.csv", split='kind = "column"\ncolumn = "site"')
    (tmp_path / "all.toml").write_text(text, encoding="utf-8")
    return tmp_path


def party(folder: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    """Start the server, or a site on its own configuration and data."""
    command = [sys.executable, "-m", "badmm", "run", str(folder / f"{name}.toml"), "--transport", "files"]
    command += ["--share", str(folder / "share"), "--as", name, "--quiet", "--out", str(folder / "out" / name)]
    command += ["--sites", ",".join(SITES)] if name == "server" else ["--memory", str(folder / f"memory-{name}")]
    return subprocess.Popen([*command, *more], env=environment(), cwd=folder)


def until(path: Path) -> None:
    began = time.monotonic()
    while not path.exists():
        assert time.monotonic() - began < 120, path
        time.sleep(0.02)


@pytest.mark.engines
def test_a_killed_server_and_killed_sites_change_no_bit(data: Path) -> None:
    assert main(["run", str(data / "all.toml"), "--out", str(data / "pooled"), "--quiet"]) == 0
    running = {name: party(data, name) for name in (*SITES, "server")}
    for message, victims in ((4, ("server", "south")), (9, ("north",))):
        until(data / "share" / "down" / f"{message:06d}.safetensors")
        for name in victims:
            running[name].kill()
            running[name].wait()
            running[name] = party(data, name, *(["--resume"] if name == "server" else []))
    assert {name: process.wait(120) for name, process in running.items()} == dict.fromkeys(running, 0)
    pooled = posterior(data / "pooled")
    for place in ("server", *(f"{name}/{name}" for name in SITES)):
        for name, found in posterior(data / "out" / place).items():
            assert np.array_equal(found, pooled[name]), place


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--share", "x"], "--share: expected --transport files beside it, got no transport"),
        (["--deadline", "3"], "--deadline: expected --transport beside it, got no transport"),
        (["--transport", "files", "--as", "a"], "--share: expected a value with --transport files, got none"),
        (["--transport", "files", "--share", "x", "--as", "server"], "--sites: expected the names of the sites"),
        (
            ["--transport", "files", "--share", "x", "--as", "a", "--set", "data.standardize=true"],
            "data.standardize: expected false with --transport files",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    data: Path, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(data / "north.toml"), "--quiet", "--out", str(data / "o"), *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")
    assert not (data / "o").exists()


def test_networks_do_not_travel_as_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--transport", "files", "--share", str(data / "s"), "--as", "a"]
    assert main(["run", str(NETWORKS), *FEW, "--out", str(data / "o"), *options]) == 2
    assert "--transport: expected mpi or torch for networks, got files" in capsys.readouterr().err
