"""Frozen parameters are neither drawn nor moved, whenever they were frozen; what is trained does not notice."""

from typing import Any

import pytest
import torch
from torch import nn

from badmm.ivon import IVON
from tests.badmm.ivon.test_gradients import sampled
from tests.badmm.ivon.test_ivon import train
from tests.badmm.ivon.test_memory import pair, points, wide


@pytest.mark.parametrize("frozen", [[0], [1], [0, 1], [2, 3], [1, 2]])
def test_frozen_parameters_stay_bit_for_bit(frozen: list[int]) -> None:
    network = wide()
    listed = list(network.parameters())
    for k in frozen:
        listed[k].requires_grad_(False)
    before = [p.detach().clone() for p in listed]
    optimizer = IVON(network.parameters(), 0.1, 50.0, weight_decay=0.1, beta2=0.9, seed=1)
    for x, y in points(5):
        with optimizer.sampled_params(train=True):
            assert all(torch.equal(listed[k], before[k]) for k in frozen)
            assert not any(torch.equal(listed[k], before[k]) for k in range(4) if k not in frozen)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    drawn = optimizer.sample()
    for k in range(4):
        assert torch.equal(listed[k], before[k]) is (k in frozen)
        assert torch.equal(drawn[k], listed[k]) is (k in frozen)


@pytest.mark.parametrize("toggled", [[0], [1], [3], [0, 1, 3]])
def test_freezing_in_the_middle_keeps_state_and_normals(toggled: list[int]) -> None:
    """Frozen for some steps, then trained on with the state it had; the others' normals are as if it had not been."""
    network, optimizer = pair()
    listed, data = list(network.parameters()), points(9)
    train(network, optimizer, data[:3])
    for k in toggled:
        listed[k].requires_grad_(False)
    kept = [(listed[k].detach().clone(), optimizer.precision[k].clone()) for k in toggled]
    train(network, optimizer, data[3:6])
    for k, (value, precision) in zip(toggled, kept, strict=True):
        assert torch.equal(listed[k], value)
        assert torch.equal(optimizer.precision[k], precision)
        listed[k].requires_grad_(True)
    train(network, optimizer, data[6:])
    assert not any(torch.equal(listed[k], value) for k, (value, _) in zip(toggled, kept, strict=True))


def test_normals_do_not_depend_on_what_is_frozen() -> None:
    whole, part = pair()[1], pair()
    for k, p in enumerate(part[0].parameters()):
        p.requires_grad_(k == 1)
    expected, found = whole.sample(), part[1].sample()
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[3], list(part[0].parameters())[3])


def test_freezing_between_the_sample_and_its_step_keeps_the_parameter() -> None:
    network, optimizer = pair()
    listed = list(network.parameters())
    sampled(network, optimizer, *points(1)[0])
    listed[0].requires_grad_(False)
    before = [p.detach().clone() for p in listed]
    optimizer.step()
    assert [torch.equal(a, b) for a, b in zip(listed, before, strict=True)] == [True, False, False, False]


def test_a_stale_gradient_of_a_frozen_parameter_does_not_move_it() -> None:
    network: Any
    network, optimizer = pair()
    train(network, optimizer, points(2))
    network[0].requires_grad_(False)  # its .grad is still there
    before = network[0].weight.detach().clone()
    with optimizer.sampled_params(train=True):
        nn.functional.cross_entropy(network(points(1)[0][0]), points(1)[0][1]).backward()
    optimizer.step()
    assert torch.equal(network[0].weight, before)


def test_a_frozen_backbone_costs_no_state() -> None:
    network: Any = wide()
    network[0].weight.requires_grad_(False)
    optimizer = IVON(network.parameters(), 0.1, 50.0)
    train(network, optimizer, points(1))
    assert network[0].weight not in optimizer.state
    again = IVON(network.parameters(), 0.1, 50.0)
    again.load_state_dict(optimizer.state_dict())
    network[0].weight.requires_grad_(True)
    train(network, again, points(1))
    assert network[0].weight in again.state


def test_a_network_that_is_frozen_whole_is_refused_where_it_would_train() -> None:
    network, optimizer = pair()
    network.requires_grad_(False)
    with optimizer.sampled_params():
        network(points(1)[0][0])
    x = points(1)[0][0].requires_grad_()
    with pytest.raises(RuntimeError, match="let some parameter ask for gradients"), optimizer.sampled_params(True):
        network(x).sum().backward()
