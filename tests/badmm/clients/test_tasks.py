"""A round's task: minibatches and random numbers from each client's own streams, and whose inputs stand for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from badmm.clients import federation as module
from badmm.clients.federation import ClientData, Federation, LocalSettings, Task
from badmm.clients.training import PenalizedDescent, train
from badmm.networks.losses import squared_error
from badmm.networks.models import Linear
from badmm.networks.stacked import Stacked
from badmm.streams import Purpose, generator, torch_generator
from tests.badmm.rounds import federated_problems
from tests.badmm.rounds.test_federated_training import SIZES, federation

MEMBERS = [1, 3, 2, 0, 4]
"""By falling number of steps."""


@pytest.mark.parametrize("batch", [None, 1, 4, 5, 100])
def test_minibatches_are_cut_from_a_permutation_of_the_clients_own_stream(batch: int | None) -> None:
    """In order, every epoch from the start; the last of an epoch is what is left; a padded place repeats a point."""
    fed = federation(batch_size=batch, epochs=2)
    for number in (0, 5):
        index, weights = Task(fed, MEMBERS, number, 0.1).batches()
        assert index.shape == weights.shape == (max(map(fed.steps, MEMBERS)), 5, max(map(fed.batch, MEMBERS)))
        assert weights.dtype == fed.dtype and index.dtype == torch.int64
        for place, client in enumerate(MEMBERS):
            rng, rows, step = generator(fed.seed, Purpose.ORDER, number, client), fed.data.rows[client], 0
            for _ in range(2):
                for part in rows[torch.from_numpy(rng.permutation(SIZES[client]))].split(batch or SIZES[client]):
                    size = len(part)
                    assert torch.equal(index[step, place, :size], part)
                    assert weights[step, place, :size].tolist() == [1.0 / size] * size
                    assert not weights[step, place, size:].any()
                    step += 1
            assert step == fed.steps(client) and not weights[step:, place].any()
            assert set(index[:, place].flatten().tolist()) <= set(rows.tolist())


def test_random_numbers_are_of_seed_purpose_round_and_client() -> None:
    fed = federation()
    for number in (0, 3):
        task = Task(fed, MEMBERS, number, 0.1)
        found = [torch.rand(3, generator=one).tolist() for one in task.generators(Purpose.NOISE)]
        wanted = [torch_generator(fed.seed, Purpose.NOISE, number, client) for client in MEMBERS]
        assert found == [torch.rand(3, generator=one).tolist() for one in wanted]
        streams = [generator(fed.seed, Purpose.DROPOUT, number, client).random() for client in MEMBERS]
        assert [one.random() for one in task.streams()] == streams
    still = Federation(fed.data, fed.stack, fed.settings, 3, fed.dtype)
    still.draws = False
    assert Task(still, MEMBERS, 0, 0.1).streams() == []


def test_sizes_and_weights_are_the_members() -> None:
    fed = federation()
    task = Task(fed, MEMBERS, 0, 0.1)
    sizes = torch.tensor(SIZES, dtype=torch.float64)[MEMBERS]
    assert torch.equal(task.sizes, sizes[:, None]) and task.index.tolist() == MEMBERS
    torch.testing.assert_close(task.weights, 5 * sizes[:, None] / sum(SIZES), rtol=1e-15, atol=0)
    assert task.steps == [18, 12, 12, 6, 3]


class Torn(ClientData):
    """Points of which some clients' cannot be read."""

    unreadable: tuple[int, ...] = ()

    def points(self, index: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        for client in self.unreadable:
            if set(index.flatten().tolist()) & set(self.rows[client].tolist()):
                raise OSError(f"client {client} cannot be read")
        return super().points(index, dtype, out)


@pytest.mark.parametrize(("unreadable", "client"), [((), 1), ((1,), 2), ((1, 2), 0), ((0, 1), 2), ((0, 1, 2), None)])
def test_the_largest_client_that_can_be_read_shows_what_the_network_takes(
    unreadable: tuple[int, ...], client: int | None
) -> None:
    rows = torch.arange(3), torch.arange(3, 12), torch.arange(12, 17)
    data = Torn(torch.arange(34.0).view(17, 2), torch.zeros(17), rows)
    object.__setattr__(data, "unreadable", unreadable)
    arguments: Any = data, Stacked(Linear(2), squared_error()), LocalSettings(), 0, torch.float32
    if client is None:
        with pytest.raises(OSError, match="client 0 cannot be read"):
            Federation(*arguments)
        return
    assert torch.equal(Federation(*arguments).example, data.inputs[rows[client][: module._EXAMPLES]])


@pytest.mark.parametrize("rows", [(), ((0, 1), ())])
def test_a_federation_without_a_client_or_a_point_is_refused(rows: Any) -> None:
    data = ClientData(torch.zeros(2, 2), torch.zeros(2), tuple(torch.tensor(one, dtype=torch.long) for one in rows))
    sizes = [len(one) for one in rows]
    with pytest.raises(ValueError, match="rows: expected at least one") as caught:
        Federation(data, Stacked(Linear(2), squared_error()), LocalSettings(), 0, torch.float32)
    assert str(caught.value) == f"rows: expected at least one client and one point each, got sizes {sizes}"


def test_whole_data_sets_pass_in_blocks_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = federation()
    task, other = Task(fed, [1, 2], 0, 0.1), Task(fed, [1, 2], 0, 0.1)
    flat = fed.stack.initial(fed.dtype).repeat(2, 1)
    slopes, curvatures = task.full_gradient(flat), task.curvature(flat)
    asked: list[int] = []
    read = ClientData.points

    def noted(self: ClientData, index: Tensor, *rest: Any) -> Any:
        asked.append(index.numel())
        return read(self, index, *rest)

    monkeypatch.setattr(module, "_BLOCK", 10)
    monkeypatch.setattr(ClientData, "points", noted)
    torch.testing.assert_close(other.full_gradient(flat), slopes, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(other.curvature(flat), curvatures, rtol=1e-12, atol=1e-14)
    assert asked == 2 * [10, 10, 3, 10, 6]
    assert task.tally.gradients == other.tally.gradients == (23 + 16) * (1 + 4)


@pytest.mark.parametrize("samples", [1, 3])
def test_training_counts_gradients_and_gives_the_mean_loss_before_each_step(
    samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient per point and sample; the network is bound to memory once per width and number of active clients."""
    fed = federated_problems.federation(epochs=2, batch_size=4, lr=0.0)  # clients of 12, 9, 6 and 14 points
    task = Task(fed, [3, 1, 2], 0, 0.0)
    start = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    solver = PenalizedDescent(start.expand(3, -1), task, None)
    solver.samples = samples
    bound: list[tuple[int, ...]] = []
    bind = fed.stack.bind

    def noted(theta: Tensor, x: Tensor, *rest: Any) -> Any:
        bound.append(tuple(x.shape[:2]))
        return bind(theta, x, *rest)

    monkeypatch.setattr(fed.stack, "bind", noted)
    losses = train(task, solver)
    assert task.tally.gradients == (14 + 9 + 6) * 2 * samples
    assert len(bound) == len(set(bound)) and {clients for clients, _ in bound} == {1, 2, 3}
    for place, client in enumerate(task.members):
        rng, rows, each = generator(fed.seed, Purpose.ORDER, 0, client), fed.data.rows[client], []
        for _ in range(2):
            for part in rows[torch.from_numpy(rng.permutation(fed.counts[client]))].split(4):
                rest = fed.data.inputs[part] @ start - fed.data.targets[part]
                each.append(0.5 * float(rest.square().mean()))
        assert float(losses[place]) == pytest.approx(np.mean(each), rel=1e-10)
