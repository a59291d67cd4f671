"""Several processes of torch: curvatures averaged over ranks are those of the loss, also in DDP."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import badmm_kernels
from badmm.ivon import IVON
from tests.badmm.ivon import ranks
from tests.badmm.ivon.test_ivon import SEED, batches, draw_instead, model, parameters, train

pytestmark = pytest.mark.slow

CURVATURE, ENTRIES, STEPS = 3.0, 40_000, 25


class Quadratic(nn.Module):
    """½ c ‖θ‖², whose curvature is c everywhere, over a large and a small parameter."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.large = nn.Parameter(torch.randn(ENTRIES, generator=draw) * 0.01)
        self.small = nn.Parameter(torch.randn(400, generator=draw) * 0.01)

    def forward(self, weight: Tensor) -> Tensor:
        found: Tensor = 0.5 * CURVATURE * weight * (self.large.square().sum() + self.small.square().sum())
        return found


def one_sample(optimizer: IVON, net: nn.Module) -> None:
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        net(torch.ones(())).backward()


def plain(optimizer: IVON, net: nn.Module) -> None:
    one_sample(optimizer, net)
    optimizer.step()


def two_samples(optimizer: IVON, net: nn.Module) -> None:
    one_sample(optimizer, net)
    one_sample(optimizer, net)
    optimizer.step()


def small_batches(optimizer: IVON, net: nn.Module) -> None:
    """Three backward passes, of which only the last is averaged."""
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        if isinstance(net, DistributedDataParallel):
            with net.no_sync():
                net(torch.tensor(0.25)).backward()
                net(torch.tensor(0.25)).backward()
        else:
            net(torch.tensor(0.5)).backward()
        net(torch.tensor(0.5)).backward()
    optimizer.step()


def scaled(optimizer: IVON, net: nn.Module) -> None:
    """A GradScaler that unscales before the step, as one that clips does."""
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        scaler.scale(net(torch.ones(()))).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)


def scaled_inside(optimizer: IVON, net: nn.Module) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        scaler.scale(net(torch.ones(()))).backward()
    scaler.step(optimizer)


WAYS: dict[str, Callable[[IVON, nn.Module], None]] = {
    f.__name__: f for f in (plain, two_samples, small_batches, scaled, scaled_inside)
}


def half_batches(rank: int) -> list[float]:
    """The parameters after training on this rank's half of every batch."""
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 100.0, sync=True, seed=SEED)
    train(network, optimizer, [(x[8 * rank : 8 * rank + 8], y[8 * rank : 8 * rank + 8]) for x, y in batches(6)])
    found: list[float] = parameters(network).tolist()
    return found


def work(rank: int) -> dict[str, Any]:
    """Mean curvatures of both parameters and the sum of the large one, after `STEPS` of each way and kind; the
    parameters of `half_batches`."""
    found: dict[str, Any] = {"half batches": half_batches(rank)}
    for name, way in WAYS.items():
        for kind in ("plain", "ddp", "bucket views"):
            model = Quadratic()
            net: nn.Module = model
            if kind != "plain":
                net = DistributedDataParallel(model, gradient_as_bucket_view=kind == "bucket views")
            optimizer = IVON(model.parameters(), 0.0, 1e4, CURVATURE, beta2=0.97, weight_decay=0.0, sync=True, seed=1)
            for _ in range(STEPS):
                way(optimizer, net)
            h = [(s / 1e4).detach() for s in optimizer.precision]
            optimizer.param_groups[0]["lr"] = 0.1
            way(optimizer, net)
            found[f"{name} {kind}"] = float(h[0].mean()), float(h[1].mean()), float(model.large.detach().double().sum())
    return found


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.ends(work, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("kind", ["plain", "ddp", "bucket views"])
@pytest.mark.parametrize("way", list(WAYS))
def test_the_estimate_is_the_losses_curvature(ends: Any, way: str, kind: str) -> None:
    """h starts there and averages over 33 steps: an estimate over the ranks would have it at 2.2 after 25."""
    large, small, _ = ends[0][f"{way} {kind}"]
    assert large == pytest.approx(CURVATURE, rel=0.05)
    assert small == pytest.approx(CURVATURE, rel=0.1)


@pytest.mark.parametrize("way", list(WAYS))
def test_ranks_stay_alike_and_ddp_changes_nothing(ends: Any, way: str) -> None:
    for kind in ("plain", "ddp", "bucket views"):
        assert ends[0][f"{way} {kind}"] == ends[1][f"{way} {kind}"]
        for a, b in zip(ends[0][f"{way} {kind}"], ends[0][f"{way} plain"], strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-4)


def test_one_process_alone_may_ask_for_ranks() -> None:
    model = Quadratic()
    optimizer = IVON(model.parameters(), 0.01, 1e4, sync=True, seed=1)
    other = Quadratic()
    alone = IVON(other.parameters(), 0.01, 1e4, seed=1)
    for _ in range(2):
        plain(optimizer, model)
        plain(alone, other)
    assert torch.equal(model.large, other.large)


def test_ranks_average_their_samples(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gloo processes with half a batch each end at the same numbers, those of two samples of one process."""
    first, second = (end["half batches"] for end in ends)
    assert first == second
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 100.0, seed=SEED)
    words = [np.random.SeedSequence(SEED, spawn_key=(0, 0, r)).generate_state(1, np.uint64)[0] for r in range(2)]
    noise, out = badmm_kernels.load("ivon").noise, np.empty(parameters(network).numel())
    draw_instead(monkeypatch, lambda draw: noise(int(words[draw % 2]), draw // 2, out=out))
    for x, y in batches(6):
        for rank in range(2):
            half = slice(8 * rank, 8 * rank + 8)
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x[half]), y[half]).backward()
        optimizer.step()
    np.testing.assert_allclose(first, parameters(network), rtol=1e-12, atol=1e-13)
