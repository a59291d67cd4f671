"""A partition's file: clients by name, lines in order or by index, and errors that name file and line."""

from pathlib import Path

import numpy as np
import pytest

from badmm.__main__ import main
from badmm.data import partition
from badmm.data.images import ImageSet
from badmm.experiments.config import networks as config
from badmm.experiments.problems import networks as problems

FILE = """
name = "own"
[data]
source = "digits"
fraction = {fraction}
[split]
kind = "file"
file = "sites.csv"
[model]
name = "linear"
[run]
rounds = 1
seeds = [3]
posterior_samples = 0
[methods.fedavg]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "sites.csv"
    path.write_text(text)
    return path


def test_lines_in_the_order_of_the_points(tmp_path: Path) -> None:
    found = partition.read(written(tmp_path, "client\r\n10\r\n2\r\nnorth\r\n2\r\n"), 4)
    assert found.names == ("2", "10", "north")
    assert [rows.tolist() for rows in found.rows()] == [[1, 3], [0], [2]]
    assert [rows.tolist() for rows in found.rows(np.array([0, 2, 3]))] == [[2], [0], [1]]


def test_lines_by_index_leave_points_to_nobody(tmp_path: Path) -> None:
    text = "\ufeffindex,client\n5,01\n0,1\n3,01\n"
    found = partition.read(written(tmp_path, text), 6)
    assert found.names == ("01", "1")
    assert found.owner.tolist() == [1, -1, -1, 0, -1, 0]
    assert [rows.tolist() for rows in found.rows()] == [[3, 5], [0]]


WRONG = {
    "site\na\nb\nc\n": ": expected the column 'client', perhaps beside 'index', got site",
    "client,note\na,x\nb,y\nc,z\n": ": expected the column 'client', perhaps beside 'index', got client, note",
    "": ": expected the column 'client', perhaps beside 'index', got an empty file",
    "client\n": ": expected a line per point below the header, got none",
    "client\na\nb\n": ": line 3: expected 3 clients, one per training point, got 2 (name points by a column 'index'",
    "client\na\nb\n\nc\nd\n": ": line 6: expected 3 clients, one per training point, got 4",
    "client\na\nNaN\nc\n": ": line 3: expected a client's name, got 'NaN'",
    "client\nsite\nb\nSite\n": ": line 4: expected the spelling 'site' of line 2, got 'Site'",
    "index,client\n0,a\n1,\n": ": line 3: expected a client's name, got ''",
    "index,client\n0,a\n3,b\n": ": line 3: expected an index from 0 to 2, got '3'",
    "index,client\n0,a\n-1,b\n": ": line 3: expected an index from 0 to 2, got '-1'",
    "index,client\n0,a\n1.0,b\n": ": line 3: expected an index from 0 to 2, got '1.0'",
    "index,client\n0,a\n2,b\n00,c\n": ": line 4: expected every index once, got 00, which line 2 has",
    "index,client\n0,a,b\n": ": line 2: expected 2 values, got 3",
}


@pytest.mark.parametrize("text", WRONG)
def test_errors_name_file_and_line(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        partition.read(path, 3)
    assert str(caught.value).startswith(f"{path}{WRONG[text]}")


def test_a_client_without_points_in_use_is_named(tmp_path: Path) -> None:
    found = partition.read(written(tmp_path, "client\na\nb\nb\n"), 3)
    with pytest.raises(ValueError, match=r"sites.csv: line 2: expected client 'a' to have some of the 2 points in use"):
        found.rows(np.array([1, 2]))


def test_a_configuration_names_a_partition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.toml"
    path.write_text(FILE.format(fraction=0.5))
    names = np.random.default_rng(0).choice(["b", "a", "c"], size=1438)
    written(tmp_path, "client\n" + "\n".join(names) + "\n")
    loaded = config.load(path)
    images = problems.load(loaded)
    assert isinstance(images, ImageSet)
    points = problems.assign(loaded, 3, images).points
    assert len(points.inputs) == 719
    whole = images.train_images.tolist()
    for name, rows in zip("abc", points.rows, strict=True):
        for image in points.inputs[rows[:5]].tolist():  # a few of these are enough: an image is found by its pixels
            assert name in names[[k for k, other in enumerate(whole) if other == image]]
    before = problems.fingerprint(loaded, images)
    out = ["--quiet", "--out", str(tmp_path / "out")]
    assert main(["run", str(path), *out]) == 0
    written(tmp_path, "client\n" + "\n".join(names[::-1]) + "\n")
    assert problems.fingerprint(loaded, images) != before
    assert main(["run", str(path), *out, "--resume"]) == 2
    assert "expected the data of" in capsys.readouterr().err
    for change, told in {
        'split.kind="iid"': "split.clients: expected a value (kind = 'iid'), got none",
        "split.clients=3": "split.clients: expected no such key (split.kind = 'file'), got 3",
        'split.file="none.csv"': "none.csv: expected an existing .csv file",
    }.items():
        assert main(["run", str(path), "--quiet", "--out", str(tmp_path / "new"), "--set", change]) == 2
        assert told in capsys.readouterr().err
