"""A site's own refusals, and what `badmm check-site` tells before anything has left."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from badmm.__main__ import main
from badmm.experiments.config import losses
from badmm.transports.files import server, site
from badmm.transports.sealed import load_tensors

STUDY = """
name = "trial"
family = "full_gaussian"
[data]
source = "north.csv"
target = "ill"
standardize = false
[split]
kind = "iid"
clients = 1
[likelihood]
kind = "logistic_regression"
"""


def write_site(folder: Path, name: str, rows: int, ill: int, more: str = "") -> Path:
    rng = np.random.default_rng(len(name))
    X = rng.normal(size=(rows, 2))
    lines = [f"{a!r},{b!r},{int(k < ill)}" for k, (a, b) in enumerate(X.tolist())]
    (folder / f"{name}.csv").write_text("\n".join(["age,dose,ill", *lines]) + "\n", encoding="utf-8")
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    path = folder / f"{name}.toml"
    text = f'study = "study.toml"\nname = "{name}"\nsource = "{name}.csv"\nshare = "share"\nmemory = "own"\n{more}'
    path.write_text(text, encoding="utf-8")
    return path


def test_check_site_tells_in_numbers_what_would_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_site(tmp_path, "north", 40, 17)
    assert main(["check-site", "--config", str(path)]) == 0
    told = capsys.readouterr().out
    for line in (
        "site north, study trial: nothing has left this site",
        "columns    age, dose, ill: ok",
        "rows       40, at least 10: ok",
        "events     17, at least 5: ok",
        "parameters per row 0.075 (3 parameters), at most 0.1: ok",
        "contribution (9,) float64, 72 bytes; the numbers evaluations, squared_residual",
        "the numbers loss, required_rho, ",
        "9 numbers per round about 120 values of the data",
    ):
        assert line in told, told
    assert not (tmp_path / "share").exists() and not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("rows", "ill", "more", "reason"),
    [
        (9, 5, "[refuse]\nmaximum_parameters_per_row = 1.0\nminimum_events = 1", "rows: expected at least 10, got 9"),
        (40, 4, "", "events: expected at least 5, got 4"),
        (40, 37, "", "events: expected at least 5, got 3"),  # the rarer class is whoever is not ill
        (29, 9, "", "parameters per row: expected at most 0.1, got 0.103448"),
        (
            40,
            9,
            '[refuse]\nallowed_columns = ["age", "ill"]',
            "columns: expected none but those of refuse.allowed_columns, got dose",
        ),
        (
            9,
            1,
            "",
            "rows: expected at least 10, got 9; events: expected at least 5, got 1; parameters per row: expected",
        ),
    ],
)
def test_a_site_refuses_in_one_line(
    rows: int, ill: int, more: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_site(tmp_path, "north", rows, ill, more)
    for command in ("check-site", "site"):
        assert main([command, "--config", str(path)]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"error: site north: {reason}") and line.count("\n") == 1
    assert not (tmp_path / "share").exists() and not (tmp_path / "own").exists()


def test_a_site_file_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_site(tmp_path, "north", 40, 9, "[refuse]\nminimum_row = 3")
    assert main(["check-site", "--config", str(path)]) == 2
    assert "refuse.minimum_row: expected one of minimum_rows, " in capsys.readouterr().err
    assert main(["check-site", "--config", str(path), "--set", "name=../x"]) == 2
    assert "name: expected a string that matches" in capsys.readouterr().err


def test_sites_and_a_server_give_the_posterior_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (server, site):
        monkeypatch.setattr(side, "POLL", 0.003)
    names, ended = ("north", "south-east"), {}
    paths = {name: write_site(tmp_path, name, 40, 15) for name in names}

    def play(name: str) -> None:
        ended[name] = main(["site", "--config", str(paths[name]), "--quiet", "--out", str(tmp_path / "out")])

    threads = [threading.Thread(target=play, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    study, share = str(tmp_path / "study.toml"), str(tmp_path / "share")
    options = ["--share", share, "--sites", ",".join(names), "--quiet", "--out", str(tmp_path / "served")]
    assert main(["serve", study, *options]) == 0
    for thread in threads:
        thread.join(60)
    assert ended == dict.fromkeys(names, 0)
    found = load_tensors(tmp_path / "served" / "posterior.safetensors")[0]
    for name in names:
        own = load_tensors(tmp_path / "out" / name / "posterior.safetensors")[0]
        assert all(np.array_equal(own[key], found[key]) for key in found)


def test_events_are_what_the_likelihood_counts() -> None:
    y = np.array([0.0, 1.0, 1.0, 3.0])
    events = {kind: section(kind=kind).events(y) for kind, (section, _) in losses.LOSSES.items()}
    assert events == {
        "linear_regression": None,
        "logistic_regression": 0,
        "softmax_regression": 0,
        "poisson_regression": 5,
        "poisson_rate": 5,
        "exponential_rate": 4,
    }
