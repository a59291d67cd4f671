"""Messages that cross a transport: an engine is one file, and the posterior does not depend on which it is."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm
from badmm import Gamma, Gaussian
from badmm.families.family import Natural
from badmm.likelihoods import LogisticRegression
from badmm.transports import InProcess
from badmm.transports.messages import Message, Reply, combine

ENGINE = '''
"""Every message and reply as bytes: a JSON header and raw float64, nothing pickled."""

import dataclasses
import json

import numpy as np

from badmm.transports import Message, Reply


def to_bytes(record):
    header, arrays = {}, []
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, dict) and any(isinstance(part, np.ndarray) for part in value.values()):
            header[field.name] = {name: [len(arrays) + i, part.shape] for i, (name, part) in enumerate(value.items())}
            arrays += value.values()
        else:
            header[field.name] = list(value.items()) if isinstance(value, dict) else value
    return b"\\0".join([json.dumps(header).encode(), *(part.astype("<f8").tobytes().hex().encode() for part in arrays)])


def from_bytes(kind, data):
    head, *bodies = data.split(b"\\0")
    arrays = [np.frombuffer(bytes.fromhex(body.decode()), "<f8") for body in bodies]
    values = {}
    for name, value in json.loads(head).items():
        if isinstance(value, dict):
            values[name] = {key: arrays[place].reshape(shape) for key, (place, shape) in value.items()}
        elif isinstance(value, list):
            pairs = value and isinstance(value[0], list)
            values[name] = dict(map(tuple, value)) if pairs or name not in ("notes", "members") else tuple(value)
        else:
            values[name] = value
    return kind(**values)


class Bytes:
    rank, size, deadline = 0, 1, None

    def __init__(self):
        self.crossed = 0

    def broadcast(self, message):
        return self._cross(Message, message)

    def reduce(self, reply):
        return self._cross(Reply, reply)

    def _cross(self, kind, record):
        data = to_bytes(record)
        self.crossed += len(data)
        return from_bytes(kind, data)
'''


def load(path: Path) -> Any:
    path.write_text(ENGINE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("bytes_engine", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Bytes()


def problem(family: str) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    X, theta = rng.normal(size=(120, 3)), np.array([1.0, -0.5, 0.3])
    parts = np.array_split(np.arange(120), 6)
    if family == "gamma":
        clients: list[Any] = [LogRate(rng.gamma(3.0, 1.0, 5)) for _ in parts]
        return {"clients": clients, "family": family, "prior": Gamma(2.0, 1.0), "rounds": 12}
    y = (rng.random(120) < 1 / (1 + np.exp(-X @ theta))).astype(int)
    clients = [LogisticRegression(X[part], y[part]) for part in parts]
    return {"clients": clients, "family": family, "prior": Gaussian(np.zeros(3), 1.0), "rounds": 12}


class LogRate:
    """A loss of a positive parameter that is not linear in μ: Σ_i E[(log θ − log x_i)²]/2."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def natural_gradient(self, q: Gamma) -> Natural:
        from scipy.special import polygamma, psi

        from badmm_kernels import load as kernels

        miss = len(self.x) * (psi(q.shape) - np.log(q.rate)) - np.log(self.x).sum()
        d_shape = polygamma(1, q.shape) * miss + 0.5 * len(self.x) * polygamma(2, q.shape)
        found: Natural = kernels("gamma").natural_gradient(q.shape, q.rate, d_shape, -miss / q.rate)
        return found


@pytest.mark.parametrize("family", ["isotropic_gaussian", "diagonal_gaussian", "full_gaussian", "gamma"])
def test_an_engine_in_a_file_of_its_own_gives_the_same_bits(family: str, tmp_path: Path) -> None:
    engine = load(tmp_path / "bytes_engine.py")
    arguments = problem(family)
    here = badmm.solve(arguments["clients"], **{k: v for k, v in arguments.items() if k != "clients"})
    there = badmm.solve(
        arguments["clients"], **{k: v for k, v in arguments.items() if k != "clients"}, transport=engine
    )
    assert engine.crossed > 0 and there.rounds == here.rounds
    for mine, theirs in zip(here.natural + here.duals, there.natural + there.duals, strict=True):
        assert np.array_equal(mine, theirs)
    assert there.history[-1].bytes_up == here.history[-1].bytes_up
    assert there.history[-1].events == here.history[-1].events


class Rank:
    """One of several threads that play processes: replies meet at a barrier and are combined in the order of ranks."""

    deadline: float | None = None

    def __init__(self, rank: int, size: int, board: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.board, self.barrier = rank, size, board, barrier

    def _all(self, value: Any) -> list[Any]:
        self.board[self.rank] = value
        self.barrier.wait(60)
        values = list(self.board)
        self.barrier.wait(60)
        return values

    def broadcast(self, message: Message) -> Message:
        first: Message = self._all(message)[0]
        return first

    def reduce(self, reply: Reply) -> Reply:
        return combine(self._all(reply))


@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_ranks_with_clients_of_their_own_reach_the_pooled_run(participation: float) -> None:
    arguments = problem("full_gaussian") | {"participation": participation, "rounds": 8, "tol": 0.0}
    clients = arguments.pop("clients")
    alone = badmm.solve(clients, **arguments)
    board, barrier = [None] * 3, threading.Barrier(3)
    results: dict[int, badmm.Result] = {}

    def run(rank: int) -> None:
        own = (clients[:1], clients[1:4], clients[4:])[rank]
        results[rank] = badmm.solve(own, **arguments, transport=Rank(rank, 3, board, barrier), workers=1)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2]
    for rank, result in results.items():
        for mine, theirs in zip(alone.natural, result.natural, strict=True):
            assert theirs == pytest.approx(mine, rel=1e-9, abs=1e-9)
        assert result.history[-1].bytes_up == alone.history[-1].bytes_up
        assert len(result.duals[0]) == (1, 3, 2)[rank]


def test_replies_are_reduced_by_kind() -> None:
    one = Reply(3, "d", 2, {"a": np.ones(2)}, {"t": 1.0}, {"m": 1.0}, {"n": 1.0}, {4: "lost"}, ("x",))
    two = Reply(3, "d", 1, {"a": np.full(2, 2.0)}, {"t": 5.0}, {"m": 0.5}, {"n": 0.5}, {}, ("y",))
    both = combine([one, two])
    assert both.clients == 3 and both.notes == ("x", "y") and both.failures == {4: "lost"}
    assert (both.sums["a"] == 3.0).all() and both.totals == {"t": 6.0}
    assert both.maxima == {"m": 1.0} and both.minima == {"n": 0.5}
    assert both.nbytes == one.nbytes == 8 * 5
    empty = combine([Reply(3, "d", 0), one])
    assert empty.clients == 2 and empty.sums["a"] is one.sums["a"]
    with pytest.raises(ValueError, match="reply: expected round 3 and digest d, got round 4 and digest d"):
        combine([one, Reply(4, "d")])


def test_what_belongs_to_another_run_is_refused() -> None:
    class Old(InProcess):
        def reduce(self, reply: Reply) -> Reply:
            return reply if not reply.digest else Reply(reply.round - 1, reply.digest, reply.clients, reply.sums)

    class Foreign(InProcess):
        def broadcast(self, message: Message) -> Message:
            return Message(message.kind, message.round, "other", message.numbers, message.arrays)

    arguments = problem("full_gaussian")
    clients = arguments.pop("clients")
    with pytest.raises(ValueError, match="reply: expected round 0, got round -1"):
        badmm.solve(clients, **arguments, transport=Old())
    with pytest.raises(ValueError, match=r"message: expected the digest .* of this run's configuration, got other"):
        badmm.solve(clients, **arguments, transport=Foreign())
