"""The GPU benchmark without its clock: its calls run, it counts the bytes they move, its peers do the same step."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu
from tests.kernels.host_device import HostDevice, on_host

COUNT = 4000


@pytest.fixture
def host() -> Any:
    with on_host() as device:
        yield device


def test_every_case_runs_and_moves_the_bytes_it_says(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []

    def launch(_source: str, name: str, _grid: Any, _block: Any, call: Any) -> None:
        slots = np.atleast_1d(call["slot"])
        memory = {int(a) for slot in slots for a in (*slot["in"], *slot["out"][:4]) if a}
        reads = sum(s["rows"] * s["width"] * len({int(a) for a in s["in"] if a}) for s in slots)
        writes = sum(s["rows"] * s["width"] * np.count_nonzero(s["out"]) for s in slots)
        if "partial_sums" not in name:
            moved.append(int(reads if "total" in name or "kl" in name or "partition" in name else reads + writes))
        assert memory

    monkeypatch.setattr(host, "launch", launch)
    monkeypatch.setattr(host, "read", lambda _array: np.zeros(2))
    seen = set()
    for case in gpu.cases(np, COUNT, np.float32):
        moved.clear()
        case.call()
        assert moved[0] == case.moved(COUNT, 1), case.name
        seen.add(case.name)
    assert {"round_update", "server_total", "kl", "ivon update_sample, normals stored"} <= seen


def test_peers_compute_the_same_step(host: HostDevice) -> None:
    library = types.SimpleNamespace(sqrt=np.sqrt, randn_like=lambda _like: 0.25)
    for case in gpu.cases(np, COUNT, np.float64):
        if case.step is None:
            continue
        expected = case.step(library, *[a.copy() for a in case.arrays])
        results = case.call()
        results = [r[0] if isinstance(r, tuple) else r for r in results]
        compared = 1 if case.name == "dual_update" else 2
        if case.name.startswith("ivon"):
            compared = 3  # the normals are not the same
        for got, want in zip(results[:compared], expected, strict=False):
            np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_table_has_a_row_a_kernel(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "peers", lambda _step, _arrays: [("torch", lambda: None)])
    rows = list(gpu.measure(np, lambda call: (call(), 2.0)[1], 1000, "float32"))
    text = gpu.table(rows)
    assert len(text.splitlines()) == len(rows) + 2 == 2 + 1 + len(list(gpu.cases(np, 1000, np.float32)))
    assert "| copy |" in text and "| ivon update |" in text


def test_without_a_gpu_nothing_is_written(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.conftest import gpu_missing

    if not gpu_missing():
        pytest.skip("there is a GPU")
    out = tmp_path / "gpu.md"
    assert gpu.main(["--out", str(out)]) == 2
    assert not out.exists() and capsys.readouterr().err.startswith("benchmarks.gpu: device: expected ")
