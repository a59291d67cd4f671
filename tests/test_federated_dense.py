"""Dense layers of several networks at once: against torch's own layers, by gradients, and beside other clients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from badmm.federated import dense, models
from badmm.federated.dense import Dense, products
from badmm.federated.losses import CROSS_ENTROPY
from badmm.federated.stacked import Stacked


@pytest.fixture(params=[0, 1 << 60], ids=["onednn", "batched"])
def least(request, monkeypatch):
    monkeypatch.setattr(dense, "_LEAST", request.param)
    return request.param


def _layers(dtype, k=3, n=5, a=7, b=4):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=dtype, generator=draw) for shape in ((k, n, a), (k, b, a), (k, b))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_torch_layers(least, dtype):
    x, weights, bias = _layers(dtype)
    for given in (bias, None):
        out = torch.empty(len(x), 5, 4, dtype=dtype)
        result = products(x, weights, given, out=out)
        assert result.data_ptr() == out.data_ptr()
        for place in range(len(x)):
            expected = F.linear(x[place], weights[place], None if given is None else given[place])
            torch.testing.assert_close(result[place], expected)


def test_onednn_is_used_where_torch_has_it(monkeypatch):
    if dense._onednn() is None:
        pytest.skip("this torch has no oneDNN")
    calls = []

    def linear(x, weights, *rest):
        calls.append(rest)
        return F.linear(x, weights)

    monkeypatch.setattr(dense, "_LEAST", 0)
    monkeypatch.setattr(dense, "_onednn", lambda: linear)
    x, weights, _ = _layers(torch.float32)
    products(x, weights)
    products(x.double(), weights.double())
    assert len(calls) == len(x)


def test_gradients_agree_with_finite_differences():
    x, weights, bias = (t.requires_grad_() for t in _layers(torch.float64))
    assert torch.autograd.gradcheck(lambda *given: Dense.apply(*given, None), (x, weights, bias))
    assert torch.autograd.gradcheck(lambda *given: Dense.apply(*given, None, None), (x, weights))


def test_gradients_are_written_where_they_belong(least):
    x, weights, bias = (t.requires_grad_() for t in _layers(torch.float32))
    expected = torch.autograd.grad(Dense.apply(x, weights, bias, None).square().sum(), (x, weights, bias))
    buffer = torch.full((len(x), 100), torch.nan)  # slopes are strided views, as of a row of all parameters
    slopes = buffer[:, :28].view(-1, 4, 7), buffer[:, 28:32]
    found = torch.autograd.grad(
        Dense.apply(x, weights, bias, slopes).square().sum(), (x, weights, bias), allow_unused=True
    )
    assert [gradient is None for gradient in found] == [False, True, True]
    for one, other in zip((found[0], *slopes), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert buffer[:, 32:].isnan().all()


def test_an_mlp_runs_stacked_as_by_vmap():
    network = models.MLP((6, 5, 4, 3), "tanh").double()
    stack = Stacked(network, CROSS_ENTROPY)
    draw = torch.Generator().manual_seed(1)
    flat = torch.randn(4, stack.size, dtype=torch.float64, generator=draw)
    x = torch.randn(4, 8, 1, 2, 3, dtype=torch.float64, generator=draw)
    views = stack.views(flat)
    torch.testing.assert_close(network.stacked(views, x), models.Network.stacked(network, views, x))


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
