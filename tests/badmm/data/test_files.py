"""Tables in files: what is read, and that what cannot be is refused in one line that names file, line and column."""

from pathlib import Path

import numpy as np
import pytest

from badmm.data import files


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
        ("a,y\n1,2\n3\n", ["line 3: expected 2 values", "got 1"]),
        ("a,y\n1,2\nz,2\n", ["line 3, column 'a': expected a finite number", "'z'"]),
        ("a,a,y\n1,2,3\n", ["line 1: expected different names", "'a' twice"]),
        ("a,,y\n1,2,3\n", ["line 1: expected a name for column 2"]),
        ("\n\na,y\n\n1,2\n\n3\n", ["line 7: expected 2 values, got 1"]),
        ("a,y\n1,2,\n", ["line 2: expected 2 values, got 3"]),
        ("a,y\n1,1_000\n", ["line 2, column 'y'", "'1_000'"]),
        ("a,y\n,2\n", ["line 2, column 'a': expected a finite number, got an empty cell"]),
        ('a,y\n"1\n",2\n\n"2\n",x\n', ["line 5, column 'y'", "'x'"]),
        ('a,y\n"1,2\n3,4\n', ["line 2: expected values separated by commas"]),
        ("a,y\n1,2\n" + "z" * 5000 + ",2\n", ["line 3, column 'a'", "'zzz"]),
        ("a,y\n1,nan\n", ["line 2, column 'y': expected a finite number", "'nan'"]),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        files.read(path, "y")
    assert all(word in str(caught.value) for word in [*words, "t.csv"]), str(caught.value)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.ones((2, 2))}, ["array 'y'", "got X"]),
        ({"X": np.ones((2, 2)), "y": np.ones(3)}, ["X (n, d) and y (n,)", "(2, 2) and (3,)"]),
        ({"X": np.full((2, 1), np.inf), "y": np.ones(2)}, ["X: expected finite", "inf at index (0, 0)"]),
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, encoding: str, ending: str) -> None:
    lines = ["", "größe, y ,site", "1.5,0, a", ",,", "   ", '"2","1","b ""x"""', "", ""]
    path = tmp_path / "t.csv"
    path.write_bytes(ending.join(lines).encode(encoding))
    table = files.read(path, "y", ("site",))
    assert table.names == ("größe",)
    np.testing.assert_array_equal(table.X, [[1.5], [2.0]])
    assert table.extra["site"].tolist() == ["a", 'b "x"']
    assert [table.place(row) for row in (0, 1)] == ["line 3", "line 6"]


@pytest.mark.parametrize(
    "sites", [("9007199254740992", "9007199254740993"), ("01", "1"), ("1", "1.0"), ("12E4", "120000"), ("1e400", "inf")]
)
def test_names_of_sites_are_what_is_written(tmp_path: Path, sites: tuple[str, str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("site,y\n" + "".join(f"{site},0\n" for site in sites))
    assert files.read(path, "y", ("site",)).extra["site"].tolist() == list(sites)


@pytest.mark.parametrize("name", ["", "nan", "NA", "n/a", "NULL", "None", "NaT"])
def test_a_row_without_a_site_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"site,y\na,0\n{name},1\n")
    with pytest.raises(ValueError, match=r"t\.csv: line 3, column 'site': expected a value"):
        files.read(path, "y", ("site",))


@pytest.mark.parametrize("name", ["North", "north ", "north  east", "NORTH"])
def test_two_spellings_of_a_site_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    first = "north east" if "east" in name else "north"
    path.write_text(f"site,y\n{first},0\n{name},1\n")
    if name.strip() == first:  # spaces around a cell are no part of it
        assert files.read(path, "y", ("site",)).extra["site"].tolist() == [first, first]
        return
    with pytest.raises(ValueError, match=rf"line 3, column 'site': expected the spelling '{first}' of line 2, got"):
        files.read(path, "y", ("site",))


def test_a_missing_site_of_an_archive_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=np.ones((2, 1)), y=np.ones(2), site=np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"t\.npz: row 1, column 'site': expected a value, got 'nan'"):
        files.read(tmp_path / "t.npz", "y", ("site",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("größe,y\n1,0\n".encode("latin-1"), "line 1: expected UTF-8 text, got byte 0xf6"),
        ("a,y\n1,0\né,1\n".encode("cp1252"), "line 3: expected UTF-8 text, got byte 0xe9"),
        ("a,y\n1,0\n".encode("utf-16"), "expected UTF-8 text, got UTF-16"),
        (b"a,y\n1,0\n\0,1\n", "line 3: expected text, got a null byte"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"t\.csv: {words}"):
        files.read(tmp_path / "t.csv", "y")


def archive(folder: Path, **arrays: np.ndarray) -> bytes:
    np.savez(folder / "good.npz", **arrays)  # type: ignore[arg-type]
    return (folder / "good.npz").read_bytes()


@pytest.mark.parametrize("damage", [lambda b: b[:700], lambda b: b"", lambda b: b"hello", lambda b: b[:400] + b[401:]])
def test_a_damaged_archive_is_named(tmp_path: Path, damage) -> None:
    good = archive(tmp_path, X=np.arange(80.0).reshape(40, 2), y=np.ones(40))
    (tmp_path / "t.npz").write_bytes(damage(good))
    with pytest.raises(ValueError, match=r"t\.npz: ") as caught:
        files.read(tmp_path / "t.npz", "y")
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_of_an_archive_is_told_or_harmless(tmp_path: Path) -> None:
    good = archive(tmp_path, X=np.arange(6.0).reshape(3, 2), y=np.array([0.0, 1.0, 0.0]))
    told: list[bool] = []
    for place in range(0, len(good), 7):
        flipped = bytearray(good)
        flipped[place] ^= 1 << (place % 8)
        (tmp_path / "t.npz").write_bytes(bytes(flipped))
        try:
            table = files.read(tmp_path / "t.npz", "y")
        except ValueError as error:
            told.append("t.npz" in str(error))
        else:
            np.testing.assert_array_equal(table.X, np.arange(6.0).reshape(3, 2))
    assert all(told) and len(told) > 20


@pytest.mark.parametrize(
    "y", [np.array(["yes", "no"]), np.array([None, 1]), np.array([1j, 2.0]), np.array(["2024-01-01"] * 2, "M8[D]")]
)
def test_archives_of_what_is_no_number_are_named(tmp_path: Path, y: np.ndarray) -> None:
    np.savez(tmp_path / "t.npz", X=np.ones((2, 1)), y=y)
    with pytest.raises(ValueError, match=r"t\.npz: y: expected (real )?numbers"):
        files.read(tmp_path / "t.npz", "y")
