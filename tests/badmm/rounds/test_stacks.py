"""What a round of networks adds up over stacks of clients, its buffers, and its state as arrays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from badmm.clients.federation import ClientData, Federation, LocalSettings, Task
from badmm.methods.fedavg import FedAvg
from badmm.methods.pvi import PVI
from badmm.networks.losses import squared_error
from badmm.networks.models import Linear
from badmm.networks.stacked import Stacked
from badmm.rounds import network_buffers as buffers, network_round as rounds
from badmm.rounds.network_method import State, total, weighted
from tests.badmm.rounds.federated_problems import DIM, SIZES, federation, one_round

K = len(SIZES)


def test_losses_and_gradients_are_counted_over_all_stacks() -> None:
    """Each client's mean loss before its step, and three gradients of each point."""
    fed = federation("squares", epochs=3, lr=0.1)
    played = [one_round(FedAvg(), fed, largest=largest)[1] for largest in (1, 2, 4)]
    for one in played[1:]:
        assert one.reply.totals["loss"] == pytest.approx(played[0].reply.totals["loss"], rel=1e-12)
    assert {one.reply.totals["gradients"] for one in played} == {3.0 * sum(SIZES)}
    assert {one.reply.totals["split"] for one in played} == {0.0} and played[0].used == [0, 1, 2, 3]
    first = federation("squares", epochs=1, lr=0.1)
    losses = []
    for rows in first.data.rows:
        x, y = first.data.points(rows, first.dtype)
        losses.append(0.5 * float(((x @ torch.full((DIM,), 0.1).double() - y) ** 2).mean()))
    assert one_round(FedAvg(), first)[1].mean("loss") == pytest.approx(np.mean(losses), rel=1e-6)


def test_a_stack_that_fails_as_a_whole_is_trained_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that raises is left out by name; a stack that is too large for the machine is halved and told."""
    work, largest, broken = FedAvg.client, [2], [2]

    def client(self: FedAvg, state: State, task: Task) -> Any:
        if len(task.members) > largest[0]:
            raise MemoryError("too large")
        if task.members == broken:
            raise OSError("no disk")
        return work(self, state, task)

    monkeypatch.setattr(FedAvg, "client", client)
    fed = federation("squares", epochs=2, lr=0.1)
    state, played = one_round(FedAvg(), fed)
    assert played.used == [0, 1, 2, 3] and played.events == {rounds.SPLIT: 1}
    assert one_round(FedAvg(), fed, largest=3)[1].events == {}  # stacks of two
    largest[0] = 1
    assert one_round(FedAvg(), fed, largest=2)[1].events == {rounds.SPLIT: 1}  # the other of two has the broken one
    broken.clear()
    assert one_round(FedAvg(), fed, largest=2)[1].events == {rounds.SPLIT: 2}
    broken.append(2)
    again, apart = one_round(FedAvg(), fed)
    assert apart.used == [0, 1, 3] and apart.excluded == {2: "raised OSError: no disk"}
    monkeypatch.setattr(FedAvg, "client", work)
    whole, together = one_round(FedAvg(), fed)
    torch.testing.assert_close(state.server["mean"], whole.server["mean"], rtol=1e-12, atol=1e-14)
    assert together.events == {} and not torch.equal(again.server["mean"], whole.server["mean"])


def test_buffers_are_averaged_with_the_clients_weights() -> None:
    fed: Any = SimpleNamespace(weights=torch.tensor([1.0, 3.0, 2.0]))
    rows = torch.tensor([[1.0, 2.0], [5.0, -2.0]])
    sums = buffers.reduce(fed, torch.tensor([0, 1]), rows)
    assert sums.dtype == torch.float64 and sums.tolist() == [16.0, -4.0, 4.0]
    assert buffers.average(sums, torch.float32).tolist() == [4.0, -1.0]
    task: Any = SimpleNamespace(members=[2, 0], index=torch.tensor([2, 0]))
    kept = {buffers.NAME: torch.arange(6.0).view(3, 2)}
    server = {buffers.NAME: torch.tensor([7.0, 8.0])}
    own, shared = buffers.of_task(server, kept, task), buffers.of_task(server, {}, task)
    assert own is not None and own.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert shared is not None and shared.tolist() == [[7.0, 8.0], [7.0, 8.0]]
    assert buffers.of_task({}, {}, task) is None
    for policy, local in (("average", False), ("local", True)):
        own = torch.tensor([1.0, 2.0])
        start: Any = SimpleNamespace(initial_buffers=own, num_clients=3, stack=SimpleNamespace(policy=policy))
        ours: dict[str, Any] = {}
        theirs: dict[str, Any] = {}
        buffers.begin(start, ours, theirs)
        assert ours[buffers.NAME].tolist() == [1.0, 2.0] and ours[buffers.NAME] is not own
        assert (buffers.NAME in theirs) == local
        assert not local or theirs[buffers.NAME].tolist() == [[1.0, 2.0]] * 3
        ours[buffers.NAME] += 1
        buffers.begin(start, ours, theirs)
        assert ours[buffers.NAME].tolist() == [2.0, 3.0]


def test_sums_are_taken_in_float64_with_weights_or_without() -> None:
    rows = torch.tensor([[1.0, 1e8], [2.0, 1.0], [4.0, -1e8]], dtype=torch.float32)
    assert total(rows).dtype == torch.float64 and total(rows).tolist() == [7.0, 1.0]
    assert total(rows, torch.tensor([1.0, 2.0, 3.0])).tolist() == [17.0, -2e8 + 2.0]
    fed: Any = SimpleNamespace(weights=torch.tensor([0.5, 1.5, 1.0]))
    found = weighted(fed, torch.tensor([0, 2]), {"theta": rows[:2]})
    assert found["theta"].tolist() == [2.5, 0.5e8 + 1.0] and float(found["weight"]) == 1.5


def test_a_state_is_arrays_and_back() -> None:
    state, _ = one_round(PVI(), federation("squares", epochs=1, lr=0.05))
    arrays, _ = state.to_arrays()
    back = State.from_arrays(arrays, state.round)
    assert back.round == state.round == 1
    for mine, theirs in ((state.server, back.server), (state.clients, back.clients)):
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
    with pytest.raises(ValueError, match=r"^state: expected arrays of server, clients, got 'other\.x'$"):
        State.from_arrays(arrays | {"other.x": np.ones(1)}, 1)


def test_the_example_of_a_federation_is_of_its_largest_client() -> None:
    """A network's traits are found with it: one point is too few for some layers."""
    inputs = torch.arange(30.0).view(10, 3)
    data = ClientData(inputs, torch.zeros(10), (torch.arange(1), torch.arange(1, 8), torch.arange(8, 10)))
    fed = Federation(data, Stacked(Linear(3), squared_error()), LocalSettings(), seed=0, dtype=torch.float32)
    assert torch.equal(fed.example, inputs[1:5])
    assert fed.counts == [1, 7, 2] and fed.weights.tolist() == pytest.approx([0.3, 2.1, 0.6])
    with pytest.raises(
        ValueError, match=r"^rows: expected at least one client and one point each, got sizes \[1, 0\]$"
    ):
        Federation(
            ClientData(inputs, torch.zeros(10), (torch.arange(1), torch.arange(0))),
            fed.stack,
            fed.settings,
            0,
            fed.dtype,
        )
