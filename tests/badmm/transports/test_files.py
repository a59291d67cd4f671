"""Sites that exchange files with a server: the posterior of one process, whatever happens on the way."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm
from badmm.checks import RankError
from badmm.transports.files import FilesServer, FilesSite, server, site
from badmm.transports.files.share import Share, UnfitError, content, read, write
from badmm.transports.messages import Message, Reply
from benchmarks import simulated_sites as faults
from tests.badmm.transports.rank_program import PROBLEMS, problem_of, solve_arguments


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (server, site):
        monkeypatch.setattr(side, "POLL", 0.003)


def federate(folder: Path, own: dict[str, list[Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of the server and of every site, each in a thread of its own."""
    found: dict[str, Any] = {}

    def play(name: str) -> None:
        transport = FilesSite(folder / "share", name, folder / name)
        found[name] = badmm.solve(own[name], transport=transport, workers=1, **arguments)

    threads = [threading.Thread(target=play, args=(name,)) for name in own]
    for thread in threads:
        thread.start()
    transport = FilesServer(folder / "share", list(own))
    found["server"] = badmm.solve([], transport=transport, workers=1, **arguments)
    for thread in threads:
        thread.join(60)
    return found


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "family"), PROBLEMS)
def test_sites_give_the_posterior_of_one_process(name: str, family: str, tmp_path: Path) -> None:
    problem = problem_of(name)
    arguments = solve_arguments(problem, family)
    alone = badmm.solve(problem.clients, workers=1, **arguments)
    # a client per site adds in the order of clients: the same bits
    each = {f"site-{k}": [client] for k, client in enumerate(problem.clients)}
    few = {"north": problem.clients[:3], "south": problem.clients[3:]}
    for place, own in (("each", each), ("few", few)):
        found = federate(tmp_path / place, own, arguments)
        for i, expected in enumerate(alone.natural):
            summed = found["server"].natural[i]
            assert np.abs(summed - expected).max() <= 1e-12 * np.abs(expected).max()
            assert place == "few" or np.array_equal(summed, expected)
            assert all(np.array_equal(one.natural[i], summed) for one in found.values())
            duals = np.concatenate([found[name].duals[i] for name in own])
            assert np.abs(duals - alone.duals[i]).max() <= 1e-12 * np.abs(alone.duals[i]).max()
        assert found["server"].converged == alone.converged == found[next(iter(own))].converged
        assert found["server"].history[-1].bytes_up == alone.history[-1].bytes_up


def test_seeded_faults_change_no_answer() -> None:
    """As many as twenty seconds take; `python -m benchmarks.faults` plays hundreds and writes their table."""
    began, played = time.monotonic(), []
    offset = 7
    for number in range(10 * len(faults.KINDS)):
        kind = faults.KINDS[(offset * number) % len(faults.KINDS)]
        played.append(faults.play(kind, number // len(faults.KINDS)))
        if time.monotonic() - began > 20:
            break
    assert [outcome for outcome in played if outcome.verdict == "WRONG"] == []
    named = [outcome for outcome in played if outcome.ended]
    assert {outcome.fault.kind for outcome in named} <= set(faults.AT_START)
    assert sum(outcome.fault.struck for outcome in played) > len(played) // 2


def test_what_is_refused_is_logged_with_site_and_reason() -> None:
    for kind, reason in (
        ("NaN in a reply", "not finite: contribution has 1 such numbers"),
        ("poisoned: outside the domain", "outside the domain: the server's natural parameter would leave"),
        ("reply late", "late: no reply within 5 s"),
        ("wrong shape", "wrong shape: expected"),
    ):
        outcome = faults.play(kind, 3)
        assert outcome.verdict == "same posterior", outcome
        if outcome.refused:
            line = json.loads(outcome.refused[0])
            assert line["site"] == outcome.fault.site and line["reason"].startswith(reason)
    for kind, text in (
        ("another configuration at a site", "configuration: expected the digest"),
        ("another order of columns at a site", "columns: expected ['age', 'dose', 'weight'], got ['dose', 'age', "),
    ):
        outcome = faults.play(kind, 0)
        assert outcome.ended.startswith(f"site {outcome.fault.site}: {text}")


def test_a_wrong_answer_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of what is finite the same fault goes through."""
    monkeypatch.setattr(faults, "SAME", -1.0)
    assert faults.play("clock wrong", 0).verdict == "WRONG"


@pytest.mark.usefixtures("quick")
def test_a_site_that_does_not_approve_stays_away(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def approve(message: Message, reply: Reply) -> bool:
        seen.append((message.kind, reply.nbytes))
        return message.kind != "step"

    clients = faults.clients()
    arguments: dict[str, Any] = {"family": "full_gaussian", "prior": badmm.Gaussian(np.zeros(3), 1.0), "rounds": 12}

    def play(name: str, own: list[Any], **options: Any) -> None:
        badmm.solve(own, transport=FilesSite(tmp_path / "s", name, tmp_path / name, **options), workers=1, **arguments)

    threads = [
        threading.Thread(target=play, args=("a", clients[:4])),
        threading.Thread(target=play, args=("b", clients[4:]), kwargs={"approve": approve}),
    ]
    for thread in threads:
        thread.start()
    result = badmm.solve([], transport=FilesServer(tmp_path / "s", ["a", "b"]), workers=1, **arguments)
    for thread in threads:
        thread.join(60)
    without = badmm.solve(clients[:4], workers=1, **arguments)
    assert not result.converged and result.history[-1].absent == 2
    # at alpha = 1 an absent client's dual is zero: the posterior of the others
    for mine, theirs in zip(result.natural, without.natural, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    assert ("step", 8 * (3 + 6 + 3)) in seen


def test_a_server_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"site: expected a name of letters, digits and . _ -, got '../x'"):
        FilesServer(tmp_path, ["../x"])
    with pytest.raises(ValueError, match=r"sites: expected at least one name, each once, got \['a', 'a'\]"):
        FilesServer(tmp_path, ["a", "a"])
    one = FilesServer(tmp_path, ["a"])
    one.broadcast(Message("measure", 0, "d", arrays={"natural": np.ones(3)}))
    with pytest.raises(ValueError, match="folder: expected one that no run has used"):
        FilesServer(tmp_path, ["a"])
    with pytest.raises(RankError, match="site b: expected to follow a server"):
        FilesSite(tmp_path, "b", tmp_path / "b").broadcast(Message("step", 0, "d"))


def test_a_file_is_a_header_that_a_person_can_read_and_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "000001.safetensors"
    reply = Reply(4, "abc", 2, {"contribution": np.arange(3.0)}, {"loss": 1.5}, notes=("client 1: slow",))
    write(path, "north", 1, reply)
    text = path.read_bytes()
    assert b'"sender":"north"' in text and b"client 1: slow" in text
    found = read(path, "reply", "north", 1).reply()
    assert np.array_equal(found.sums["contribution"], reply.sums["contribution"]) and found.totals == reply.totals
    with pytest.raises(UnfitError, match="misplaced: expected reply south 1, got reply north 1"):
        read(path, "reply", "south", 1)
    for place in range(0, len(text), 7):
        path.write_bytes(text[:place] + bytes([text[place] ^ 4]) + text[place + 1 :])
        with pytest.raises(UnfitError):
            read(path, "reply", "north", 1)
    assert Share(tmp_path).newest() == 0


def test_a_question_is_known_by_what_it_asks() -> None:
    one = Message("step", 3, "d", {"rho": 1.0})
    assert content(one) == content(Message("step", 3, "d", {"rho": 1.0}))
    assert content(one) != content(Message("step", 3, "d", {"rho": 1.5}))
    natural = {"natural": np.ones(3)}
    measure = Message("measure", 3, "d", arrays=natural)
    assert content(measure) == content(Message("measure", 3, "d", arrays=natural | {"weights": np.ones(2)}))
    assert content(measure) != content(Message("measure", 3, "d", arrays={"natural": np.zeros(3)}))
