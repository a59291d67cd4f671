"""The benchmark of a round runs, and says what it measured."""

import pytest
import torch

import badmm_kernels
from benchmarks import federated


def test_it_measures_every_path(tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federated, "EPOCHS", 1)
    monkeypatch.setattr(federated, "POINTS", 128)
    before = torch.get_num_threads(), badmm_kernels.get_num_threads()
    page = tmp_path / "page.md"
    arguments = ["--clients", "2", "--alone", "1", "--repeats", "2", "--threads", "1", "--out", str(page)]
    try:
        assert federated.main(arguments) == 0
    finally:
        torch.set_num_threads(before[0])
        badmm_kernels.set_num_threads(before[1])
    text = page.read_text()
    for name in (
        "IVON-ADMM, batched",
        "ivon-opt, one by one",
        "badmm.ivon.IVON, one by one",
        "matrix products alone, torch.bmm, one core's time / 1",
    ):
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert float(row.split("|")[3]) > 0
