"""The round loop by itself, with a server and clients that only keep what they are told; workers; a run's record."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import badmm
from badmm import ClientError, Gaussian, SolverState
from badmm.likelihoods import Quadratic
from badmm.rounds.history import flat, grouped
from badmm.rounds.loop import Deadline, Loop, participants
from badmm.rounds.workers import Workers, available_cores
from badmm.transports import InProcess, Message, Reply
from badmm_kernels.cpu import threads


class Clients:
    """Answers with what it is given, and keeps the messages."""

    def __init__(self, **reply: Any) -> None:
        self.reply: dict[str, Any] = {"clients": 2, **reply}
        self.errors: dict[int, ClientError] = {}
        self.messages: list[Message] = []

    def answer(self, message: Message, deadline: Deadline) -> Reply:
        self.messages.append(message)
        changes = dict(self.reply)
        return Reply(changes.pop("round", message.round), changes.pop("digest", message.digest), **changes)


class Server:
    def __init__(self, needs_everyone: bool = True) -> None:
        self.needs_everyone, self.events = needs_everyone, {"damped": 1}
        self.updates: list[Reply] = []

    def step(self) -> tuple[dict[str, float], dict[str, Any]]:
        return {"rho": 0.5}, {"natural": np.zeros(3)}

    def update(self, reply: Reply) -> None:
        self.updates.append(reply)

    def measure(self, ask: Callable[..., Reply]) -> None:
        ask("measure", {"a": 1.0, "b": 2.0})


def loop(clients: Clients, server: Server | None = None, count: int = 2, **options: Any) -> Loop:
    return Loop(server or Server(), clients, InProcess(), count, ["anything"], **options)


def test_a_round_asks_updates_and_measures_and_counts_its_bytes() -> None:
    clients, server = Clients(totals={"loss": 3.0}, sums={"x": np.zeros(2)}), Server()
    rounds = loop(clients, server)
    first, second = rounds.round(), rounds.round()
    assert [message.kind for message in clients.messages] == ["step", "measure"] * 2
    assert [message.round for message in clients.messages] == [0, 1, 1, 2]
    assert clients.messages[0].numbers == {"rho": 0.5} and clients.messages[0].arrays["natural"].shape == (3,)
    assert {message.members for message in clients.messages} == {None}
    assert (first.round, second.round, rounds.index) == (1, 2, 2)
    assert first.asked == first.used == [0, 1] and first.excluded == {} and first.events == {"damped": 1}
    assert first.reply is server.updates[0] and first.mean("loss") == 1.5
    # down: a number and three of an array, then two numbers, to two clients each; up: a number and two, twice
    assert (first.bytes_down, second.bytes_down) == (2 * 8 * (4 + 2), 4 * 8 * (4 + 2))
    assert (first.bytes_up, second.bytes_up) == (2 * 8 * (3 + 3), 4 * 8 * (3 + 3))
    assert 0 < first.seconds < 60


def test_those_who_are_asked_are_named_and_everyone_can_be() -> None:
    clients = Clients()
    rounds = loop(clients, count=4, fraction=0.5, seed=3, index=7)
    asked = participants(4, 7, 0.5, 3)
    assert rounds.asked() == asked and len(asked) == 2
    rounds.ask("step")
    rounds.ask("contribute", everyone=True)
    assert [message.members for message in clients.messages] == [tuple(asked), None]
    assert [message.round for message in clients.messages] == [7, 7]
    assert clients.messages[0].numbers == {} and clients.messages[0].arrays == {}
    first = loop(clients, count=40, fraction=0.5)
    assert first.asked() == participants(40, 0, 0.5, 0) and loop(clients, count=40).asked() == list(range(40))


def test_bytes_go_down_to_who_failed_or_is_absent_and_up_from_who_is_in_the_sums() -> None:
    clients = Clients(clients=3, failures={1: "late"}, absent={4: "away", 2: "away"}, totals={"loss": 1.0})
    rounds = loop(clients, Server(needs_everyone=False), count=6)
    played = rounds.round()
    assert played.excluded == {1: "late"} and played.used == [0, 2, 3, 4, 5]
    assert rounds.bytes_down == 6 * 8 * (4 + 2) and rounds.bytes_up == 3 * 8 * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "other"}, r"^reply: expected the digest \w{16} of this run's configuration, got other$"),
        ({"round": 5}, "^reply: expected round 0, got round 5$"),
    ],
)
def test_what_belongs_to_another_run_or_round_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loop(Clients(**changes)).ask("step")

    class Stale(InProcess):
        def broadcast(self, sent: Message) -> Message:
            return Message(sent.kind, changes.get("round", sent.round), changes.get("digest", sent.digest))

    rounds = Loop(Server(), Clients(), Stale(), 2, ["anything"])
    with pytest.raises(ValueError, match=message.replace("reply", "message")):
        rounds.ask("step")


def test_a_lost_client_ends_the_round_where_the_server_needs_it_or_none_is_left() -> None:
    own = ClientError(3, "out of memory")
    lost = Clients(clients=1, failures={5: "late", 3: "raised"})
    with pytest.raises(ClientError, match=r"^client 3: raised$") as caught:
        loop(lost).ask("step")
    assert caught.value.client == 3
    lost.errors = {3: own}
    with pytest.raises(ClientError) as caught:
        loop(lost).ask("step")
    assert caught.value is own
    reply = loop(lost, Server(needs_everyone=False)).ask("step")
    assert reply.failures == {5: "late", 3: "raised"}
    nobody = loop(Clients(clients=0, failures={5: "late", 3: "raised"}), Server(needs_everyone=False), index=2)
    with pytest.raises(ClientError, match=r"^client 3: no client could be used in round 3; this one: raised$"):
        nobody.ask("step")


def test_the_first_rank_says_whether_rounds_go_on() -> None:
    heard: list[Message] = []

    class Two(InProcess):
        size = 2

        def broadcast(self, message: Message) -> Message:
            heard.append(message)
            return Message("done", message.round, message.digest)

    alone, ranks = loop(Clients()), Loop(Server(), Clients(), Two(), 2, ["anything"], index=4)
    assert alone.goes_on(True, 0.5) and not alone.goes_on(False, 0.5)
    assert not ranks.goes_on(True, 0.25) and not ranks.goes_on(False, 0.125)
    assert [message.kind for message in heard] == ["more", "done"]
    assert [message.numbers for message in heard] == [{"gap": 0.25}, {"gap": 0.125}]
    assert {message.round for message in heard} == {4} and {message.digest for message in heard} == {ranks.digest}


def test_a_deadline_passes_and_none_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    never, soon = Deadline(None), Deadline(2.5)
    now[0] = 12.5
    assert never.missed() is None and soon.missed() is None
    now[0] = 13.75
    assert never.missed() is None
    assert soon.missed() == "expected an answer within the deadline of 2.5 s, got none after 3.75 s"


def test_the_smallest_share_of_clients_is_one_and_shares_are_rounded() -> None:
    assert [len(participants(10, 0, fraction, 0)) for fraction in (0.01, 0.14, 0.16, 0.96, 1.0)] == [1, 1, 2, 10, 10]


def pieces() -> int:
    """The pieces that a large loop is split into."""
    found: list[int] = []

    def piece(*part: int) -> int:
        found.append(1)
        return 0

    threads.split(piece, 4 * threads.GRAIN, 4)
    return len(found)


def test_workers_hold_blas_and_kernels_to_one_thread() -> None:
    """In every thread that serves items, and in the caller where it serves them itself."""

    def work(_: int) -> tuple[int, int, str]:
        count = pieces()
        blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        return count, max(blas), threading.current_thread().name

    before = threads.get_num_threads()
    started: list[str] = []
    threads.set_num_threads(2)
    try:
        with Workers(2, started.append, ("ready",)) as pool:
            found = pool.map(work, [1, 2, 3])
            serial = pool.map(work, [1, 2, 3], serial=True)
            single = pool.map(work, [1])
            pair = pool.map(work, [1, 2])
        outside = pieces()
    finally:
        threads.set_num_threads(before)
    assert outside == 2  # a large loop is split
    assert {(count, blas) for count, blas, _ in (*found, *serial, *single)} == {(1, 1)}
    assert all(name.startswith("clients") for *_, name in (*found, *pair))
    assert {name for *_, name in (*serial, *single)} == {threading.current_thread().name}
    assert 1 <= len(started) <= 2 and set(started) == {"ready"}
    assert available_cores() == len(os.sched_getaffinity(0))


def test_the_cores_are_those_of_the_process_where_it_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


def test_workers_serve_again_after_they_were_closed() -> None:
    pool = Workers(2)
    for _ in range(2):
        with pool:
            assert pool.map(lambda x: x + 1, [1, 2, 3]) == [2, 3, 4]
        assert not [t for t in threading.enumerate() if t.name.startswith("clients")]


SHARED: dict[str, Any] = {"family": "full_gaussian", "prior": Gaussian(np.zeros(2), 1.0)}


def test_a_result_in_a_few_lines() -> None:
    clients = [Quadratic(np.eye(2), np.ones(2))] * 3
    done, short = badmm.solve(clients, **SHARED), badmm.solve(clients, **SHARED, rounds=1, alpha=0.2, rho=1.0)
    first, second, third = str(done).splitlines()
    assert first == f"converged after {done.rounds} rounds: gap {done.history[-1].gap:.3g} at most tol 1e-08"
    assert second == f"gap {done.history[-1].gap:.3g}, objective {done.history[-1].objective:.8g}"
    assert third == "Gaussian over 2 coordinates"
    assert str(short).startswith("not converged after 1 rounds: 1 rounds\n")
    assert done.state.gap == done.history[-1].gap and done.state.record is done.history[-1]
    assert [q.mean.shape for q in done.clients] == [(2,)] * 3
    assert done.clients[1].mean == pytest.approx(done.posterior.mean)


def test_a_state_that_was_written_is_read_or_refused() -> None:
    coupled = [Quadratic(np.array([[2.0, c], [c, 1.0]]), np.array([c, 3.0])) for c in (1.0, -0.5, 0.25)]
    state = badmm.solve(coupled, **SHARED | {"family": "diagonal_gaussian"}, rounds=5, tol=0.0).state
    assert state.mixing_lines and state.mixing_totals and state.mixing_changes
    arrays, metadata = state.to_arrays()
    read = SolverState.from_arrays(arrays, metadata)
    assert read.round == 5 and read.records == state.records and dict(read.policy) == dict(state.policy)
    for name in ("natural", "duals", "clients", "total", "sent"):
        for mine, theirs in zip(getattr(state, name), getattr(read, name), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for name in ("mixing_lines", "mixing_totals", "mixing_changes"):
        for mine, theirs in zip(getattr(state, name), getattr(read, name), strict=True):
            assert all(map(np.array_equal, mine, theirs))
    with pytest.raises(ValueError, match=r"^state: expected a family to build the posterior, got a state read from ar"):
        _ = read.posterior
    wanted = "^state: expected the arrays and metadata of SolverState.to_arrays, got "
    for name in ("natural", "duals", "clients"):
        fewer = {key: value for key, value in arrays.items() if not key.startswith(name)}
        with pytest.raises(ValueError, match=f"{wanted}'{name}.0'$"):
            SolverState.from_arrays(fewer, metadata)
    for key in ("round", "policy", "records"):
        with pytest.raises(ValueError, match=f"{wanted}'{key}'$"):
            SolverState.from_arrays(arrays, {k: v for k, v in metadata.items() if k != key})
    with pytest.raises(ValueError, match=wanted):
        SolverState.from_arrays(arrays, metadata | {"records": [{"round": 1}]})


class Site(InProcess):
    """A process whose server is elsewhere: a script of messages in its place."""

    def begin(self, population: Any, answer: Callable[[Message], Reply], digest: str) -> None:
        self.population, self.answer, self.digest = population, answer, digest

    def follow(self) -> Message:
        natural = np.array([0.5, 0.0, 2.0, 0.0, 2.0])  # ξ and the lower triangle of S
        numbers = {"rho": 1.0, "alpha": 1.0, "damping": 1.0, "clients": 2.0, "remember": 0.0}
        self.replies = [
            self.answer(Message("measure", 0, self.digest, arrays={"natural": natural})),
            self.answer(Message("step", 0, self.digest, numbers)),
            self.answer(Message("measure", 1, self.digest, arrays={"natural": natural})),
        ]
        return Message("done", 7, self.digest, {"gap": 1e-9})


def test_a_site_answers_and_ends_where_the_server_says() -> None:
    site = Site()
    clients = [Quadratic(np.eye(2), np.ones(2)), Quadratic(3 * np.eye(2), np.zeros(2))]
    result = badmm.solve(clients, **SHARED, transport=site)
    assert result.rounds == result.state.round == 7 and result.converged and not result.history
    assert result.reason == "gap 1e-09 at most tol 1e-08" and "\n-\n" in str(result)
    assert result.natural[0].tolist() == [0.5, 0.0] and result.natural[1].tolist() == [[2.0, 0.0], [0.0, 2.0]]
    np.testing.assert_allclose(result.duals[1], [-np.eye(2), -3 * np.eye(2)])
    np.testing.assert_allclose(result.duals[0], [-np.ones(2), np.zeros(2)])
    assert [reply.clients for reply in site.replies] == [2, 2, 2]
    assert not badmm.solve(clients, **SHARED, transport=Site(), tol=1e-10).converged


def test_groups_of_arrays_as_one_mapping_and_back() -> None:
    groups = {"server": {"mean": np.arange(3.0), "a.b": np.ones((2, 2)).T}, "clients": {}}
    one = flat(groups)
    assert set(one) == {"server.mean", "server.a.b"} and one["server.a.b"].flags.c_contiguous
    back = grouped(one, ("server", "clients"))
    assert set(back) == {"server", "clients"} and set(back["server"]) == {"mean", "a.b"} and not back["clients"]
    with pytest.raises(ValueError, match=r"^state: expected arrays of server, clients, got 'other\.x'$"):
        grouped({"other.x": np.ones(1)}, ("server", "clients"))
