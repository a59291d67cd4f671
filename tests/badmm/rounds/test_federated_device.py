"""Training where the tensors are: the same numbers on a GPU, and errors told in the work that met them.

On the CPU the same bodies compare a run with itself: they hold the tests, not the GPU, to account.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import badmm_kernels
from badmm.__main__ import main
from badmm.clients.federation import ClientData, Task
from badmm.clients.variational import GaussianDescent
from badmm.ivon import IVON
from badmm.methods import NETWORKS
from badmm.rounds import network_clients, network_round as rounds
from badmm.rounds.network_method import Reply, State
from tests.badmm.rounds.federated_problems import CUBE, SIZES, SMALL, federation, one_round, solve, with_data


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> str:
    """A device of torch's."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA or sees no GPU")
    device: str = request.param
    return device


@pytest.mark.parametrize("name", NETWORKS)
def test_every_methods_rounds_are_the_cpus(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minibatches and IVON's normals are the same anywhere; points stand for what torch's generators would draw."""

    def draw(self: GaussianDescent, active: int) -> None:
        self.noise[:active] = CUBE[self.drawn].to(self.noise.device)

    monkeypatch.setattr(GaussianDescent, "draw", draw)
    states = []
    for device in ("cpu", place):
        fed = federation("softmax", device, epochs=2, batch_size=4, lr=0.05)
        states.append(solve(NETWORKS[name](), fed, 3, fraction=0.75))
    own, other = states
    assert own.server.keys() == other.server.keys() and own.clients.keys() == other.clients.keys()
    for mine, theirs in ((own.server, other.server), (own.clients, other.clients)):
        for key, value in theirs.items():
            assert value.device.type == place
            torch.testing.assert_close(value.cpu(), mine[key], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("samples", "estimate"), [(1, "price"), (3, "price"), (1, "gradsq"), (2, "gradsq")])
def test_ivon_has_the_cpus_bits(samples: int, estimate: Any, dtype: torch.dtype, place: str) -> None:
    found = [
        train(torch.device(device), samples=samples, hess_approx=estimate, dtype=dtype) for device in ("cpu", place)
    ]
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs.cpu(), mine, rtol=0.0, atol=0.0)


def train(device: torch.device, samples: int, hess_approx: Any, dtype: torch.dtype) -> list[Tensor]:
    """Mean, precision and a draw after steps on a quadratic whose gradient every device rounds alike."""
    draw = torch.Generator().manual_seed(3)
    start = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((37, 5), (1001,))]
    goals, scales = ([torch.rand(p.shape, generator=draw).to(device, dtype) for p in start] for _ in range(2))
    parameters = [nn.Parameter(p.to(device, dtype)) for p in start]
    optimizer = IVON(parameters, lr=0.1, ess=50.0, hess_approx=hess_approx, clip_radius=0.5, seed=1)
    duals: Any = ([0.1 * g for g in goals], 0.25)
    for number in range(12):
        if number == 6:
            optimizer.set_prior(goals, [0.5 + s for s in scales], duals, rho=0.5)
        for _ in range(samples):
            with optimizer.sampled_params(train=True):
                for p, goal, scale in zip(parameters, goals, scales, strict=True):
                    p.grad = scale * (p.detach() - goal)
        optimizer.step()
    return [*optimizer.mean, *optimizer.precision, *optimizer.sample()]


@pytest.mark.parametrize("name", NETWORKS)
def test_clients_train_as_one_stack(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that raises is trained in parts, which would hide an error of stacks; it is counted."""
    method, fed = NETWORKS[name](), federation("squares", place, epochs=2, lr=0.05)
    assert rounds.SPLIT not in one_round(method, fed)[1].events
    work = type(method).client

    def client(self: Any, state: State, task: Task) -> Reply:
        if len(task.members) > 2:
            raise MemoryError
        return work(self, state, task)

    monkeypatch.setattr(type(method), "client", client)
    _, outcome = one_round(method, fed)
    assert outcome.events[rounds.SPLIT] == 1 and len(outcome.used) == len(SIZES) and not outcome.excluded


@pytest.mark.parametrize("name", ["ivon_admm", "pvi", "fedlap"])
def test_a_client_outside_the_domain_is_left_out_by_itself(name: str, place: str) -> None:
    broken, fed = 2, federation("squares", place, epochs=2, lr=0.05)
    inputs = fed.data.inputs.clone()
    inputs[fed.data.rows[broken]] = float("nan")
    state, outcome = one_round(NETWORKS[name](), with_data(fed, ClientData, inputs))
    assert outcome.used == [client for client in range(len(SIZES)) if client != broken]
    assert list(outcome.excluded) == [broken]
    assert all(bool(value.isfinite().all()) for value in state.server.values())


def test_what_a_gpu_tells_late_is_told_of_the_client_that_met_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's error comes where the host waits: here in place of the device, after the work of client 2."""
    method, trained = NETWORKS["fedavg"](), list[list[int]]()
    work = type(method).client

    def client(self: Any, state: State, task: Task) -> Reply:
        trained.append(task.members)
        return work(self, state, task)

    def wait(_: torch.device) -> None:
        if trained.pop() == [2]:
            raise ValueError("gradient: expected finite, got nan at index 0")
        trained.append([])

    monkeypatch.setattr(type(method), "client", client)
    monkeypatch.setattr(network_clients, "raise_pending", wait)
    _, outcome = one_round(method, federation("squares", epochs=1), largest=1)
    assert outcome.used == [0, 1, 3]
    assert outcome.excluded == {2: "raised ValueError: gradient: expected finite, got nan at index 0"}


def test_a_gpus_kernels_are_waited_for_and_the_cpus_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int | None] = []
    monkeypatch.setattr(badmm_kernels, "synchronize", waited.append)
    for device in ("cpu", "cuda:1", "cuda"):
        network_clients.raise_pending(torch.device(device))
    assert waited == [1, None]


def test_a_whole_run_is_played(tmp_path: Path, place: str) -> None:
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(SMALL + "[methods.ivon_admm]\n", encoding="utf-8")
    options = ["--quiet", "--set", f"run.device={place}", "--set", "run.rounds=2"]
    assert main(["run", str(file), "--out", str(out), *options]) == 0
    assert (out / "summary.md").exists()
