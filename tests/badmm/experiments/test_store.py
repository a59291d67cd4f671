"""Files of a run: whole or absent, sealed, with the user's permissions; histories that survive torn lines."""

import json
import os
import resource
import signal
import stat
from pathlib import Path

import numpy as np
import pytest

from badmm.experiments.store import History, load_tensors, locked, save_tensors, write_atomic

ARRAYS = {"b": np.array([np.nan, -0.0, 5e-324]), "a": np.random.default_rng(0).standard_normal(5), "n": np.arange(3)}


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    save_tensors(tmp_path / "s.safetensors", ARRAYS, {"x": "1", "é": '"sha256":"'})
    again, metadata = load_tensors(tmp_path / "s.safetensors")
    assert {name: value.tobytes() for name, value in again.items()} == {n: a.tobytes() for n, a in ARRAYS.items()}
    assert metadata == {"x": "1", "é": '"sha256":"'}


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    written = set()
    for turn in range(8):
        order = dict(sorted(ARRAYS.items(), reverse=bool(turn % 2)))
        save_tensors(tmp_path / f"{turn}", order, {f"key {k}": str(k) for k in range(12)})
        written.add((tmp_path / f"{turn}").read_bytes())
    assert len(written) == 1


def test_every_flipped_bit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_tensors(path, ARRAYS, {"x": "1"})
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(flipped))
        with pytest.raises(ValueError, match=r"s\.safetensors: expected ") as caught:
            load_tensors(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"\xff" * 40, b"PK\x03\x04 torn", b'\x10\0\0\0\0\0\0\0{"a":[[[[[[[[[[ ']
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.safetensors: expected a safetensors file written by badmm, got"):
        load_tensors(tmp_path / "s.safetensors")


def test_a_safetensors_file_without_a_seal_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2)}, tmp_path / "s.safetensors", metadata={"x": "1"})
    with pytest.raises(ValueError, match="written by badmm"):
        load_tensors(tmp_path / "s.safetensors")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_tensors(path, ARRAYS, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="the file is damaged"):
        load_tensors(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.bin"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_the_users(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "a", b"")
        History(tmp_path / "history.jsonl").append({"round": 1, "seconds": 0.5})
        with locked(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    for name in ("a", "history.jsonl", "times.jsonl", "folder/.lock"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & mask == 0, name
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_a_locked_folder_is_told(tmp_path: Path) -> None:
    def use() -> None:
        with locked(tmp_path / "o"):
            pass

    with locked(tmp_path / "o"), pytest.raises(ValueError, match=r"--out: expected a folder that no other run uses"):
        use()
    use()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "o").write_text("")
    with pytest.raises(ValueError, match="--out: expected a folder, got the file"), locked(tmp_path / "o"):
        pass


def rounds(history: History) -> list[int]:
    return [record["round"] for record in history.read()]


@pytest.mark.parametrize("torn", ['{"round": 4, "ga', "{", '{"round": 4, "gap": 0.1}', "\0" * 100, "é" * 5000])
def test_history_survives_a_torn_line(tmp_path: Path, torn: str) -> None:
    history = History(tmp_path / "history.jsonl")
    assert history.read() == []
    for number in (1, 2, 3):
        history.append({"round": number, "gap": np.float64(0.1) / number, "events": [], "seconds": 0.25})
        if number == 2:
            mark = history.mark
    with history.path.open("a") as stream:
        stream.write(torn)
    assert rounds(history) == [1, 2, 3]
    again = History(history.path)
    again.append({"round": 4})
    assert rounds(again) == [1, 2, 3, 4]
    again.cut(mark)
    assert rounds(again) == [1, 2]
    assert again.read()[1] == {"round": 2, "gap": 0.05, "events": [], "seconds": 0.25}
    assert again.mark == mark


def test_a_full_disk_leaves_a_history_without_the_line(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        history.append({"round": 1, "x": "a" * 100})
        for room in (0, 1, 60):
            resource.setrlimit(resource.RLIMIT_FSIZE, (history.path.stat().st_size + room, hard))
            with pytest.raises(OSError, match=r"history\.jsonl"):
                history.append({"round": 2, "x": "b" * 100})
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert rounds(history) == [1]
        history.append({"round": 2, "x": "c"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert rounds(history) == [1, 2]


@pytest.mark.parametrize(
    "change", [lambda b: b.replace(b"0.5", b"0.4"), lambda b: b[:-5], lambda b: b[1:], lambda b: b""]
)
def test_a_history_other_than_the_checkpoints_is_refused(tmp_path: Path, change) -> None:
    history = History(tmp_path / "history.jsonl")
    for number in (1, 2):
        history.append({"round": number, "gap": 0.5})
    history.path.write_bytes(change(history.path.read_bytes()))
    with pytest.raises(ValueError, match=r"history\.jsonl: expected the 2 rounds of the checkpoint"):
        History(history.path).check(history.mark)


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(json.dumps({"round": 1}) + "\n[3]\n" + json.dumps({"round": 2}) + "\n")
    with pytest.raises(ValueError, match=r"history\.jsonl: line 2: expected a round's record"):
        History(tmp_path / "history.jsonl").read()
