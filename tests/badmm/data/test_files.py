"""Tables and stored arrays: what is read, what is refused, and that nothing half-written stays behind."""

import os
from pathlib import Path

import numpy as np
import pytest

from badmm.data import files
from badmm.experiments import store


def test_csv_separates_features_target_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("site,a,y,b\nx,1,2,3\nz,4,5,6\n")
    table = files.read(path, "y", ("site",))
    assert table.names == ("a", "b")
    np.testing.assert_array_equal(table.X, [[1, 3], [4, 6]])
    np.testing.assert_array_equal(table.y, [2, 5])
    assert table.extra["site"].tolist() == ["x", "z"]


def test_npz_holds_the_same(tmp_path: Path) -> None:
    X, y = np.arange(6.0).reshape(3, 2), np.array([0, 1, 0])
    np.savez(tmp_path / "t.npz", X=X, y=y, group=y)
    table = files.read(tmp_path / "t.npz", "y", ("group",))
    np.testing.assert_array_equal(table.X, X)
    np.testing.assert_array_equal(table.extra["group"], y)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["column 'y'", "empty file"]),
        ("a,b\n1,2\n", ["column 'y'", "a, b"]),
        ("a,y\n", ["at least one row"]),
        ("a,y\n1,2\n3\n", ["2 values in data row 1", "got 1"]),
        ("a,y\n1,2\nz,2\n", ["a: expected a number", "'z' in data row 1"]),
        ("a,y\n1,nan\n", ["y: expected finite numbers", "nan in data row 0"]),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        files.read(path, "y")
    assert all(word in str(caught.value) for word in [*words, "t.csv"]), str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.ones((2, 2))}, ["array 'y'", "got X"]),
        ({"X": np.ones((2, 2)), "y": np.ones(3)}, ["X (n, d) and y (n,)", "(2, 2) and (3,)"]),
        ({"X": np.full((2, 1), np.inf), "y": np.ones(2)}, ["features: expected finite", "data row 0"]),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], words: list[str]) -> None:
    np.savez(tmp_path / "t.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError) as caught:
        files.read(tmp_path / "t.npz", "y")
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("name", ["absent.csv", "data.parquet"])
def test_unknown_sources(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.parquet").touch()
    with pytest.raises(ValueError, match=r"data\.source: expected .*, got "):
        files.read(tmp_path / name, "y")


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    arrays = {"a": np.random.default_rng(0).standard_normal(5), "b": np.array([np.nan, -0.0, 5e-324])}
    store.save_arrays(tmp_path / "s.npz", arrays, {"rounds": [1, 0.1]})
    again, metadata = store.load_arrays(tmp_path / "s.npz")
    assert {name: value.tobytes() for name, value in again.items()} == {n: a.tobytes() for n, a in arrays.items()}
    assert metadata == {"rounds": [1, 0.1]}


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_torn_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.npz: expected a file written by this program, got"):
        store.load_arrays(tmp_path / "s.npz")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.bin"
    store.write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        store.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_history_survives_a_torn_line(tmp_path: Path) -> None:
    history = store.History(tmp_path / "history.jsonl")
    assert history.read() == []
    for number in (1, 2, 3):
        history.append({"round": number, "gap": np.float64(0.1) / number, "events": []})
    with history.path.open("a") as stream:
        stream.write('{"round": 4, "ga')
    assert [record["round"] for record in history.read()] == [1, 2, 3]
    history.cut(2)
    assert [record["round"] for record in history.read()] == [1, 2]
    assert history.read()[1]["gap"] == 0.05
