"""What `badmm.solve` asks of a transport and of clients: what an engine may have beside two calls, seeds, counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import badmm
from badmm import ClientError, Gaussian
from badmm.clients.federation import ClientData, Federation, LocalSettings
from badmm.families.registry import bind
from badmm.likelihoods import Quadratic
from badmm.methods.fedavg import FedAvg
from badmm.networks.losses import squared_error
from badmm.networks.stacked import Stacked
from badmm.rounds import network_round
from badmm.rounds.exact_server import ExactServer
from badmm.rounds.history import SolverState
from badmm.rounds.network_buffers import NAME
from badmm.rounds.policy import Policy
from badmm.transports import InProcess, Message, Reply
from tests.badmm.rounds.federated_problems import DIM, SIZES, federation
from tests.badmm.rounds.test_loop import on_ranks

PRIOR = Gaussian(np.zeros(2), 1.0)
SHARED: dict[str, Any] = {"family": "diagonal_gaussian", "prior": PRIOR, "tol": 0.0, "workers": 1}


def quadratics(count: int = 4) -> list[Quadratic]:
    rng = np.random.default_rng(3)
    return [Quadratic(np.array([[2.0 + k, 0.9], [0.9, 1.0]]), rng.normal(size=2)) for k in range(count)]


class Kept(InProcess):
    """Keeps the replies."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def reduce(self, reply: Any) -> Reply:
        self.replies.append(super().reduce(reply))
        return self.replies[-1]


class Remembers(Kept):
    """Every client's last terms are in what is sent, whoever takes part."""

    remembers = True


def test_an_engine_that_remembers_is_sent_the_terms_of_all_and_not_their_changes() -> None:
    engine = Remembers()
    usual = badmm.solve(quadratics(), **SHARED, rounds=5, per_round=2)
    ours = badmm.solve(quadratics(), **SHARED, rounds=5, per_round=2, transport=engine)
    for one, other in zip(ours.natural, usual.natural, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert not ours.state.mixing_lines and ours.history[-1].gap == pytest.approx(usual.history[-1].gap, rel=1e-6)
    family = bind("diagonal_gaussian", PRIOR)
    last = [reply for reply in engine.replies if "contribution" in reply.sums][-1]
    whole = family.unpack(last.sums["contribution"])
    for slot, own in zip(whole, ours.state.total, strict=True):
        np.testing.assert_allclose(slot, own, rtol=1e-12)


class Judged(InProcess):
    judge: Any = None


def test_an_engine_that_screens_is_given_the_server() -> None:
    engine = Judged()
    result = badmm.solve(quadratics(), **SHARED, rounds=2, transport=engine)
    assert isinstance(engine.judge, ExactServer) and engine.judge.numbers == 4
    assert engine.judge.inside(np.array([0.0, 0.0, 1.0, 2.0])) and not engine.judge.inside(np.array([0.0, 0, 1, -2]))
    size = engine.judge.length({"contribution": np.concatenate([result.natural[1], np.zeros(2)])})
    # ξ = S m moves the mean by 1 in each coordinate, m_i of deviation 1/√S_i
    assert size == pytest.approx(np.sqrt(result.natural[1].sum()), rel=1e-12)
    assert engine.judge.length({"contribution": np.zeros(4)}) == 0.0


class Settles(InProcess):
    def __init__(self) -> None:
        self.settled: list[Any] = []

    def settle(self, error: BaseException | None) -> None:
        self.settled.append(error)


class Broken(Quadratic):
    def expectations(self, posterior: Any) -> Any:
        raise OSError("no disk")


def test_ranks_that_settle_are_told_how_the_run_ended() -> None:
    engine = Settles()
    badmm.solve(quadratics(), **SHARED, rounds=1, transport=engine)
    assert engine.settled == [None]
    with pytest.raises(ClientError) as caught:
        badmm.solve([*quadratics(1), Broken(np.eye(2), np.ones(2))], **SHARED, transport=engine)
    assert engine.settled[1:] == [caught.value]


def test_ranks_count_their_clients_first() -> None:
    engine = Kept()
    badmm.solve(quadratics(3), **SHARED, rounds=1, transport=engine)
    first = engine.replies[0]
    assert (first.round, first.clients, first.sums["clients"].tolist()) == (0, 3, [3.0])
    assert {reply.clients for reply in engine.replies} == {3}


class Noted(Quadratic):
    """Notes how it is configured."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__(np.eye(2), np.ones(2))
        self.notes = notes

    def configured(self, expectation: Any, seed: int = 0) -> Noted:
        self.notes.append((expectation, seed))
        return self


def test_clients_are_configured_with_seeds_of_their_own_on_whichever_rank_they_live() -> None:
    def seeds(size: int, seed: int) -> list[Any]:
        notes: list[list[Any]] = [[] for _ in range(4)]
        own = [Noted(one) for one in notes]
        parts = [own[4 * rank // size : 4 * (rank + 1) // size] for rank in range(size)]
        options: dict[str, Any] = {**SHARED, "rounds": 1, "seed": seed, "expectation": "delta"}
        for found in on_ranks(size, lambda rank: badmm.solve(parts[rank.rank], **options, transport=rank)):
            assert isinstance(found, badmm.Result)
        return [one for (one,) in notes]

    alone = seeds(1, 5)
    assert {expectation for expectation, _ in alone} == {"delta"}
    assert len({seed for _, seed in alone}) == 4 and all(type(seed) is int for _, seed in alone)
    assert seeds(2, 5) == seeds(4, 5) == alone != seeds(1, 6)


def test_a_state_whose_clients_are_others_has_the_step_sizes_of_a_first_round() -> None:
    found = badmm.solve(quadratics(), **SHARED, rounds=6)
    for state in (found.state.without([1]), found.state.joined_by(2)):
        fresh = Policy(3, "auto", "auto", "auto").state()
        kept = {name: found.state.policy[name] for name in ("round", "plain_rho")}
        assert dict(state.policy) == fresh | kept
        assert not (state.records or state.total or state.sent or state.mixing_lines or state.mixing_changes)
        assert not state.mixing_totals and state.round == 6 and state.natural is found.state.natural
    assert [len(slot) for slot in found.state.joined_by(2).duals] == [6, 6]
    assert [len(slot) for slot in found.state.without([1]).clients] == [3, 3]
    with pytest.raises(ValueError, match=r"^clients: expected indices from 0 to 3, got \[-1, 4\]$"):
        found.state.without([4, -1])


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = badmm.solve(quadratics(), **SHARED, rounds=2).state

    def refused(message: str, state: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match="expected") as caught:
            badmm.solve(quadratics(), **SHARED, **options, state=state)
        assert str(caught.value) == message

    three = tuple(slot[:3] for slot in state.duals)
    refused("state: expected a SolverState, got dict", {})
    refused("state: expected no start or duals beside it, got both", state, start=PRIOR)
    refused("state: expected no start or duals beside it, got both", state, duals=state.duals)
    refused("state.duals[0]: expected shape (4, 2), got (3, 2)", dataclasses.replace(state, duals=three))
    refused("state.clients: expected 2 arrays, got 1", dataclasses.replace(state, clients=state.clients[:1]))
    refused("state.sent[0]: expected shape (4, 2), got (3, 2)", dataclasses.replace(state, sent=three))
    refused("state.natural: expected 2 arrays, got 0", dataclasses.replace(state, natural=()))


def test_a_run_goes_on_without_a_client_also_where_sums_are_sent_as_the_posterior_sees_them() -> None:
    """The terms of those who are left are asked for at the state's λ_g, before anything is measured there."""
    shared = SHARED | {"family": badmm.LowRankGaussian(rank=1)}
    clients = quadratics()
    whole = badmm.solve(clients, **shared, rounds=3)
    rest = badmm.solve([*clients[:1], *clients[2:]], **shared, rounds=40, state=whole.state.without([1]))
    never = badmm.solve([*clients[:1], *clients[2:]], **shared, rounds=40)
    for one, other in zip(rest.natural, never.natural, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def test_a_run_that_cannot_go_on_without_a_client_says_so() -> None:
    """Its dual held the others' in the domain: −Σ η_S of those who are left is below −λ_0."""
    state = badmm.solve(quadratics(), **SHARED, rounds=2).state
    duals = state.duals[1].copy()
    duals[0], duals[1] = 5.0, -5.0
    held = dataclasses.replace(state, duals=(state.duals[0], duals))
    message = r"^the natural parameter of the clients that are left is outside the domain of diagonal_gaussian$"
    with pytest.raises(badmm.ServerDomainError, match=message):
        badmm.solve(quadratics(1), **SHARED, state=held.without([1, 2, 3]))


@pytest.mark.parametrize("callbacks", [3, "words", [1], [print, None]])
def test_callbacks_are_functions(callbacks: Any) -> None:
    with pytest.raises(ValueError, match=r"^callbacks: expected functions of the state, got ") as caught:
        badmm.solve(quadratics(), **SHARED, callbacks=callbacks)
    assert str(caught.value).endswith(repr(callbacks))


@pytest.mark.parametrize("tol", [True, "1", None, -1e-9, float("nan"), float("inf")])
def test_a_tolerance_is_a_number_of_at_least_zero(tol: Any) -> None:
    with pytest.raises(ValueError, match=r"^tol: expected a number of at least 0, got ") as caught:
        badmm.solve(quadratics(), **SHARED | {"tol": tol})
    assert str(caught.value).endswith(f"got {tol!r}")


def test_starts_and_duals_are_checked_and_taken() -> None:
    start = (np.array([0.5, -0.5]), np.array([2.0, 3.0]))
    duals = (np.full((4, 2), 0.1), np.full((4, 2), 0.2))
    states: list[SolverState] = []
    for given in (start, Gaussian(start[0] / start[1], start[1])):
        run = badmm.solve(quadratics(), **SHARED, rounds=1, rho=1e6, alpha=1e-3, damping=1e-3, start=given, duals=duals)
        states.append(run.state)
    for state in states:  # steps so short that all stays where it was
        np.testing.assert_allclose(state.duals[0], duals[0], rtol=0.1)
        np.testing.assert_allclose(state.clients[1], np.tile(start[1], (4, 1)), rtol=1e-3)
    outside = (start[0], -start[1])
    with pytest.raises(
        ValueError, match=r"^start: expected a natural parameter in the domain of diagonal_gaussian, got"
    ):
        badmm.solve(quadratics(), **SHARED, start=outside)
    with pytest.raises(ValueError, match=r"^start\[1\]: expected shape \(2,\), got \(3,\)$"):
        badmm.solve(quadratics(), **SHARED, start=(start[0], np.ones(3)))
    with pytest.raises(ValueError, match=r"^start\[0\]: expected real numbers, got text, first 'a'$"):
        badmm.solve(quadratics(), **SHARED, start=(np.array(["a", "b"]), start[1]))
    with pytest.raises(ValueError, match=r"^duals: expected 2 arrays, got ndarray$"):
        badmm.solve(quadratics(), **SHARED, duals=np.ones(2))  # type: ignore[arg-type]


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_bytes_do_not_depend_on_which_rank_has_the_clients_of_a_round(seed: int) -> None:
    """A rank without a client of the round sends nothing, and hides nothing of what the others send."""

    def play(transport: Any) -> list[tuple[int, int]]:
        fed = federation("squares", epochs=1, lr=0.1)
        fed.seed = seed
        state, found = FedAvg().start(fed, torch.zeros(DIM, dtype=torch.float64)), []
        for _ in range(2):
            played = network_round.play(FedAvg(), fed, state, lr=0.1, fraction=0.25, transport=transport)
            found.append((played.bytes_up, played.bytes_down))
        return found

    alone = play(InProcess())
    assert alone[0][0] == 8 * DIM
    assert on_ranks(2, play) == [alone, alone]


def normed(policy: Any, dtype: torch.dtype = torch.float64) -> Federation:
    """Clients of a network with batch normalisation, whose inputs have means of their own."""
    rng = np.random.default_rng(0)
    means = np.repeat([1.0, 2.0, 4.0, 8.0], SIZES)
    x = torch.tensor(rng.normal(size=(sum(SIZES), DIM)) + means[:, None])
    rows = torch.arange(sum(SIZES)).split(SIZES)
    network = nn.Sequential(nn.BatchNorm1d(DIM, momentum=1.0), nn.Linear(DIM, 1)).to(dtype)
    data = ClientData(x.to(dtype), x.sum(dim=1).to(dtype), tuple(rows))
    settings = LocalSettings("sgd", lr=0.01, epochs=1, batch_size=None)
    return Federation(data, Stacked(network, squared_error(), buffers=policy), settings, 0, dtype)


@pytest.mark.parametrize("policy", ["average", "local"])
@pytest.mark.parametrize("largest", [1, 4])
def test_a_networks_buffers_travel_with_its_clients(policy: str, largest: int) -> None:
    """At momentum 1 a client's running mean is that of its points; the server's is that of those who took part."""
    fed = normed(policy)
    state = FedAvg().start(fed, fed.stack.initial(fed.dtype, fed.device))
    played = network_round.play(FedAvg(), fed, state, lr=0.01, largest=largest, fraction=0.5)
    used = played.used
    assert len(used) == 2
    own = torch.stack([fed.data.inputs[rows].mean(dim=0) for rows in fed.data.rows])
    weights = fed.weights[used].unsqueeze(1)
    wanted = (weights * own[used]).sum(dim=0) / weights.sum()
    torch.testing.assert_close(state.server[NAME][:DIM], wanted, rtol=1e-12, atol=1e-12)
    assert (NAME in state.clients) == (policy == "local")
    if policy == "local":
        torch.testing.assert_close(state.clients[NAME][used, :DIM], own[used], rtol=1e-12, atol=1e-12)
        rest = [client for client in range(len(SIZES)) if client not in used]
        assert (state.clients[NAME][rest, :DIM] == 0).all()


def test_a_networks_buffers_have_the_dtype_of_its_training() -> None:
    fed = normed("average", torch.float32)
    assert fed.initial_buffers.dtype == torch.float32
    state = FedAvg().start(fed, fed.stack.initial(fed.dtype, fed.device))
    network_round.play(FedAvg(), fed, state, lr=0.01)
    assert state.server[NAME].dtype == torch.float32


def test_messages_hold_the_numbers_of_a_step() -> None:
    sent: list[Message] = []

    class Heard(InProcess):
        def broadcast(self, message: Message) -> Message:
            sent.append(message)
            return message

    badmm.solve(quadratics(), **SHARED, rounds=1, rho=0.5, alpha=0.25, damping=0.75, transport=Heard())
    assert [message.kind for message in sent] == ["measure", "step", "measure"]
    numbers = {"rho": 0.5, "alpha": 0.25, "damping": 0.75, "clients": 4.0, "remember": 0.0}
    assert sent[1].numbers == numbers and not sent[1].arrays
    other: list[dict[str, Any]] = [
        {},
        {"expectation": "delta"},
        {"temperature": 2.0},
        {"method": "newton"},
        *({"family": family} for family in ("full_gaussian", badmm.LowRankGaussian(1), badmm.LowRankGaussian(2))),
    ]
    digests = []
    for change in other:  # what all ranks must agree on
        badmm.solve(quadratics(), **SHARED | {"rounds": 1} | change, transport=Heard())
        digests.append(sent[-1].digest)
    assert len(set(digests)) == len(other) and digests[0] == sent[0].digest
