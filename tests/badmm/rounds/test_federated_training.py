"""Local training: stacks of clients against plain torch loops one client at a time, and order independence."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from badmm.clients.federation import ClientData, Federation, LocalSettings, Task
from badmm.clients.penalty import Penalty
from badmm.clients.training import PenalizedDescent, train
from badmm.methods import NETWORKS
from badmm.networks import models
from badmm.networks.losses import CROSS_ENTROPY
from badmm.networks.stacked import Stacked
from badmm.rounds import network_round as rounds
from badmm.streams import Purpose, generator
from tests.badmm.rounds import federated_problems

SIZES = (5, 23, 16, 16, 1)
SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "lr": 1e-2},
    "adam-clip-decay": {"optimizer": "adam", "lr": 1e-2, "clip": 0.3, "weight_decay": 1e-2},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "sgd-momentum-clip": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "clip": 0.5, "weight_decay": 1e-2},
    "all-points": {"optimizer": "sgd", "lr": 0.1, "batch_size": None},
}


class Dropped(models.MLP):
    """An MLP with dropout on its inputs."""

    def forward(self, x):
        return super().forward(F.dropout(x, 0.5, self.training))


def federation(dtype: torch.dtype = torch.float64, **changes: Any) -> Federation:
    draw = torch.Generator().manual_seed(7)
    count = sum(SIZES)
    inputs = torch.randint(0, 17, (count, 6), generator=draw, dtype=torch.uint8)
    targets = torch.randint(4, (count,), generator=draw)
    rows = torch.randperm(count, generator=draw).split(SIZES)
    torch.manual_seed(0)
    network = Dropped((6, 8, 4))
    settings = LocalSettings(**{"epochs": 3, "batch_size": 4, **changes})
    stack = Stacked(network.to(dtype), CROSS_ENTROPY)
    return Federation(ClientData(inputs, targets, tuple(rows), levels=16), stack, settings, seed=3, dtype=dtype)


def run(fed: Federation, members: list[int], penalty: bool = True) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """End points by client, and mean losses, of one stack after round 2."""
    task = Task(fed, members, 2, fed.settings.lr)
    start = fed.stack.initial(fed.dtype).repeat(len(members), 1)
    linear = 0.01 * torch.stack([fed.stack.initial(fed.dtype) * (client + 1) for client in members])
    curvature = torch.tensor([[0.1 * (client + 1)] for client in members], dtype=fed.dtype)
    solver = PenalizedDescent(start, task, Penalty(curvature, linear) if penalty else None)
    losses = train(task, solver)
    return dict(zip(members, solver.variables, strict=True)), losses


def alone(fed: Federation, client: int) -> torch.Tensor:
    """The same with a plain module, torch.optim, clip_grad_norm_ and the penalty by autograd."""
    settings = fed.settings
    network = Dropped((6, 8, 4)).double()
    network.load_state_dict(fed.stack.network.state_dict())
    start = fed.stack.initial(fed.dtype)
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[settings.optimizer]
    extra = {} if settings.optimizer == "adam" else {"momentum": settings.momentum}
    optimizer = kind(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, **extra)
    order = generator(fed.seed, Purpose.ORDER, 2, client)
    seeds = generator(fed.seed, Purpose.DROPOUT, 2, client)
    count = fed.counts[client]
    batch = min(settings.batch_size or count, count)
    for _ in range(settings.epochs):
        for part in torch.from_numpy(order.permutation(count)).split(batch):
            rows = fed.data.rows[client][part]
            x, y = fed.data.inputs[rows].double() / 16, fed.data.targets[rows]
            theta = torch.cat([parameter.reshape(-1) for parameter in network.parameters()])
            torch.manual_seed(int(seeds.integers(2**63)))
            loss = F.cross_entropy(network(x), y)
            loss = loss + 0.05 * (client + 1) * theta.square().sum() - 0.01 * (client + 1) * (start @ theta)
            optimizer.zero_grad()
            loss.backward()
            if settings.clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimizer.step()
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("largest", [1, 2, 5])
def test_stacks_train_as_single_clients_do(name: str, largest: int) -> None:
    fed = federation(**SETTINGS[name])
    ends: dict[int, torch.Tensor] = {}
    for members in fed.stacks(range(5), largest):
        ends |= run(fed, members)[0]
    assert sorted(ends) == [0, 1, 2, 3, 4]
    for client, end in ends.items():
        torch.testing.assert_close(end, alone(fed, client), rtol=0, atol=1e-10)


def test_results_do_not_depend_on_which_clients_train_together() -> None:
    fed = federation(torch.float32)
    together, losses = run(fed, fed.stacks(range(5), 5)[0])
    for members in ([3, 4], [1], [2, 0]):
        apart, own = run(fed, members)
        for place, client in enumerate(members):
            torch.testing.assert_close(apart[client], together[client], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(own[place], losses[fed.stacks(range(5), 5)[0].index(client)])


def test_streams_differ_by_round_and_client_and_seed() -> None:
    fed = federation()
    words = set()
    for index, members in ((0, [1, 2]), (1, [1, 2])):
        task = Task(fed, members, index, 0.1)
        batches, _ = task.batches()
        words |= {tuple(batches[:, place].flatten().tolist()) for place in range(2)}
        again, _ = Task(fed, members, index, 0.1).batches()
        assert torch.equal(batches, again)
    assert len(words) == 4


def test_every_epoch_meets_every_point_once() -> None:
    fed = federation()
    members = fed.stacks(range(5), 5)[0]
    index, weights = Task(fed, members, 0, 0.1).batches()
    for place, client in enumerate(members):
        steps = fed.steps(client) // 3
        for epoch in range(3):
            part = slice(epoch * steps, (epoch + 1) * steps)
            met = index[part, place][weights[part, place] > 0]
            assert sorted(met.tolist()) == sorted(fed.data.rows[client].tolist())
        torch.testing.assert_close(weights[: 3 * steps, place].sum(dim=1), torch.ones(3 * steps, dtype=torch.float64))
        assert weights[3 * steps :, place].sum() == 0


def test_whole_gradients_and_curvatures_are_those_of_all_points() -> None:
    fed = federation()
    fed.stack.network.eval()
    task = Task(fed, [1, 4], 0, 0.1)
    flat = fed.stack.initial(fed.dtype).repeat(2, 1) * torch.tensor([[1.0], [0.5]], dtype=fed.dtype)
    gradient, curvature = task.full_gradient(flat), task.curvature(flat)
    for place, client in enumerate(task.members):
        theta = flat[place].clone().requires_grad_()
        x, y = fed.data.points(fed.data.rows[client], fed.dtype)
        loss = F.cross_entropy(federated_problems.outputs(fed.stack, theta, x), y)
        torch.testing.assert_close(gradient[place], torch.autograd.grad(loss, theta)[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(curvature[place], fed.stack.curvature(theta.detach(), x, y), rtol=1e-10, atol=1e-12)
    assert task.tally.gradients == (23 + 1) * (1 + 4)


def test_penalty_is_its_values_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    theta, linear = (torch.randn(3, 5, dtype=torch.float64, generator=draw) for _ in range(2))
    for curvature in (0.0, 2.5, torch.rand(3, 5, dtype=torch.float64), torch.rand(1, 5, dtype=torch.float64)):
        penalty = Penalty(curvature, linear)
        at = theta.clone().requires_grad_()
        (expected,) = torch.autograd.grad((0.5 * curvature * at.square() - linear * at).sum(), at)
        gradient = torch.zeros_like(theta)
        penalty.add_gradient(theta, gradient)
        torch.testing.assert_close(gradient, expected)


def test_the_cosine_schedule_ends_near_zero() -> None:
    settings = LocalSettings(lr=2.0, schedule="cosine")
    assert settings.decay(0, 10) == 1.0
    assert settings.decay(5, 10) == pytest.approx(0.5)
    assert LocalSettings(lr=2.0).decay(9, 10) == 1.0


@pytest.mark.parametrize("name", ["fedavg", "ivon_admm"])
def test_workers_change_no_bit(name):
    """Clients of an MLP whose products are oneDNN's and whose sweeps are long enough for several threads."""
    draw, states = torch.Generator().manual_seed(0), []
    x, y = torch.rand(6 * 40, 784, generator=draw), torch.randint(0, 10, (6 * 40,), generator=draw)
    points = ClientData(x, y, tuple(torch.arange(len(x)).split(40)))
    for workers in (1, 2, 3):
        stack = Stacked(models.build("mlp", (784,), 10, 0, hidden=(120,)), CROSS_ENTROPY)
        fed = Federation(points, stack, LocalSettings(lr=0.01, epochs=3, batch_size=64), 0, torch.float32)
        method = NETWORKS[name]()
        state = method.start(fed, stack.initial())
        for _ in range(2):
            rounds.play(method, fed, state, lr=0.01, largest=2, workers=workers)
        states.append(state)
    for other in states[1:]:
        for mine, theirs in ((states[0].server, other.server), (states[0].clients, other.clients)):
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_stack_is_dealt_evenly_and_by_falling_steps():
    fed = federated_problems.federation(batch_size=1, epochs=1)
    stacks = fed.stacks(range(fed.num_clients), 2)
    assert sorted(client for members in stacks for client in members) == list(range(fed.num_clients))
    for members in stacks:
        assert [fed.steps(c) for c in members] == sorted((fed.steps(c) for c in members), reverse=True)
    assert max(map(len, stacks)) - min(map(len, stacks)) <= 1
