"""Memory with more than one user: other processes, tied weights, parameters given twice, samples inside samples."""

import copy
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn

from badmm.ivon import IVON
from tests.badmm.ivon.test_ivon import parameters, train
from tests.badmm.ivon.test_memory import pair, points, wide


@pytest.mark.parametrize("before", [True, False])
def test_shared_memory_holds_the_mean_and_is_what_a_step_moves(before: bool) -> None:
    network = wide()
    if before:
        network.share_memory()
    optimizer = IVON(network.parameters(), 0.1, 50.0)
    if not before:
        network.share_memory()
    seen = [p.data for p in network.parameters()]
    kept = parameters(network)
    with optimizer.sampled_params(train=True):
        network(points(1)[0][0]).square().mean().backward()
        assert torch.equal(torch.cat([t.reshape(-1) for t in seen]), kept)  # another process sees no sample
    optimizer.step()
    assert all(p.is_shared() for p in network.parameters())
    assert torch.equal(torch.cat([t.reshape(-1) for t in seen]), parameters(network))
    assert not torch.equal(parameters(network), kept)


def test_two_threads_train_one_shared_model_as_hogwild_does() -> None:
    network = wide().share_memory()
    replicas = [copy.deepcopy(network) for _ in range(2)]
    for replica in replicas:
        for p, q in zip(replica.parameters(), network.parameters(), strict=True):
            p.data = q.data
    optimizers = [IVON(r.parameters(), 0.05, 500.0, seed=k) for k, r in enumerate(replicas)]
    data = points(20)
    with torch.no_grad():
        first = nn.functional.cross_entropy(network(data[0][0]), data[0][1])
    workers = [threading.Thread(target=train, args=(r, o, data)) for r, o in zip(replicas, optimizers, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(parameters(r), parameters(network)) for r in replicas)
    with torch.no_grad():
        assert nn.functional.cross_entropy(network(data[0][0]), data[0][1]) < first


class Tied(nn.Module):
    """Two layers with one weight, tied as a Parameter or through its data."""

    def __init__(self, size: int, by_data: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder, self.decoder = (nn.Linear(size, size, bias=False) for _ in range(2))
        if by_data:
            self.decoder.weight.data = self.encoder.weight.data
        else:
            self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.decoder(torch.tanh(self.encoder(x)))
        return found


@pytest.mark.parametrize("size", [4, 200])
def test_weights_tied_through_their_data_train_as_one_parameter(size: int) -> None:
    found = []
    for by_data in (True, False):
        network = Tied(size, by_data)
        optimizer = IVON(network.parameters(), 0.1, 50.0, seed=3)
        for k in range(3):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                assert torch.equal(network.encoder.weight, network.decoder.weight)
                network(torch.ones(2, size) * k).square().mean().backward()
            optimizer.step()
        assert network.encoder.weight.data_ptr() == network.decoder.weight.data_ptr()
        found.append(network.encoder.weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def test_a_tie_made_later_is_refused() -> None:
    network = Tied(4, by_data=False)
    network.decoder.weight = nn.Parameter(network.encoder.weight.detach().clone())
    optimizer = IVON(network.parameters(), 0.1, 50.0)
    network.decoder.weight.data = network.encoder.weight.data
    for _ in range(2):  # and again, for whoever goes on
        with pytest.raises(RuntimeError, match=r"parameter 1 of group 0 was tied to parameter 0 of group 0"):
            optimizer.sample()
    network.decoder.weight.data = network.decoder.weight.data.clone()
    optimizer.sample()


def test_a_tie_that_is_cut_leaves_each_its_state() -> None:
    network = Tied(4, by_data=True)
    optimizer = IVON(network.parameters(), 0.1, 50.0, beta2=0.9)
    for _ in range(2):
        with optimizer.sampled_params(train=True):
            network(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()
    before = optimizer.precision
    network.decoder.weight.data = network.decoder.weight.data.clone()
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.precision, strict=True))
    with optimizer.sampled_params(train=True):
        assert not torch.equal(network.encoder.weight, network.decoder.weight)
        network(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()


def test_memory_shared_in_part_or_across_groups_is_refused() -> None:
    whole = torch.zeros(10)
    first, second = nn.Parameter(whole[:6]), nn.Parameter(whole[4:])
    with pytest.raises(ValueError, match=r"parameter 1 of group 0 shares memory with parameter 0 of group 0"):
        IVON([first, second], 0.1, 1.0)
    network = Tied(4, by_data=True)
    groups = [{"params": network.encoder.parameters()}, {"params": network.decoder.parameters()}]
    with pytest.raises(ValueError, match=r"parameter 0 of group 1 shares memory with parameter 0 of group 0"):
        IVON(groups, 0.1, 1.0)
    with pytest.raises(ValueError, match="expanded"):
        IVON([nn.Parameter(torch.zeros(1).expand(3))], 0.1, 1.0)


def test_parts_of_one_tensor_that_are_apart_train() -> None:
    """Fused layers: columns of one matrix as two parameters, neither of them dense."""
    whole = torch.arange(12.0).reshape(3, 4)
    first, second = nn.Parameter(whole[:, :3]), nn.Parameter(whole[:, 3:])
    optimizer = IVON([first, second], 0.1, 50.0, seed=0)
    with optimizer.sampled_params(train=True):
        (first.sum() - second.sum()).backward()
    before = whole.clone()
    optimizer.step()
    assert first.data_ptr() == whole.data_ptr()
    assert bool((whole[:, :3] < before[:, :3]).all()) and bool((whole[:, 3:] > before[:, 3:]).all())


def test_a_parameter_twice_in_a_group_counts_once() -> None:
    found = []
    for repeats in (1, 3):
        p = nn.Parameter(torch.ones(3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of duplicate parameters
            optimizer = IVON([p] * repeats, 0.1, 10.0, seed=0)
        for _ in range(3):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                p.square().sum().backward()
            optimizer.step()
        found.append(p.detach())
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="more than one parameter group"):
        IVON([{"params": [p]}, {"params": [p]}], 0.1, 1.0)


def test_samples_nest_around_the_same_mean() -> None:
    network, optimizer = pair()
    mean = parameters(network)
    with optimizer.sampled_params():
        outer = parameters(network)
        with optimizer.sampled_params():
            with optimizer.sampled_params():
                assert not torch.equal(parameters(network), outer)
            inner = parameters(network)
        assert torch.equal(parameters(network), outer)
    assert torch.equal(parameters(network), mean)
    deviation = 1 / (50.0 * 1.0001) ** 0.5
    assert float((inner - mean).std()) == pytest.approx(deviation, rel=0.02)


def test_an_evaluation_inside_a_training_sample_leaves_the_step_alone() -> None:
    found = []
    for nested in (False, True):
        network, optimizer = pair()
        x, y = points(1)[0]
        with optimizer.sampled_params(train=True):
            loss = nn.functional.cross_entropy(network(x), y)
            if nested:
                with optimizer.sampled_params(), torch.no_grad():
                    network(x)
            loss.backward()
        optimizer.step()
        found.append(parameters(network))
    assert torch.equal(*found)


def test_what_cannot_nest_is_refused() -> None:
    network, optimizer = pair()
    with optimizer.sampled_params(train=True):
        with pytest.raises(RuntimeError, match="train=False inside another block"), optimizer.sampled_params(True):
            pass
        with pytest.raises(RuntimeError, match="step: expected the end of sampled_params first"):
            optimizer.step()
        with pytest.raises(RuntimeError, match="load_state_dict: expected a call outside"):
            optimizer.load_state_dict(optimizer.state_dict())
        network(points(1)[0][0]).sum().backward()
    optimizer.step()
