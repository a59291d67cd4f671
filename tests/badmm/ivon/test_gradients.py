"""The sample's gradient: what happens to `.grad` between the block and the step, and what does not count."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from badmm.ivon import IVON
from tests.badmm.ivon.test_ivon import batches, model, parameters, train
from tests.badmm.ivon.test_memory import ENTRIES, pair, points, wide


def sampled(network: Any, optimizer: IVON, x: Tensor, y: Tensor) -> None:
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()


def stray(network: Any, x: Tensor) -> object:
    return (network(x).square().sum() * 100).backward()


def gradients_of(network: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(
    "between",
    [
        lambda net, opt, x: stray(net, x),
        lambda net, opt, x: (stray(net, x), stray(net, x)),
        lambda net, opt, x: (net.zero_grad(), stray(net, x)),
        lambda net, opt, x: (opt.zero_grad(), stray(net, x), opt.zero_grad(set_to_none=False)),
        lambda net, opt, x: net.zero_grad(),
        lambda net, opt, x: torch.autograd.grad(net(x).sum(), list(net.parameters())),
        lambda net, opt, x: torch.autograd.functional.hessian(lambda v: net(v).sum(), x[:1]),
    ],
    ids=["backward", "two", "zeroed first", "zeroed around", "zeroed", "autograd.grad", "hessian of inputs"],
)
def test_a_backward_outside_the_block_changes_no_step(samples: int, between: Callable[..., Any]) -> None:
    (first, ours), (second, plain) = pair(), pair()
    for x, y in points(3):
        for _ in range(samples):
            sampled(first, ours, x, y)
            between(first, ours, x)
            sampled(second, plain, x, y)
        ours.step()
        plain.step()
    torch.testing.assert_close(parameters(first), parameters(second), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.precision, plain.precision, rtol=1e-6, atol=0)


def test_two_networks_send_gradients_through_each_other() -> None:
    """Both backward passes, then both steps; the generator's loss also reaches the discriminator."""

    def play(together: bool) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            g, d = nn.Linear(3, ENTRIES), nn.Sequential(nn.Linear(ENTRIES, ENTRIES), nn.Linear(ENTRIES, 1))
        opt_d, opt_g = IVON(d.parameters(), 0.1, 32.0, seed=0), IVON(g.parameters(), 0.1, 32.0, seed=1)
        z = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
        with opt_d.sampled_params(train=True):
            opt_d.zero_grad()
            d(g(z).detach()).mean().backward()
        if not together:
            opt_d.step()
            return parameters(d), parameters(g)
        with opt_g.sampled_params(train=True):
            opt_g.zero_grad()
            (-d(g(z)).mean()).backward()
        opt_d.step()
        opt_g.step()
        return parameters(d), parameters(g)

    assert torch.equal(play(True)[0], play(False)[0])


def scaled_norm(network: nn.Module) -> None:
    nn.utils.clip_grad_norm_(network.parameters(), 0.01)


def by_value(network: nn.Module) -> None:
    nn.utils.clip_grad_value_(network.parameters(), 1e-3)


def old_style(network: nn.Module) -> None:
    for p in network.parameters():
        if p.grad is not None:
            p.grad.data.clamp_(-1e-3, 1e-3)


def replaced(network: nn.Module) -> None:
    for p in network.parameters():
        if p.grad is not None:
            p.grad = p.grad.clamp(-1e-3, 1e-3)


@pytest.mark.parametrize("clip", [scaled_norm, by_value, old_style, replaced])
@pytest.mark.parametrize("later", [False, True])
def test_clipping_after_the_block_counts_as_inside_it(clip: Callable[[nn.Module], None], later: bool) -> None:
    (first, ours), (second, plain), (third, whole) = pair(), pair(), pair()
    for x, y in points(3):
        sampled(first, ours, x, y)
        clip(first)
        if later:
            stray(first, x)
        ours.step()
        with plain.sampled_params(train=True):
            plain.zero_grad()
            nn.functional.cross_entropy(second(x), y).backward()
            clip(second)
        plain.step()
    train(third, whole, points(3))
    assert torch.equal(parameters(first), parameters(second))
    assert not torch.equal(parameters(first), parameters(third))


def test_the_gradient_shown_after_the_block_is_the_samples() -> None:
    network, optimizer = pair()
    x, y = points(1)[0]
    with optimizer.sampled_params(train=True):
        nn.functional.cross_entropy(network(x), y).backward()
        inside = gradients_of(network)
    assert all(torch.equal(a, b) for a, b in zip(inside, gradients_of(network), strict=True))
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(inside, gradients_of(network), strict=True))


def test_gradients_zeroed_in_place_between_two_samples_are_refused() -> None:
    network, optimizer = pair()
    x, y = points(1)[0]
    sampled(network, optimizer, x, y)
    network.zero_grad(set_to_none=False)
    with pytest.raises(RuntimeError, match="had its gradient set to 0 between two samples of one step"):
        sampled(network, optimizer, x, y)


def test_the_optimizers_own_zero_grad_may_zero_in_place_between_two_samples() -> None:
    (first, ours), (second, plain) = pair(), pair()
    x, y = points(1)[0]
    for _ in range(2):
        with ours.sampled_params(train=True):
            nn.functional.cross_entropy(first(x), y).backward()
        ours.zero_grad(set_to_none=False)
        sampled(second, plain, x, y)
    ours.step()
    plain.step()
    assert torch.equal(parameters(first), parameters(second))


def test_a_block_without_a_backward_is_refused_at_its_end() -> None:
    network, optimizer = pair()
    x, y = points(1)[0]
    before = parameters(network)
    with pytest.raises(RuntimeError, match="expected gradients at the end of a block"), optimizer.sampled_params(True):
        loss = nn.functional.cross_entropy(network(x), y)
    loss.backward()
    with pytest.raises(RuntimeError, match="step: expected a sample"):
        optimizer.step()
    assert torch.equal(parameters(network), before)


def test_gradients_set_by_hand_inside_the_block_count() -> None:
    (first, ours), (second, plain) = pair(), pair()
    x, y = points(1)[0]
    with ours.sampled_params(train=True):
        loss = nn.functional.cross_entropy(first(x), y)
        for p, g in zip(first.parameters(), torch.autograd.grad(loss, list(first.parameters())), strict=True):
            p.grad = g
    sampled(second, plain, x, y)
    ours.step()
    plain.step()
    assert torch.equal(parameters(first), parameters(second))


def test_a_parameter_that_the_loss_does_not_reach_has_gradient_0() -> None:
    found = []
    for explicit in (False, True):
        network, spare = model(), nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = IVON([*network.parameters(), spare], 0.1, 10.0, weight_decay=0.1, seed=0)
        for x, y in batches(4):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                (nn.functional.cross_entropy(network(x), y) + (0 * spare.sum() if explicit else 0)).backward()
            optimizer.step()
        found.append(spare.detach())
    assert torch.equal(*found)
    assert bool((found[0] < 1).all())  # the prior draws it to 0


def test_second_derivatives_may_be_taken_inside_the_block() -> None:
    """A gradient penalty keeps the graph of a gradient, so that `.grad` itself may have one."""
    network, optimizer = pair()
    x, y = points(1)[0]
    with optimizer.sampled_params(train=True):
        loss = nn.functional.cross_entropy(network(x), y)
        grads = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        with pytest.warns(UserWarning, match="create_graph=True"):
            (loss + sum(g.square().sum() for g in grads)).backward(create_graph=True)
    before = parameters(network)
    optimizer.step()
    assert not torch.equal(parameters(network), before)


def test_a_compiled_network_trains_as_the_plain_one() -> None:
    pytest.importorskip("torch._dynamo")
    (first, ours), (second, plain) = pair(), pair()
    compiled = torch.compile(first, backend="aot_eager")
    for x, y in points(3):
        sampled(compiled, ours, x, y)
        stray(compiled, x)
        ours.step()
        sampled(second, plain, x, y)
        plain.step()
    torch.testing.assert_close(parameters(first), parameters(second), rtol=1e-6, atol=1e-7)


def test_a_step_leaves_the_model_to_autograd() -> None:
    """Parameters stay leaves that ask for gradients, with no graph of their own."""
    network = wide()
    optimizer = IVON(network.parameters(), 0.1, 50.0)
    train(network, optimizer, points(2))
    assert all(p.is_leaf and p.requires_grad and p.grad_fn is None for p in network.parameters())
