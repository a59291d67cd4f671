"""Sites that are asked in some rounds, that leave for good or join, and whose terms are outliers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm
from badmm.checks import RankError
from badmm.rounds.loop import participants
from badmm.transports.files import FilesServer, FilesSite
from badmm.transports.messages import Message, Reply
from benchmarks import polled_sites
from benchmarks.polled_sites import Spoil
from benchmarks.simulated_sites import clients

PRIOR = badmm.Gaussian(np.zeros(3), 1.0)
SHARED: dict[str, Any] = {"family": "full_gaussian", "prior": PRIOR, "rounds": 300, "tol": 1e-9, "workers": 1}
OWN = {"north": clients()[:3], "east": clients()[3:4], "south": clients()[4:5], "west": clients()[5:]}


def play(
    folder: Path, names: list[str], arguments: dict[str, Any], spoil: Spoil | None = None, **options: Any
) -> badmm.Result:
    return polled_sites.play(folder, {name: OWN[name] for name in names}, SHARED | arguments, spoil, **options)


def apart(a: badmm.Result, b: badmm.Result) -> float:
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in zip(a.natural, b.natural, strict=True))


def pooled(names: list[str], **more: Any) -> badmm.Result:
    return badmm.solve([client for name in names for client in OWN[name]], **(SHARED | more))


@pytest.mark.parametrize(
    "asked", [{"participation": 0.5}, {"per_round": 2}, {"per_round": 2, "alpha": 0.5, "rho": 1.0}]
)
def test_some_clients_a_round_give_what_they_give_in_one_process(asked: dict[str, Any], tmp_path: Path) -> None:
    names, arguments = list(OWN), asked | {"seed": 4, "rounds": 12, "tol": 0.0}
    found, alone = play(tmp_path, names, arguments), pooled(names, **arguments)
    # one process adds changes to a running sum: the same but for rounding
    assert apart(found, alone) < 1e-12
    assert [record.evaluations for record in found.history] == [record.evaluations for record in alone.history]
    letters = {name: len(list((tmp_path / "share" / "up" / name).glob("0*"))) for name in names}
    drawn = [participants(6, index, 2 / 6 if "per_round" in asked else 0.5, 4) for index in range(12)]
    heard = sum(5 in members for members in drawn)
    assert (
        2 * heard <= letters["west"] <= 2 * heard + 2
    )  # a step and a measure each, and what everyone is asked at first


def test_a_site_that_is_late_while_some_are_asked_changes_no_answer(tmp_path: Path) -> None:
    def fails(name: str, message: Message, reply: Reply) -> Reply:
        lost = name == "east" and message.kind == "step" and message.round % 3 == 1
        return replace(reply, failures={3: "the disk is full"}) if lost else reply

    found = play(tmp_path, list(OWN), {"per_round": 3, "seed": 1}, fails)
    assert found.converged and apart(found, pooled(list(OWN))) < 1e-7
    assert sum(record.absent for record in found.history) > 0


def test_a_site_leaves_for_good_and_another_joins(tmp_path: Path) -> None:
    first = play(tmp_path, ["north", "east", "south"], {})
    assert apart(first, pooled(["north", "east", "south"])) < 1e-12
    state = first.state.regrouped()
    second = play(tmp_path, ["north", "south", "west"], {"state": state, "rounds": 600}, resume=True)
    assert second.converged and apart(second, pooled(["north", "south", "west"], tol=1e-11)) < 1e-8
    assert not (tmp_path / "share" / "up" / "east").exists()


def test_who_left_is_not_let_in_again_by_itself(tmp_path: Path) -> None:
    first = play(tmp_path, ["north", "south"], {})
    play(tmp_path, ["south"], {"state": first.state.regrouped(), "rounds": 600}, resume=True)
    gone = FilesSite(tmp_path / "share", "north", tmp_path / "north")
    with pytest.raises(RankError, match="site north: expected to be one of south"):
        badmm.solve(OWN["north"], transport=gone, **SHARED)


@pytest.mark.parametrize("lie", [1e3, -200.0])
def test_an_outlier_is_refused_and_the_round_completes_with_the_rest(lie: float, tmp_path: Path) -> None:
    def lies(name: str, message: Message, reply: Reply) -> Reply:
        if name != "west" or message.kind != "step" or not 1 <= message.round < 4:
            return reply
        return replace(reply, sums={"contribution": lie * reply.sums["contribution"]})

    found = play(tmp_path, list(OWN), {}, lies, outlier=20.0)
    assert found.converged and apart(found, pooled(list(OWN))) < 1e-7
    lines = [json.loads(line) for line in (tmp_path / "share" / "refused.jsonl").read_text("utf-8").splitlines()]
    assert {(line["site"], line["round"]) for line in lines} == {("west", 1), ("west", 2), ("west", 3)}
    assert all(line["reason"].startswith("outlier: its term is ") for line in lines)
    assert all(
        line["reason"].endswith("times as long as the median of the others', more than 20 times") for line in lines
    )
    assert [record.absent for record in found.history[1:4]] == [1, 1, 1]


def test_lengths_are_per_client_and_an_honest_site_is_believed(tmp_path: Path) -> None:
    found = play(tmp_path, list(OWN), {}, outlier=3.0)  # north has three clients, the others one
    assert found.converged and not (tmp_path / "share" / "refused.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"minimum": 0}, "minimum: expected a positive integer, got 0"),
        ({"outlier": -1.0}, "outlier: expected a positive number, got -1.0"),
    ],
)
def test_a_servers_limits_are_checked(options: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=line):
        FilesServer(tmp_path, ["a"], **options)


def test_fewer_replies_than_the_minimum_end_the_run_by_name(tmp_path: Path) -> None:
    def fails(name: str, message: Message, reply: Reply) -> Reply:
        return replace(reply, failures={3: "the disk is full"}) if name == "east" and message.round == 2 else reply

    with pytest.raises(
        RankError, match="expected at least 4 replies in round 2, got 3; east: client 3: the disk is full"
    ):
        play(tmp_path, list(OWN), {}, fails, minimum=4)
