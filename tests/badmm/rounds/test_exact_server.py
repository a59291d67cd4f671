"""The server of `badmm.solve` by itself: what it makes of the sums that clients send, whoever they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from badmm import Gaussian, ServerDomainError
from badmm.families.registry import bind
from badmm.rounds.exact_server import ExactServer, relative
from badmm.rounds.history import RoundRecord
from badmm.rounds.loop import Played
from badmm.rounds.policy import PATIENCE, Policy, Setting
from badmm.transports.messages import Reply


class Room:
    """A server of one coordinate and two clients, whose sums are given and whose measurements are always the same."""

    def __init__(self, *steps: Setting, whole: bool = True, required: float = 0.25, precision: float = 1.0) -> None:
        family = bind("diagonal_gaussian", Gaussian(np.zeros(1), np.full(1, precision)))
        policy = Policy(2, *(steps or ("auto", "auto", "auto")), mixed_damping=1.0)
        self.server, self.required = ExactServer(family, policy, 2, whole, changes=not whole), required
        self.asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.server.start(family.prior_natural, (), self.ask)

    def ask(self, kind: str, numbers: Any = None, arrays: Any = None, *, everyone: bool = False) -> Reply:
        self.asked.append((kind, dict(numbers or {}), dict(arrays or {})))
        if kind == "contribute":
            assert everyone
            return Reply(0, "", 2, sums={"contribution": np.array([0.5, -0.25])})
        totals = {"loss": 3.0, "squared_distance": 0.08}
        return Reply(0, "", 2, totals=totals, maxima={"required_rho": self.required})

    def round(self, precision: float, shift: float = 0.0, **changes: Any) -> RoundRecord:
        """A round in which the clients' sum is (shift, precision)."""
        self.numbers, _ = self.server.step()
        totals = {"squared_residual": 0.0, "evaluations": 5.0}
        options: dict[str, Any] = {"totals": totals, "maxima": {"evaluations": 3.0}, **changes}
        reply = Reply(0, "", 2, sums={"contribution": np.array([shift, precision])}, **options)
        self.server.update(reply)
        self.server.measure(self.ask)
        return self.server.record(Played(1, [0, 1], reply, self.server.events, 70, 90, 0.5))

    @property
    def natural(self) -> list[float]:
        return [float(slot[0]) for slot in self.server.natural]


def falling(first: float, rate: float, count: int) -> Sequence[float]:
    """Σ c_k of rounds whose change shrinks by the same factor; the limit is first/(1 − rate)."""
    return np.cumsum(first * rate ** np.arange(count)).tolist()


def test_mixed_lines_lead_to_the_limit_of_a_linear_map_and_are_told_to_clients() -> None:
    room = Room()
    records = [room.round(total) for total in falling(-0.05, 0.9, 3)]
    assert [record.mixed for record in records] == [0, 0, 1]
    assert room.natural[1] == pytest.approx(1.0 - 0.05 / (1 - 0.9), rel=1e-6)
    weights = [arrays.get("weights") for kind, _, arrays in room.asked if kind == "measure"]
    assert weights[:3] == [None] * 3
    assert weights[3] == pytest.approx([-9.0, 10.0], rel=1e-6)
    assert room.numbers["remember"] == 1.0 and room.numbers["damping"] == 1.0


def test_mixed_lines_that_leave_the_domain_give_way_to_the_rounds_own() -> None:
    room = Room()
    totals = falling(-0.2, 0.9, 3)  # the limit is a precision of −1
    record = [room.round(total) for total in totals][-1]
    assert record.events == ["server: mixing left the domain, the round's own dual lines were used"]
    assert record.mixed == 0 and "weights" not in room.asked[-1][2]
    assert room.natural[1] == pytest.approx(1.0 + totals[-1], rel=1e-12)
    assert room.server.total[1] == pytest.approx([totals[-1]], rel=1e-12)


def test_a_round_with_absent_clients_is_not_mixed() -> None:
    room = Room()
    for total in falling(-0.05, 0.9, 2):
        room.round(total)
    record = room.round(falling(-0.05, 0.9, 3)[-1], absent=(1,))
    assert record.mixed == 0 and record.absent == 1


def test_a_step_out_of_the_domain_is_halved_until_it_is_inside() -> None:
    room = Room("auto", "auto", "auto")
    record = room.round(-3.0)  # from a precision of 1 towards −2: a quarter of the way is the first inside
    assert record.events == ["server: step shortened to 0.25 of its length to stay in the domain"]
    assert room.natural[1] == pytest.approx(0.25)
    assert record.dual_residual > 1.0
    explicit = Room(1.0, 1.0, 1.0)
    with pytest.raises(ServerDomainError, match=r"left the domain of diagonal_gaussian at rho = 1, alpha = 1, damping"):
        explicit.round(-3.0)


def test_plain_rounds_take_over_where_the_gap_does_not_halve_under_mixing() -> None:
    """The server tells its step sizes which rounds were mixed, what they moved and what is left."""
    room = Room()
    steps = []
    for total in falling(-0.05, 0.9, PATIENCE + 6):  # the clients measure the same distance after every round
        room.round(total)
        steps.append((room.numbers["rho"], room.numbers["alpha"]))
    taken = next(i for i, (_, alpha) in enumerate(steps) if alpha < 1.0)
    assert PATIENCE < taken < PATIENCE + 6
    assert steps[0] == (0.5, 1.0) and set(steps[1:taken]) == {(1.0, 1.0)}
    assert steps[taken] == pytest.approx((1.0, 1 / 3))


def test_the_record_of_a_round() -> None:
    """Residuals by hand: one coordinate, precision 1.25 after the round, changes in posterior standard deviations."""
    room = Room(0.5, 0.4, 1.0)
    record = room.round(0.85, 0.0, totals={"squared_residual": 0.02, "evaluations": 7.0})
    assert room.natural == [0.0, pytest.approx(0.4 * 1.0 + 0.85)]
    primal = math.sqrt(0.08 / 2)
    assert record.primal_residual == pytest.approx(primal, rel=1e-12)
    assert record.dual_residual == pytest.approx(0.6 * primal / 0.4, rel=1e-12)
    assert record.client_residual == pytest.approx(math.sqrt(0.02 / 2), rel=1e-12)
    assert record.gap == record.dual_residual
    assert (record.rho, record.alpha, record.damping) == (0.5, 0.4, 1.0)
    assert record.condition_margin == pytest.approx(0.5 - 0.25)
    assert (record.bytes_up, record.bytes_down, record.seconds) == (70, 90, 0.5)
    assert (record.evaluations, record.most_evaluations) == (7, 3)
    kl = 0.5 * (1 / 1.25 - 1 + math.log(1.25))
    assert record.objective == pytest.approx(3.0 + kl, rel=1e-12)


def test_with_absent_clients_sums_are_changes_of_what_every_client_has_sent() -> None:
    room = Room(1.0, 0.25, 1.0, whole=False)
    kind, numbers, _ = room.asked[0]
    assert (kind, numbers) == ("contribute", {"alpha": 0.25, "clients": 2.0})
    room.round(0.75, 0.125)
    assert room.natural == [pytest.approx(0.5 + 0.125), pytest.approx(0.25 * 1.0 - 0.25 + 0.75)]
    room.round(0.5, 1.0)
    assert room.natural == [pytest.approx(1.625), pytest.approx(0.25 - 0.25 + 0.75 + 0.5)]
    assert room.numbers["remember"] == 0.0


def test_a_sum_that_leads_out_of_the_domain_is_told_before_it_is_used() -> None:
    room = Room(1.0, 1.0, 1.0)
    room.server.step()
    assert room.server.screen({"contribution": np.array([0.0, -0.5])}) is None
    found = room.server.screen({"contribution": np.array([0.0, -1.5])})
    assert found == "the server's natural parameter would leave that of diagonal_gaussian"


def test_a_move_is_measured_slot_by_slot_and_nothing_moved_is_zero() -> None:
    old, new = (np.zeros(2), np.ones(1)), (np.array([3.0, 4.0]), np.array([1.5]))
    assert relative(new, old, (np.array([0.0, 10.0]), np.array([2.0]))) == pytest.approx(0.5)
    assert relative(new, old, (np.array([0.0, 100.0]), np.array([2.0]))) == pytest.approx(0.25)
    assert relative(old, old, (np.zeros(2), np.zeros(1))) == 0.0
    assert relative(new, old, (np.zeros(2), np.ones(1))) == math.inf
