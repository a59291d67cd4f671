"""Fewer bits on the wire: the formats, what a letter stands for, and the posterior of float64 all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from badmm.transports.files import FilesServer, precision
from badmm.transports.files.precision import Known, lowered, raised
from badmm.transports.files.share import UnfitError
from badmm.transports.messages import Message, Reply
from tests.badmm.transports.test_sites import OWN, apart, play, pooled


def test_bfloat16_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.normal(size=2000) * 10.0 ** rng.integers(-30, 30, size=2000), [0.0, -0.0, 1.0, 1 + 2**-8]]
    )
    values = np.concatenate([values, 1 + np.arange(64) * 2.0**-9])  # with ties
    expected = torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16).double().numpy()
    assert np.array_equal(precision._exact(precision._round(values, "bfloat16"), "bfloat16"), expected)


@pytest.mark.parametrize(("bits", "size", "loss"), [("float32", 4, 2.0**-24), ("bfloat16", 2, 2.0**-8)])
def test_what_rounding_loses_is_in_the_next_difference(bits: str, size: int, loss: float) -> None:
    rng, x = np.random.default_rng(1), np.zeros(50)
    known = Known(3, {"contribution": x})
    target = rng.normal(size=50)
    for sequence in range(4, 9):
        small, extra = lowered({"contribution": target, "weights": np.ones(2)}, bits, known)
        assert small["contribution"].nbytes == 50 * size and small["weights"].dtype == np.float64
        found = raised(small, extra, known)["contribution"]
        before = np.abs(target - known.arrays["contribution"]).max()
        assert np.abs(target - found).max() <= loss * before + 1e-16
        known = Known(sequence, {"contribution": found})
    with pytest.raises(UnfitError, match="base: expected a difference to letter 8, got one to letter 7"):
        raised(small, extra, known)
    with pytest.raises(UnfitError, match="base: expected a difference to letter none"):
        raised(small, extra, None)
    assert lowered({"contribution": target}, bits, None) == ({"contribution": target}, {})


@pytest.mark.parametrize("bits", ["float32", "bfloat16"])
def test_the_posterior_is_that_of_float64(bits: str, tmp_path: Path) -> None:
    found, exact = play(tmp_path, list(OWN), {}, bits=bits), pooled(list(OWN))
    assert found.converged and apart(found, exact) < 1e-8
    up = sorted((tmp_path / "share" / "up" / "west").glob("0*"))
    small = b'"precision":"' + bits.encode() in up[5].read_bytes()
    assert small and found.rounds <= exact.rounds + 3


def test_a_refused_letter_is_followed_by_one_in_full(tmp_path: Path) -> None:
    def spoils(name: str, message: Message, reply: Reply) -> Reply:
        if name != "west" or message.kind != "step" or message.round not in (2, 3, 6):
            return reply
        if message.round == 6:
            return replace(reply, failures={5: "the disk is full"})
        return replace(reply, sums={"contribution": -1e9 * np.ones(9)})

    found = play(tmp_path, list(OWN), {}, spoils, bits="bfloat16")
    assert found.converged and apart(found, pooled(list(OWN))) < 1e-8
    assert sum(record.absent for record in found.history) == 3


def test_some_clients_a_round_and_few_bits_at_once(tmp_path: Path) -> None:
    found = play(tmp_path, list(OWN), {"per_round": 3, "seed": 2}, bits="float32")
    assert found.converged and apart(found, pooled(list(OWN))) < 1e-7


def test_a_server_knows_its_formats(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="precision: expected one of float64, float32, bfloat16, got 'float8'"):
        FilesServer(tmp_path, ["a"], bits="float8")
