"""Networks: parameter counts by hand, seeded starts, and that rows of a stack are the single networks."""

import pytest
import torch
from torch.nn import functional as F

from badmm.networks import models
from badmm.networks.losses import CROSS_ENTROPY, squared_error
from badmm.networks.stacked import Stacked
from tests.badmm.rounds.federated_problems import outputs

IMAGE = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("mlp", (1, 28, 28), 10, 784 * 200 + 200 + 200 * 100 + 100 + 100 * 10 + 10),
        (
            "cifarnet",
            IMAGE,
            10,
            (27 + 1) * 32 + (288 + 1) * 32 + (288 + 1) * 64 + (576 + 1) * 64 + (2304 + 1) * 512 + 513 * 10,
        ),
        ("acarnet", IMAGE, 10, (75 + 1) * 64 + (1600 + 1) * 64 + 1601 * 384 + 385 * 192 + 193 * 10),
        # 19 convolutions without bias, a scale and a shift for each of their channels, the head
        (
            "resnet20",
            IMAGE,
            100,
            9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)
            + 2 * (7 * 16 + 6 * 32 + 6 * 64)
            + 65 * 100,
        ),
        ("linear", (1, 8, 8), 10, 640),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, ...], classes: int, count: int) -> None:
    network = models.build(name, shape, classes, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert Stacked(network, CROSS_ENTROPY).size == count
    assert network(torch.zeros(2, *shape)).shape == (2, classes)


def test_starts_are_seeded_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (Stacked(models.build("mlp", (4,), 3, s), CROSS_ENTROPY).initial() for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["mlp", "cifarnet", "acarnet", "resnet20"])
def test_rows_of_a_stack_are_the_single_networks(name: str) -> None:
    """Values and gradients against plain modules and plain autograd, dropout and padding included."""
    clients, batch = 3, 4
    shape = (1, 5, 5) if name == "mlp" else IMAGE
    networks = [models.build(name, shape, 10, seed, hidden=(7,)).double() for seed in range(clients)]
    stack = Stacked(networks[0], CROSS_ENTROPY)
    flat = torch.stack([Stacked(network, CROSS_ENTROPY).initial(torch.float64) for network in networks])
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(clients, batch, *shape, dtype=torch.float64, generator=generator)
    y = torch.randint(10, (clients, batch), generator=generator)
    weights = torch.tensor([[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3, 0.0]], dtype=torch.float64)
    out = torch.full_like(flat, float("nan"))
    assert stack.traits(x[0]).draws == (name == "cifarnet")
    state = torch.get_rng_state()
    sums = stack.bind(flat, x, out)(y, weights, seeds=(5, 6, 7))
    assert torch.equal(state, torch.get_rng_state())
    layout = torch.channels_last if stack.traits(x[0]).channels_last else torch.contiguous_format  # masks go by it
    for k, network in enumerate(networks):
        network = network.to(memory_format=layout)  # type: ignore[call-overload]
        some = weights[k] > 0
        torch.manual_seed(5 + k)
        own = x[k][some] if name == "mlp" else x[k][some].contiguous(memory_format=layout)
        loss = F.cross_entropy(network(own), y[k][some])
        assert float(sums[k]) == pytest.approx(loss.item(), rel=1e-12)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        expected = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.testing.assert_close(out[k], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(stack.outputs(flat[k], x[k]), network.eval()(x[k]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_curvature_is_the_diagonal_of_the_gauss_newton_matrix(kind: str) -> None:
    """Against Jacobians and the loss's Hessian from autograd, built point by point."""
    loss, width = (CROSS_ENTROPY, 4) if kind == "classes" else (squared_error(0.3), 1)
    network = models.MLP((3, 5, width), "tanh").double()
    stack = Stacked(network, loss)
    theta = stack.initial(torch.float64)
    x = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.arange(11) % 4 if kind == "classes" else torch.linspace(-1, 1, 11, dtype=torch.float64)
    expected = torch.zeros_like(theta)
    for point, target in zip(x, y, strict=True):
        f = outputs(stack, theta, point[None])[0]
        jacobian = torch.autograd.functional.jacobian(lambda t, p=point: outputs(stack, t, p[None])[0], theta)
        hessian = torch.autograd.functional.hessian(lambda z, t=target: loss.value(z[None], t[None])[0], f.detach())
        expected += torch.diagonal(jacobian.T @ hessian @ jacobian)
    torch.testing.assert_close(stack.curvature(theta, x, y, budget=7 * stack.size), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alexnet", IMAGE, 10, 0), "expected one of mlp, linear, cifarnet"),
        (("cifarnet", (1, 28, 28), 10, 0), r"expected mlp or linear for inputs of shape \(1, 28, 28\), got 'cifarnet'"),
    ],
)
def test_unknown_networks_are_named(arguments, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        models.build(*arguments)
    with pytest.raises(ValueError, match="activation: expected one of sigmoid, relu, tanh, got 'gelu'"):
        models.MLP((3, 2), "gelu")
