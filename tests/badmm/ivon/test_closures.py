"""Closures that know nothing of samples, and the examples of trainers that call them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from badmm.ivon import IVON
from examples.ivon import callbacks, closure
from tests.badmm.ivon.test_ivon import batches, model, parameters, train

SEED = 11


@pytest.mark.parametrize("samples", [1, 3])
def test_an_optimizer_that_draws_around_a_closure_does_what_a_loop_does(samples: int) -> None:
    first, second = model(), model()
    ours = IVON(first.parameters(), 0.1, 100.0, mc_samples=samples, seed=SEED, sample_in_closure=True)
    loop = IVON(second.parameters(), 0.1, 100.0, seed=SEED)
    for x, y in batches(5):
        seen: list[float] = []

        def plain(x: Tensor = x, y: Tensor = y, seen: list[float] = seen) -> Tensor:
            ours.zero_grad()
            loss = nn.functional.cross_entropy(first(x), y)
            loss.backward()
            seen.append(float(loss.detach()))
            return loss

        assert float(ours.step(plain).detach()) == pytest.approx(sum(seen) / samples)
        assert len(seen) == samples
        train(second, loop, [(x, y)], samples)
    assert torch.equal(parameters(first), parameters(second))


def plain_closure(network: nn.Module) -> Tensor:
    loss = network(torch.ones(1, 5).double()).square().sum()
    loss.backward()
    return loss


def test_a_closure_without_samples_is_told_how_to_have_one() -> None:
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 10.0)
    with pytest.raises(RuntimeError, match="with sample_in_closure=True a closure is given one"):
        optimizer.step(lambda: plain_closure(network))


def test_a_closure_that_draws_itself_is_refused_where_the_optimizer_does() -> None:
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 10.0, sample_in_closure=True)

    def drawing() -> Tensor:
        with optimizer.sampled_params(train=True):
            return plain_closure(network)

    before = parameters(network)
    with pytest.raises(RuntimeError, match="train=False inside another block"):
        optimizer.step(drawing)
    assert torch.equal(parameters(network), before)


def test_a_closure_that_raises_leaves_the_mean_and_no_sample() -> None:
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 10.0, sample_in_closure=True)
    before = parameters(network)
    with pytest.raises(KeyError, match="mine"):
        optimizer.step(lambda: (_ for _ in ()).throw(KeyError("mine")))
    assert torch.equal(parameters(network), before)
    optimizer.step(lambda: plain_closure(network))
    assert not torch.equal(parameters(network), before)


def test_a_closure_may_return_nothing_and_runs_with_gradients() -> None:
    network = model()
    optimizer = IVON(network.parameters(), 0.1, 10.0, sample_in_closure=True)

    def silent() -> None:
        plain_closure(network)

    with torch.no_grad():
        assert optimizer.step(silent) is None


def halves(losses: list[float]) -> tuple[float, float]:
    middle = len(losses) // 2
    return math.fsum(losses[:middle]) / middle, math.fsum(losses[middle:]) / (len(losses) - middle)


def test_the_example_with_a_closure_learns_and_knows_where_it_has_no_data() -> None:
    network = closure.network()
    optimizer = closure.optimizer_for(network)
    before, after = halves(closure.fit(network, optimizer, closure.batches(40)))
    assert after < 0.3 * before
    near, far = closure.spread(network, optimizer, torch.tensor([[0.0], [3.0]])).flatten().tolist()
    assert far > near > 0


def test_the_example_with_callbacks_learns() -> None:
    network = callbacks.Classifier()
    before, after = halves(callbacks.fit(network, callbacks.optimizer_for(network), callbacks.SampledSteps(), 10))
    assert after < 0.8 * before


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_with_it() -> None:
    pytest.importorskip("lightning")
    before, after = halves(closure.fit_with_lightning(40).losses)
    assert after < 0.6 * before


@pytest.mark.filterwarnings("ignore")
def test_transformers_trains_with_it() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    network: Any = callbacks.Classifier()
    optimizer = callbacks.optimizer_for(network)
    before, after = halves(callbacks.fit_with_transformers(network, optimizer, epochs=10))
    assert after < 0.8 * before
    assert optimizer.param_groups[0]["step"] == 60
