"""Parameters keep memory of their own: what replaces, shares, saves, repeats or nests them works or is refused."""

import copy
import gc
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from badmm.ivon import IVON
from tests.badmm.ivon.test_ivon import batches, model, parameters, train

ENTRIES = 200  # a layer of its square has a store of its own, its bias shares one


def wide(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(ENTRIES, ENTRIES), nn.Tanh(), nn.Linear(ENTRIES, 3))


def points(count: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    return [(torch.randn(8, ENTRIES, generator=draw), torch.arange(8) % 3) for _ in range(count)]


def pair(seed: int = 0) -> tuple[nn.Sequential, IVON]:
    network = wide(seed)
    return network, IVON(network.parameters(), 0.1, 50.0, seed=7)


def storages(network: nn.Module) -> int:
    return len({p.untyped_storage().data_ptr() for p in network.parameters()})


def test_making_and_using_an_optimizer_moves_no_parameter() -> None:
    network = wide()
    before = [p.data_ptr() for p in network.parameters()]
    optimizer = IVON(network.parameters(), 0.1, 50.0)
    train(network, optimizer, points(3))
    assert [p.data_ptr() for p in network.parameters()] == before
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in network.parameters())


@pytest.mark.parametrize("inside", [False, True])
def test_safetensors_saves_the_model_and_a_sample_of_it(tmp_path: Path, inside: bool) -> None:
    network, optimizer = pair()
    train(network, optimizer, points(2))
    path, again = tmp_path / "model.safetensors", wide(1)
    if inside:
        with optimizer.sampled_params():
            save_model(network, str(path))
            kept = parameters(network)
    else:
        save_model(network, str(path))
        kept = parameters(network)
    load_model(again, str(path))
    assert torch.equal(parameters(again), kept)
    assert torch.equal(parameters(network), kept) is not inside


def test_the_optimizers_own_state_can_be_saved_by_safetensors(tmp_path: Path) -> None:
    network, optimizer = pair()
    train(network, optimizer, points(2))
    saved = optimizer.state_dict()["state"]
    flat = {f"{number}.{name}": t for number, own in saved.items() for name, t in own.items()}
    save_file(flat, tmp_path / "state.safetensors")
    found = load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(found[name], t) for name, t in flat.items())


def test_a_part_is_saved_alone() -> None:
    network, optimizer = pair()
    train(network, optimizer, points(1))
    sizes = []
    for part in (network[2].bias, network[2].state_dict(), optimizer.state_dict()["state"][3]):
        file = io.BytesIO()
        torch.save(part, file)
        sizes.append(len(file.getvalue()))
    assert max(sizes) < 20_000  # the whole has 160 000


def test_accelerates_saver_and_prepare(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    network, optimizer = pair()
    runner = accelerate.Accelerator(cpu=True)
    prepared, wrapped = runner.prepare(network, optimizer)
    for x, y in points(3):
        with optimizer.sampled_params(train=True):
            wrapped.zero_grad()
            runner.backward(nn.functional.cross_entropy(prepared(x), y))
        wrapped.step()
    runner.save_model(prepared, str(tmp_path))
    kept = load_file(tmp_path / "model.safetensors")
    assert sorted(kept) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    runner.save_state(str(tmp_path / "state"))
    before = parameters(network)
    train(network, optimizer, points(1))
    runner.load_state(str(tmp_path / "state"))
    assert torch.equal(parameters(network), before)
    plain, own = pair()
    train(plain, own, points(3))
    assert torch.equal(parameters(plain), before)


def replace_by_data(network: nn.Module, value: Tensor) -> None:
    for p, part in zip(network.parameters(), value.split([p.numel() for p in network.parameters()]), strict=True):
        p.data = part.clone().view(p.shape)


def copy_into_data(network: nn.Module, value: Tensor) -> None:
    for p, part in zip(network.parameters(), value.split([p.numel() for p in network.parameters()]), strict=True):
        p.data.copy_(part.view(p.shape))


def to_vector(network: nn.Module, value: Tensor) -> None:
    nn.utils.vector_to_parameters(value.clone(), network.parameters())


def load(network: nn.Module, value: Tensor, assign: bool = False) -> None:
    other = wide()
    copy_into_data(other, value)
    network.load_state_dict(other.state_dict(), assign=assign)


@pytest.mark.parametrize("place", ["before the block", "before the step"])
@pytest.mark.parametrize("replace", [replace_by_data, copy_into_data, to_vector, load])
def test_training_goes_on_from_values_that_a_user_sets(place: str, replace: Callable[..., None]) -> None:
    """Bit for bit where an optimizer goes that had them from the start."""
    network, optimizer = pair()
    other, same = pair()
    value = parameters(wide(5))
    (x, y), *rest = points(4)
    copy_into_data(other, value)
    if place == "before the block":
        replace(network, value)
    with optimizer.sampled_params(train=True):
        nn.functional.cross_entropy(network(x), y).backward()
    with same.sampled_params(train=True):
        nn.functional.cross_entropy(other(x), y).backward()
    if place == "before the step":  # another gradient, the same start of the step
        replace(network, value)
        for p, q in zip(network.parameters(), other.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None
            p.grad.copy_(q.grad)
    optimizer.step()
    same.step()
    assert torch.equal(parameters(network), parameters(other))
    train(network, optimizer, rest)
    train(other, same, rest)
    assert torch.equal(parameters(network), parameters(other))


def test_assigned_parameters_of_another_object_are_not_followed_silently() -> None:
    """load_state_dict(assign=True) replaces the Parameter objects, as it does under every torch optimizer."""
    network, optimizer = pair()
    load(network, parameters(wide(5)), assign=True)
    with pytest.raises(RuntimeError, match="expected gradients at the end of a block"), optimizer.sampled_params(True):
        nn.functional.cross_entropy(network(points(1)[0][0]), points(1)[0][1]).backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
def test_a_model_may_change_its_type_after_the_optimizer_is_made(dtype: torch.dtype) -> None:
    network, optimizer = pair()
    data = points(4)
    train(network, optimizer, data[:2])
    before = [s.clone() for s in optimizer.precision]
    network.to(dtype)
    torch.testing.assert_close([s.to(torch.float32) for s in optimizer.precision], before)
    train(network, optimizer, [(x.to(dtype), y) for x, y in data[2:]])
    assert {p.dtype for p in network.parameters()} == {dtype}
    assert not torch.equal(optimizer.precision[0].float(), before[0])


def test_channels_last_keeps_every_entry_with_its_state() -> None:
    networks = []
    for after in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network: Any = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 9, 3))
        optimizer = IVON(network.parameters(), 0.1, 50.0, beta2=0.9)
        draw = torch.Generator().manual_seed(2)
        optimizer.set_prior(0.1, [torch.rand(p.shape, generator=draw) + 1 for p in network.parameters()])
        if after:
            network.to(memory_format=torch.channels_last)
        networks.append((network, optimizer.precision))
    assert not networks[1][0][0].weight.is_contiguous()
    for a, b in zip(networks[0][1], networks[1][1], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("change", ["float", "shape"])
def test_a_change_between_the_sample_and_its_step_is_refused(change: str) -> None:
    network, optimizer = pair()
    with optimizer.sampled_params(train=True):
        network(points(1)[0][0]).sum().backward()
    if change == "float":
        network.double()
    else:
        network[0].weight.data = torch.zeros(ENTRIES + 1, ENTRIES)
    with pytest.raises(RuntimeError, match=r"params: expected parameter 0 of group 0 with the device, dtype and shape"):
        optimizer.step()


def test_a_shape_that_the_state_does_not_have_is_refused() -> None:
    network, optimizer = pair()
    network[2].bias.data = torch.zeros(5)
    with pytest.raises(RuntimeError, match=r"params: expected the shape that the state of parameter 3 of group 0"):
        optimizer.sample()


@pytest.mark.parametrize("change", [lambda n: n.double(), lambda n: to_vector(n, torch.zeros(parameters(n).numel()))])
def test_memory_that_is_replaced_inside_a_block_is_refused_there(change: Callable[[nn.Module], object]) -> None:
    network, optimizer = pair()
    before = parameters(network)
    with pytest.raises(RuntimeError, match="was given other memory inside sampled_params"), optimizer.sampled_params():
        change(network)
    assert torch.equal(parameters(network), before)
    train(network, optimizer, points(1))


def test_an_error_inside_a_block_is_not_hidden_by_replaced_memory() -> None:
    network, optimizer = pair()
    before = parameters(network)

    def fail() -> None:
        with optimizer.sampled_params():
            network.double()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert torch.equal(parameters(network), before)


def ends(network: nn.Module, optimizer: IVON, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    train(network, optimizer, data)
    return parameters(network)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_go_on_as_the_original_does(way: str) -> None:
    network, optimizer = pair()
    data = points(6)
    optimizer.set_prior(0.05, 20.0)
    train(network, optimizer, data[:3])
    if way == "deepcopy":
        other, copied = copy.deepcopy((network, optimizer))
    elif way == "pickle":
        other, copied = pickle.loads(pickle.dumps((network, optimizer)))
    else:
        file = io.BytesIO()
        torch.save((network, optimizer), file)
        file.seek(0)
        other, copied = torch.load(file, weights_only=False)
    expected = ends(network, optimizer, data[3:])
    assert not torch.equal(parameters(other), expected)
    assert torch.equal(ends(other, copied, data[3:]), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_the_optimizer_is_not_copied_inside_a_block(copied: Callable[[object], object]) -> None:
    _, optimizer = pair()
    with optimizer.sampled_params(), pytest.raises(RuntimeError, match="copied or pickled outside sampled_params"):
        copied(optimizer)


def test_a_model_is_copied_inside_a_block_as_the_sample_it_is() -> None:
    network, optimizer = pair()
    members = []
    for _ in range(3):
        with optimizer.sampled_params():
            members.append((copy.deepcopy(network), parameters(network), network.state_dict()))
    for member, sample, state in members:
        assert torch.equal(parameters(member), sample)
        assert torch.equal(torch.cat([t.reshape(-1) for t in state.values()]), sample)
        assert not torch.equal(sample, parameters(network))


def test_a_graph_from_before_the_step_is_not_used_after_it() -> None:
    """torch's optimizers change parameters in place, and autograd says so; so does this one."""
    network, optimizer = pair()
    x, y = points(1)[0]
    old = nn.functional.cross_entropy(network(x), y)
    train(network, optimizer, [(x, y)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        old.backward()


def test_optimizers_that_are_dropped_leave_no_hooks() -> None:
    network = model()
    for _ in range(5):
        train(network, IVON(network.parameters(), 0.1, 10.0), batches(1))
    gc.collect()
    kept = IVON(network.parameters(), 0.1, 10.0)
    assert [len(p._backward_hooks or {}) for p in network.parameters()] == [1] * 4
    del kept
    gc.collect()
    assert [len(p._backward_hooks or {}) for p in network.parameters()] == [0] * 4
