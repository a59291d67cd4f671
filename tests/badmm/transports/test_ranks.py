"""What MPI and torch.distributed share, on threads that play the ranks: no launcher, every kind of disagreement."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import badmm
from badmm import Gaussian
from badmm.checks import ClientError, RankError
from badmm.likelihoods import LogisticRegression
from badmm.transports import InProcess
from badmm.transports.messages import Message, Reply, joined
from badmm.transports.ranks import Ranks, pieces, share_of


class Board:
    """Where threads meet."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size)
        self.mail = {(a, b): threading.Semaphore(0) for a in range(size) for b in range(size)}
        self.letters: dict[tuple[int, int], list[Any]] = {pair: [] for pair in self.mail}


class Threads(Ranks):
    """One of several threads that play ranks."""

    def __init__(self, rank: int, board: Board, deterministic: bool = False) -> None:
        super().__init__(20.0, deterministic)
        self.rank, self.size, self.board = rank, len(board.values), board
        self.crossed = 0

    def _all(self, value: Any) -> list[Any]:
        self.board.values[self.rank] = value
        self.board.barrier.wait(20)
        values = list(self.board.values)
        self.board.barrier.wait(20)
        return values

    def gather(self, data: bytes) -> list[bytes]:
        return self._all(data)

    def add(self, part: np.ndarray[Any, Any]) -> None:
        assert part.ndim == 1 and part.size <= self.piece
        self.crossed += 1
        # not in the order of ranks, as engines are free to do
        part[:] = np.sum(self._all(part.copy())[::-1], axis=0)

    def share(self, part: np.ndarray[Any, Any], root: int) -> None:
        part[:] = self._all(part.copy())[root]

    def send(self, part: np.ndarray[Any, Any], to: int) -> None:
        self.board.letters[self.rank, to].append(part.copy())
        self.board.mail[self.rank, to].release()

    def receive(self, part: np.ndarray[Any, Any], source: int) -> None:
        assert self.board.mail[source, self.rank].acquire(timeout=20)
        part[:] = self.board.letters[source, self.rank].pop(0)


def play(size: int, act: Callable[[Threads], Any], deterministic: bool = False) -> list[Any]:
    """What each rank returned or raised."""
    board = Board(size)
    found: list[Any] = [None] * size

    def one(rank: int) -> None:
        try:
            found[rank] = act(Threads(rank, board, deterministic))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def problem() -> tuple[list[LogisticRegression], dict[str, Any]]:
    rng = np.random.default_rng(5)
    X, theta = rng.normal(size=(140, 3)), np.array([1.0, -0.5, 0.3])
    y = (rng.random(140) < 1 / (1 + np.exp(-X @ theta))).astype(int)
    clients = [LogisticRegression(X[part], y[part]) for part in np.array_split(np.arange(140), 7)]
    return clients, {"family": "full_gaussian", "prior": Gaussian(np.zeros(3), 1.0), "rounds": 7, "tol": 0.0}


@pytest.mark.parametrize("participation", [1.0, 0.4])
@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_any_number_of_ranks_gives_the_same_bits(size: int, participation: float) -> None:
    clients, arguments = problem()
    arguments["participation"] = participation
    alone = badmm.solve(clients, **arguments, transport=InProcess(deterministic=True))
    plain = badmm.solve(clients, **arguments)

    def act(rank: Threads) -> badmm.Result:
        own = [clients[k] for k in share_of(rank.rank, rank.size, len(clients))]
        return badmm.solve(own, **arguments, transport=rank, workers=1)

    for deterministic in (True, False):
        results = play(size, act, deterministic)
        assert sum(len(result.duals[0]) for result in results) == 7
        for i in range(2):
            together = np.concatenate([result.duals[i] for result in results])
            if deterministic:
                assert np.array_equal(together, alone.duals[i])
                assert all(np.array_equal(result.natural[i], alone.natural[i]) for result in results)
            assert np.abs(results[0].natural[i] - plain.natural[i]).max() <= 1e-12 * np.abs(plain.natural[i]).max()
            assert all(np.array_equal(result.natural[i], results[0].natural[i]) for result in results)
        assert results[0].history[-1].bytes_up == plain.history[-1].bytes_up
        assert [r.history[-1].events for r in results] == [plain.history[-1].events] * size


def test_a_client_that_raises_is_named_on_every_rank_by_its_index_of_all() -> None:
    clients, arguments = problem()

    class Bad:
        def expectations(self, posterior: Any) -> Any:
            raise OSError("gone")

    def act(rank: Threads) -> badmm.Result:
        own: list[Any] = [clients[k] for k in share_of(rank.rank, rank.size, 7)]
        if rank.rank == 1:
            own[-1] = Bad()
        return badmm.solve(own, **arguments, transport=rank, workers=1)

    first, second, third = play(3, act)
    assert isinstance(second, ClientError) and second.client == 3
    for other in (first, third):
        assert isinstance(other, ClientError)
        assert str(other) == str(second) == "client 3: expectations raised OSError: gone"


@pytest.mark.parametrize("wrong", ["arguments", "callback", "rounds", "configuration"])
def test_ranks_that_disagree_end_by_name(wrong: str) -> None:
    clients, arguments = problem()

    def act(rank: Threads) -> badmm.Result:
        own = [clients[k] for k in share_of(rank.rank, rank.size, 7)]
        changed: dict[str, Any] = {}
        if rank.rank == 1:

            def full(state: Any) -> None:
                raise OSError("no space left")

            cases: dict[str, dict[str, Any]] = {
                "arguments": {"temperature": -1.0},
                "callback": {"callbacks": [full]},
                "rounds": {"rounds": 2},
                "configuration": {"temperature": 2.0},
            }
            changed = cases[wrong]
        return badmm.solve(own, **(arguments | changed), transport=rank, workers=1)

    zero, one = play(2, act)
    if wrong == "rounds":  # rank 0 says when to end
        assert zero.rounds == one.rounds == 7
        return
    expected = {
        "arguments": "rank 1: ValueError: temperature: expected a positive number, got -1.0",
        "callback": "rank 1: OSError: no space left",
        "configuration": "rank 1: ValueError: message: expected the digest",
    }[wrong]
    assert isinstance(zero, RankError) and str(zero).startswith(expected)
    assert isinstance(one, OSError if wrong == "callback" else ValueError)


def test_a_rank_at_another_step_is_named() -> None:
    def act(rank: Threads) -> Any:
        with joined(rank):
            return rank.reduce(Reply(0, "d")) if rank.rank else rank.broadcast(Message("step", 0, "d"))

    for error in play(2, act):
        assert isinstance(error, RankError)
        assert (
            str(error)
            == "ranks: expected all at one step, got rank 0 at broadcast of step 0; rank 1 at reduce of step 0"
        )


def test_arrays_that_do_not_fit_are_refused_on_every_rank() -> None:
    def act(rank: Threads) -> Any:
        return rank.reduce(Reply(0, "d", sums={"a": np.ones(3 + rank.rank)}))

    for error in play(2, act):
        assert isinstance(error, RankError)
        assert str(error) == "a: expected float64 of shape [3], got float64 of shape [4]"


def test_large_arrays_cross_in_pieces_and_tensors_as_arrays() -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    assert [part.size for part in pieces(array, 10)] == [10, 10, 4]

    def act(rank: Threads) -> Reply:
        rank.piece = 10
        sums = {"x": torch.from_numpy(array).float(), "weight": torch.tensor(2.0, dtype=torch.float64)}
        reply = rank.reduce(Reply(0, "d", sums=sums if rank.rank else {}, totals={"t": float("nan")}, client_nbytes=5))
        assert rank.crossed == 4
        return reply

    for reply in play(3, act):
        assert reply.sums["x"].dtype == np.float32 and (reply.sums["x"] == 2 * array).all()
        assert reply.sums["weight"].shape == () and reply.sums["weight"] == 4.0
        assert reply.clients == 3 and reply.nbytes == 5 and np.isnan(reply.totals["t"])


def test_nobody_replies_in_either_order() -> None:
    for deterministic in (False, True):
        for reply in play(2, lambda rank: rank.reduce(Reply(0, "d", 0)), deterministic):
            assert reply.clients == 0 and not reply.sums


@pytest.mark.parametrize(("count", "size"), [(10, 4), (3, 5), (8, 2), (1, 1)])
def test_clients_are_dealt_to_ranks_in_order(count: int, size: int) -> None:
    parts = [share_of(rank, size, count) for rank in range(size)]
    assert [k for part in parts for k in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
