"""Local solvers of networks step by step: where gradients are wanted, samples per step, who is still active."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from badmm.clients.federation import ClientData, Federation, LocalSettings, Task
from badmm.clients.penalty import Penalty
from badmm.clients.training import LocalSolver, PenalizedDescent
from badmm.methods.bayes_admm import IvonADMM
from badmm.methods.pvi import PVI
from badmm.networks.losses import squared_error
from badmm.networks.stacked import Stacked
from badmm.streams import Purpose, sequence
from tests.badmm.rounds.federated_problems import DIM, SIZES, federation

START = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
MEMBERS = [3, 0, 2]


def solver_of(method: Any) -> tuple[Any, Task]:
    """The solver of three clients in a round whose duals are not 0."""
    fed = federation("squares", epochs=2, lr=0.05, batch_size=4)  # 8, 6 and 4 steps
    state = method.start(fed, START)
    for place, name in enumerate(("dual_precision_mean", "dual_precision")):
        ramp = torch.linspace(0.1, 0.5, len(SIZES) * DIM, dtype=torch.float64).view(len(SIZES), DIM)
        state.clients[name] += ramp if place else ramp - 0.2
    task = Task(fed, MEMBERS, 0, 0.05)
    return method.solver(state, task), task


SOLVERS: dict[str, Any] = {
    "ivon": IvonADMM(hess_init=0.1, temperature=2.0, mean_step="ivon"),
    "ivon of two samples": IvonADMM(hess_init=0.1, temperature=2.0, mean_step="ivon", samples=2),
    "ivon with a local mean": IvonADMM(hess_init=0.1, temperature=2.0, mean_step="local"),
    "ivon of two samples with a local mean": IvonADMM(hess_init=0.1, temperature=2.0, mean_step="local", samples=2),
    "variational": PVI(temperature=2.0, samples=2),
}


def train(solver: LocalSolver, task: Task, active: int, steps: int) -> list[torch.Tensor]:
    """Some steps of the first clients, and the gradients that they took in."""
    gradients, part = [], Task(task.federation, task.members[:active], task.round, task.lr)
    for _ in range(steps):
        for _ in range(solver.samples):
            slope = part.full_gradient(solver.point(active).clone())
            gradients.append(slope)
            solver.gradient[:active] = slope
            solver.observe(active)
        solver.step(active)
    return gradients


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_are_wanted_in_one_place_and_who_is_done_stays(name: str) -> None:
    """A network's forward pass is bound to the memory of its parameters once per number of active clients."""
    solver, task = solver_of(SOLVERS[name])
    train(solver, task, 3, 1)
    places = set()
    for _ in range(3):
        places.add(solver.point(2).data_ptr())
        train(solver, task, 2, 1)
    assert len(places) == 1
    state = solver.variables if name == "variational" else torch.cat([solver.mean, solver.precision], dim=1)
    before, noise = state.clone(), solver.noise.clone()
    train(solver, task, 2, 2)
    state = solver.variables if name == "variational" else torch.cat([solver.mean, solver.precision], dim=1)
    assert torch.equal(state[2], before[2]) and not (state[:2] == before[:2]).any()
    assert torch.equal(solver.noise[2], noise[2]) and not (solver.noise[:2] == noise[:2]).any()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_client_is_trained_as_if_it_were_alone(name: str) -> None:
    together, task = solver_of(SOLVERS[name])
    alone, _ = solver_of(SOLVERS[name])
    train(together, task, 3, 2)
    train(together, task, 1, 2)
    train(alone, task, 1, 4)
    ends = [
        s.variables if name == "variational" else torch.cat([s.mean, s.precision], dim=1) for s in (together, alone)
    ]
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("samples", [1, 2])
def test_the_local_optimizer_moves_the_mean_along_ivons_direction_undivided(samples: int) -> None:
    """m ← m − lr (mean ĝ + c_S m − c_ξ) with SGD; the precision takes IVON's step at the same samples."""
    method = IvonADMM(hess_init=0.1, temperature=2.0, mean_step="local", samples=samples, beta2=0.9)
    solver, task = solver_of(method)
    plain, _ = solver_of(IvonADMM(hess_init=0.1, temperature=2.0, mean_step="ivon", samples=samples, beta2=0.9))
    mean, (linear, curvature) = solver.mean.clone(), solver.cavity
    gradients = train(solver, task, 3, 1)
    again = train(plain, task, 3, 1)
    for one, other in zip(gradients, again, strict=True):
        assert torch.equal(one, other)
    wanted = mean - 0.05 * (torch.stack(gradients).mean(dim=0) + curvature * mean - linear)
    torch.testing.assert_close(solver.mean, wanted, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(solver.precision, plain.precision, rtol=1e-12, atol=0)
    assert not torch.equal(solver.mean, plain.mean)


@pytest.mark.parametrize("clip", [None, 1e-3, 1e3])
def test_descent_takes_a_clipped_step_of_the_penalised_gradient(clip: float | None) -> None:
    fed = federation("squares", epochs=1, lr=0.05, clip=clip)
    task = Task(fed, MEMBERS, 0, 0.05)
    linear = torch.linspace(-1, 1, 9, dtype=torch.float64).view(3, DIM)
    for curvature in (0.0, 0.7, torch.full((3, 1), 0.7, dtype=torch.float64), torch.full((1, 1), 0.7).double()):
        solver = PenalizedDescent(START.expand(3, -1), task, Penalty(curvature, linear))
        (slope,) = train(solver, task, 3, 1)
        wanted = slope + torch.as_tensor(curvature, dtype=torch.float64) * START - linear
        if clip is not None:
            size = wanted.norm(dim=1, keepdim=True)
            wanted = torch.where(size > clip, wanted * clip / (size + 1e-6), wanted)
        torch.testing.assert_close(solver.variables, START - 0.05 * wanted, rtol=1e-9, atol=1e-12)
    shared = PenalizedDescent(START.expand(3, -1), task, Penalty(0.0, linear[:1]))
    (slope,) = train(shared, task, 3, 1)
    if clip is None:
        torch.testing.assert_close(shared.variables, START - 0.05 * (slope - linear[:1]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SOLVERS)
def test_points_are_draws_around_the_mean_with_the_deviation_of_now(name: str) -> None:
    """Before and after steps, of every sample; sums of samples have memory only where there are several."""
    solver, _ = solver_of(SOLVERS[name])
    for _ in range(2):
        for _ in range(solver.samples):
            theta = solver.point(3).clone()
            if name == "variational":
                mean, deviation = solver.variables[:, :DIM], solver.variables[:, DIM:].exp()
            else:
                mean, deviation = solver.mean, (torch.as_tensor(solver.ess)[:, None] * solver.precision).rsqrt()
                assert len(solver.totals) == (2 if solver.samples > 1 else 0)
            torch.testing.assert_close(theta, mean + deviation * solver.noise, rtol=1e-12, atol=1e-14)
            solver.gradient[:] = 0.1
            solver.observe(3)
        solver.step(3)


def test_normals_come_from_each_clients_stream_of_noise() -> None:
    solver, task = solver_of(SOLVERS["ivon"])
    seed = task.federation.seed
    streams = [sequence(seed, Purpose.NOISE, task.round, client) for client in MEMBERS]
    assert solver.seeds == [int(stream.generate_state(1, np.uint64)[0]) for stream in streams]
    assert len(set(solver.seeds)) == 3


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_the_optimizer_is_torchs_fused_one(kind: str) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if kind == "sgd" else {}
    fed = federation("squares", optimizer=kind, weight_decay=0.1, **options)
    optimizer = PenalizedDescent(START.expand(3, -1), Task(fed, MEMBERS, 0, 0.03), None).optimizer
    wanted = {"lr": 0.03, "weight_decay": 0.1, "fused": True, **options}
    assert {name: optimizer.defaults[name] for name in wanted} == wanted
    assert type(optimizer) is (torch.optim.Adam if kind == "adam" else torch.optim.SGD)


def test_points_that_are_levels_are_scaled_and_tokens_stay_as_they_are() -> None:
    rows = (torch.arange(3),)
    tokens = ClientData(torch.tensor([[3, 1], [2, 2], [0, 5]]), torch.arange(3), rows, levels=None)
    x, y = tokens.points(torch.tensor([[2, 0]]), torch.float32)
    assert x.dtype == torch.int64 and x.tolist() == [[[0, 5], [3, 1]]] and y.tolist() == [[2, 0]]
    pixels = ClientData(torch.tensor([[255, 0], [51, 102]], dtype=torch.uint8), torch.arange(2), rows, levels=255)
    out = torch.empty(1, 2, dtype=torch.float64)
    x, _ = pixels.points(torch.tensor([1]), torch.float64, out)
    assert x is out and x.tolist() == [[pytest.approx(0.2), pytest.approx(0.4)]]
    plain = ClientData(torch.tensor([[0.5, 2.0]]), torch.arange(1), rows)
    assert plain.points(torch.tensor([0]), torch.float64)[0].tolist() == [[0.5, 2.0]]
    halves = ClientData(torch.tensor([[0, 1, 2]], dtype=torch.uint8), torch.arange(1), rows, levels=2)
    assert halves.points(torch.tensor([0]), torch.float64)[0].tolist() == [[0.0, 0.5, 1.0]]


def test_whole_gradients_and_curvatures_are_taken_at_the_clients_buffers() -> None:
    """In evaluation mode, against autograd through a network that has them."""
    network = nn.Sequential(nn.BatchNorm1d(DIM), nn.Linear(DIM, 1)).double()
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(9, DIM, generator=rng, dtype=torch.float64)
    data = ClientData(x, x.sum(dim=1), (torch.arange(4), torch.arange(4, 9)))
    stack = Stacked(network, squared_error(), buffers="average")
    fed = Federation(data, stack, LocalSettings(), 0, torch.float64)
    flat = torch.randn(2, stack.size, generator=rng, dtype=torch.float64)
    own = torch.stack([fed.initial_buffers + shift for shift in (0.5, 2.0)])
    task = Task(fed, [1, 0], 0, 0.1, buffers=own)
    slopes, curvatures = task.full_gradient(flat), task.curvature(flat)
    for place, client in enumerate(task.members):
        rows = data.rows[client]
        row = flat[place].clone().requires_grad_()
        named = {**stack.views(row), **stack.buffer_views(own[place])}
        outputs = functional_call(network.eval(), named, (x[rows],)).squeeze(1)
        (slope,) = torch.autograd.grad(0.5 * ((outputs - data.targets[rows]) ** 2).mean(), row, retain_graph=True)
        torch.testing.assert_close(slopes[place], slope, rtol=1e-9, atol=1e-11)
        each = [torch.autograd.grad(output, row, retain_graph=True)[0] for output in outputs]
        torch.testing.assert_close(curvatures[place], sum(g**2 for g in each), rtol=1e-9, atol=1e-11)
    assert torch.equal(own[0], fed.initial_buffers + 0.5)  # evaluation changes none


def test_weight_decay_and_momentum_are_torchs() -> None:
    fed = federation("squares", epochs=3, lr=0.05, momentum=0.9, weight_decay=0.1)
    task = Task(fed, MEMBERS, 0, 0.05)
    ours = PenalizedDescent(START.expand(3, -1), task, None)
    theirs = START.expand(3, -1).clone().requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, weight_decay=0.1)
    for slope in train(ours, task, 3, 3):
        theirs.grad = slope
        optimizer.step()
    torch.testing.assert_close(ours.variables, theirs.detach(), rtol=1e-12, atol=1e-14)
