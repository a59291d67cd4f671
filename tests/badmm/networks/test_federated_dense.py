"""Dense layers of several networks at once: against torch's own layers, by gradients, and beside other clients."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.nn import functional as F

from badmm.clients.federation import ClientData, Federation, LocalSettings
from badmm.clients.training import Descent
from badmm.methods import NETWORKS
from badmm.networks import dense, models
from badmm.networks.dense import product
from badmm.networks.losses import CROSS_ENTROPY
from badmm.networks.stacked import Stacked
from badmm.rounds import network_round as rounds


@pytest.fixture(params=[0, 1 << 60], ids=["onednn", "batched"])
def least(request, monkeypatch):
    monkeypatch.setattr(dense, "_LEAST", request.param)
    monkeypatch.setattr(dense, "_on_intel", lambda: False)
    return request.param


def _layers(dtype, k=3, n=5, a=7, b=4):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=dtype, generator=draw) for shape in ((k, n, a), (k, b, a), (k, b))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_torch_layers(least, dtype):
    x, weights, bias = _layers(dtype)
    for given in (bias, None):
        out = torch.empty(len(x), 5, 4, dtype=dtype)
        product(x, weights, given, out)()
        for place in range(len(x)):
            expected = F.linear(x[place], weights[place], None if given is None else given[place])
            torch.testing.assert_close(out[place], expected)


def test_a_product_reads_its_tensors_anew(least):
    x, weights, bias = _layers(torch.float32)
    out = torch.empty(len(x), 5, 4)
    run = product(x, weights, bias, out)
    run()
    before = out.clone()
    weights.mul_(2)
    bias.mul_(2)
    run()
    torch.testing.assert_close(out, 2 * before)
    x.mul_(2)
    bias.mul_(2)
    run()
    torch.testing.assert_close(out, 4 * before)


def test_onednn_is_used_where_torch_has_it_and_it_is_the_faster(monkeypatch):
    if dense._onednn() is None:
        pytest.skip("this torch has no oneDNN")
    calls = []

    def linear(x, weights, *rest):
        calls.append(rest)
        return F.linear(x, weights)

    monkeypatch.setattr(dense, "_LEAST", 0)
    monkeypatch.setattr(dense, "_onednn", lambda: linear)
    x, weights, _ = _layers(torch.float32)
    monkeypatch.setattr(dense, "_on_intel", lambda: True)
    product(x, weights, None, torch.empty(3, 5, 4))()
    assert not calls
    monkeypatch.setattr(dense, "_on_intel", lambda: False)
    product(x, weights, None, torch.empty(3, 5, 4))()
    product(x.double(), weights.double(), None, torch.empty(3, 5, 4, dtype=torch.float64))()
    assert len(calls) == len(x)


class General(models.MLP):
    """An MLP with a forward pass of its own, which autograd differentiates."""

    def forward(self, x):
        return super().forward(x)


def test_frozen_layers_are_differentiated_by_autograd_and_stay():
    draw = torch.Generator().manual_seed(4)
    networks = [kind((6, 5, 4)) for kind in (models.MLP, General)]
    networks[1].load_state_dict(networks[0].state_dict())
    stacks = [Stacked(network.requires_grad_(True), CROSS_ENTROPY) for network in networks]
    networks[0].layers[0].requires_grad_(False)
    frozen = Stacked(networks[0], CROSS_ENTROPY)
    assert frozen.names == ["layers.1.weight", "layers.1.bias"]
    x, weights, y = (
        torch.rand(2, 8, 6, generator=draw),
        torch.rand(2, 8, generator=draw),
        torch.arange(16).view(2, 8) % 4,
    )
    whole, part = (torch.empty(2, stack.size) for stack in (stacks[1], frozen))
    stacks[1].gradient(stacks[1].initial().repeat(2, 1), x, y, weights, whole)
    frozen.gradient(frozen.initial().repeat(2, 1), x, y, weights, part)
    torch.testing.assert_close(part, whole[:, -frozen.size :])


def test_an_mlp_can_be_pickled():
    network = pickle.loads(pickle.dumps(models.MLP((3, 2, 2), "tanh")))
    assert network.activation == dense.ACTIVATIONS["tanh"]


@pytest.mark.parametrize("activation", dense.ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "bias"), [(torch.float32, True), (torch.float64, True), (torch.float64, False)])
def test_gradients_are_those_of_autograd_and_stay_in_their_place(least, activation, dtype, bias):
    kinds = models.MLP, General
    stack, general = (Stacked(kind((6, 5, 4, 3), activation, bias).to(dtype), CROSS_ENTROPY) for kind in kinds)
    draw = torch.Generator().manual_seed(1)
    flat = torch.randn(4, stack.size, dtype=dtype, generator=draw)
    x, y = torch.randn(4, 8, 1, 2, 3, dtype=dtype, generator=draw), torch.randint(0, 3, (4, 8), generator=draw)
    weights = torch.rand(4, 8, dtype=dtype, generator=draw)
    weights[1, 5:] = 0
    whole = torch.full((4, stack.size + 3), torch.nan, dtype=dtype)  # rows of a wider buffer
    bound, expected = stack.bind(flat, x, whole[:, : stack.size]), torch.empty_like(flat)
    for scale in (1.0, 0.5):  # the second time on what the tensors have become
        flat.mul_(scale)
        x.add_(scale - 1.0)
        sums = bound(y, weights)
        torch.testing.assert_close(sums, general.gradient(flat, x, y, weights, expected))
        torch.testing.assert_close(whole[:, : stack.size], expected)
        assert whole[:, stack.size :].isnan().all()


@pytest.mark.parametrize("kind", [models.MLP, General])
def test_gradients_may_take_the_parameters_place(kind, least):
    stack = Stacked(kind((6, 5, 4, 3)), CROSS_ENTROPY)
    draw = torch.Generator().manual_seed(3)
    flat, x = torch.randn(4, stack.size, generator=draw), torch.randn(4, 8, 6, generator=draw)
    y, weights, out = torch.randint(0, 3, (4, 8), generator=draw), torch.rand(4, 8, generator=draw), flat.clone()
    stack.gradient(flat, x, y, weights, out)
    stack.gradient(flat, x, y, weights, flat)
    assert torch.equal(flat, out)


def test_a_client_depends_on_the_others_of_its_stack_by_rounding_only():
    stack = Stacked(models.MLP((784, 200, 100, 10)), CROSS_ENTROPY)
    draw = torch.Generator().manual_seed(2)
    flat = torch.stack([stack.initial() + 0.01 * torch.randn(stack.size, generator=draw) for _ in range(3)])
    x, y = torch.rand(3, 64, 784, generator=draw), torch.randint(0, 10, (3, 64), generator=draw)
    weights, out, alone = torch.full((3, 64), 1 / 64), torch.empty_like(flat), torch.empty_like(flat)
    sums = stack.gradient(flat, x, y, weights, out)
    for place in range(3):
        row = slice(place, place + 1)
        torch.testing.assert_close(stack.gradient(flat[row], x[row], y[row], weights[row], alone[row]), sums[row])
    torch.testing.assert_close(out, alone, rtol=1e-6, atol=1e-8)


class Fresh(ClientData):
    """Data that come in memory of their own every time."""

    def points(self, index, dtype, out=None):
        x, y = super().points(index, dtype)
        return x + 1.0, y


class InPlace(ClientData):
    """The same numbers where they are wanted."""

    def points(self, index, dtype, out=None):
        x, y = super().points(index, dtype, out)
        return x.add_(1.0), y


def _trained(method, kind, data=ClientData):
    draw = torch.Generator().manual_seed(5)
    sizes = (23, 16, 16, 5, 1)
    inputs, targets = torch.rand(sum(sizes), 6, dtype=torch.float64, generator=draw), torch.arange(sum(sizes)) % 3
    rows = tuple(torch.arange(sum(sizes)).split(sizes))
    torch.manual_seed(6)
    stack = Stacked(kind((6, 5, 4, 3)).double(), CROSS_ENTROPY)
    settings = LocalSettings(lr=0.01, epochs=2, batch_size=8)
    fed = Federation(data(inputs, targets, rows), stack, settings, 7, torch.float64)
    state = method.start(fed, stack.initial(torch.float64))
    for _ in range(2):
        rounds.play(method, fed, state, lr=0.01)
    return method.mean(state)


@pytest.mark.parametrize("name", ["fedavg", "fedlap", "pvi", "ivon_admm"])
def test_clients_of_many_batch_widths_train_as_by_autograd(name):
    method = NETWORKS[name]()
    torch.testing.assert_close(_trained(method, models.MLP), _trained(method, General), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["fedavg", "ivon_admm"])
def test_inputs_in_memory_of_their_own_are_read(name):
    method = NETWORKS[name]()
    assert torch.equal(_trained(method, models.MLP, Fresh), _trained(method, models.MLP, InPlace))


def test_parameters_in_memory_of_their_own_are_read(monkeypatch):
    method = NETWORKS["fedavg"]()
    expected = _trained(method, models.MLP)
    monkeypatch.setattr(Descent, "point", lambda self, active: self.variables[:active] * 1.0)
    assert torch.equal(_trained(method, models.MLP), expected)
