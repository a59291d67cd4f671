"""The benchmark of large data: its chunks are the rows that it wrote."""

from pathlib import Path

import numpy as np
import pytest

from badmm import Gaussian
from benchmarks import large


def test_chunks_are_the_rows_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "CHUNK", 64)
    path = tmp_path / "0.f32"
    large.write(path, 150, 3, seed=1)
    parts = list(large.chunks(path, 3))
    assert [len(part.X) for part in parts] == [64, 64, 22]
    assert {float(value) for part in parts for value in part.y} == {0.0, 1.0}
    q = Gaussian(np.zeros(3), 1.0)
    total = sum(part.expectations(q)[1] for part in parts)
    assert large.client(path, 3).expectations(q)[1] == pytest.approx(total)


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert large.main(["--rows", "3000", "--features", "2", "--clients", "2"]) == 0
    assert "| 3000 | 2 | 2 | 0.00 |" in capsys.readouterr().out
