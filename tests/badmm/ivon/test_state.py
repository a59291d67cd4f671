"""State and arguments beyond one path: half precision, sparse gradients, foreign states, tensors, schedulers."""

import collections
import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import ivon as peer
import pytest
import torch
from torch import Tensor, nn

from badmm.ivon import IVON
from tests.badmm.ivon.test_gradients import sampled
from tests.badmm.ivon.test_ivon import batches, draw_instead, model, parameters, train
from tests.badmm.ivon.test_memory import ENTRIES, pair, points, wide


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_as_its_float32_copy_does(dtype: torch.dtype) -> None:
    """State and mean are float32: steps too small for half precision add up; the weights are the mean rounded."""
    network = wide().to(dtype)
    optimizer = IVON(network.parameters(), 1e-4, 1e4, seed=0)
    start = [m.clone() for m in optimizer.mean]
    for x, y in points(30):
        sampled(network, optimizer, x.to(dtype), y)
        optimizer.step()
    for p, m, s, first in zip(network.parameters(), optimizer.mean, optimizer.precision, start, strict=True):
        assert p.dtype == dtype and m.dtype == s.dtype == torch.float32
        assert torch.equal(p.detach(), m.to(dtype))
        assert float((m != first).float().mean()) > 0.5
    moved = (optimizer.mean[0] - start[0]).abs().max()
    assert 0 < float(moved) < 0.01


@pytest.mark.parametrize("way", ["in place", "data", "load"])
def test_a_user_may_set_half_precision_weights(way: str) -> None:
    network: Any = wide().to(torch.bfloat16)
    optimizer = IVON(network.parameters(), 1e-4, 1e4, seed=0)
    train(network, optimizer, [(x.bfloat16(), y) for x, y in points(3)])
    kept = optimizer.mean[0].clone()
    value = network[0].weight.detach().clone()
    value[0] = 3.0
    if way == "in place":
        with torch.no_grad():
            network[0].weight[0] = 3.0
    elif way == "data":
        network[0].weight.data = value
    else:
        network.load_state_dict({**network.state_dict(), "0.weight": value})
    assert torch.equal(optimizer.mean[0][0], torch.full((ENTRIES,), 3.0))
    assert torch.equal(optimizer.mean[0][1:], kept[1:])  # not rounded where nobody touched it


def test_a_half_precision_state_goes_on_bit_identically() -> None:
    data = [(x.bfloat16(), y) for x, y in points(8)]
    network = wide().to(torch.bfloat16)
    optimizer = IVON(network.parameters(), 1e-3, 1e3, seed=2)
    train(network, optimizer, data[:4])
    saved = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    train(network, optimizer, data[4:])
    again = wide(3).to(torch.bfloat16)
    resumed = IVON(again.parameters(), 1e-3, 1e3)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert {t.dtype for own in resumed.state.values() for t in own.values()} == {torch.float32}
    train(again, resumed, data[4:])
    assert all(torch.equal(a, b) for a, b in zip(optimizer.mean, resumed.mean, strict=True))


def test_a_grad_scaler_and_half_precision_weights_beside_float32_ones() -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    network[0].bfloat16()
    optimizer, scaler = IVON(network.parameters(), 0.1, 100.0, seed=0), torch.amp.GradScaler("cpu")
    x, y = batches(1, torch.float32)[0]
    for _ in range(3):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            hidden = network[1](network[0](x.bfloat16()).float())
            scaler.scale(nn.functional.cross_entropy(network[2](hidden), y)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.param_groups[0]["step"] == 3
    assert [m.dtype for m in optimizer.mean] == [torch.float32] * 4


@pytest.mark.parametrize("size", [10, 2000])
@pytest.mark.parametrize("samples", [1, 2])
def test_sparse_gradients_count_as_the_dense_ones_that_they_are(size: int, samples: int) -> None:
    found = []
    for sparse in (True, False):
        table = nn.Embedding(size, 20, sparse=sparse)
        with torch.no_grad():
            table.weight.copy_(torch.arange(20.0 * size).view(size, 20) % 7)
        optimizer = IVON(table.parameters(), 0.1, 100.0, weight_decay=0.1, beta2=0.9, seed=0)
        for k in range(3):
            for _ in range(samples):
                with optimizer.sampled_params(train=True):
                    table.zero_grad()
                    table(torch.tensor([1, 2 + k, 1])).square().sum().backward()
            optimizer.step()
        found.append((table.weight.detach(), optimizer.precision[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_a_sparse_table_beside_a_dense_layer_with_a_backward_in_between() -> None:
    table, layer = nn.Embedding(10, 3, sparse=True), nn.Linear(3, 2)
    optimizer = IVON([*table.parameters(), *layer.parameters()], 0.1, 100.0, seed=0)
    with optimizer.sampled_params(train=True):
        layer(table(torch.tensor([1, 2]))).sum().backward()
    kept = [g.clone() for slot in optimizer._slots() for g in slot.gradients()]
    layer(table(torch.tensor([5]))).sum().backward()
    found = [g for slot in optimizer._slots() for g in slot.gradients()]
    assert all(torch.equal(a, b) for a, b in zip(kept, found, strict=True))
    optimizer.step()


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_another_optimizers_state_is_refused_in_words(make: Callable[..., torch.optim.Optimizer]) -> None:
    network, optimizer = pair()
    before = copy.deepcopy(optimizer.state_dict())
    other = make(network.parameters(), lr=0.1)
    nn.functional.cross_entropy(network(points(1)[0][0]), points(1)[0][1]).backward()
    other.step()
    with pytest.raises(ValueError, match=r"state_dict: expected the state of badmm\.ivon\.IVON or ivon-opt"):
        optimizer.load_state_dict(other.state_dict())
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert all(torch.equal(before["state"][k][n], t) for k, own in after["state"].items() for n, t in own.items())


def changed(**entries: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A saved state with other entries for its parameter 1."""
    return lambda saved: {**saved, "state": {**saved["state"], 1: {**saved["state"][1], **entries}}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "expected a mapping with state and param_groups, got the keys"),
        ([1], "expected a mapping with state and param_groups, got list"),
        (lambda s: {**s, "param_groups": s["param_groups"] * 2}, r"expected groups of \[4\] parameters, got \[4, 4\]"),
        (lambda s: {**s, "state": {**s["state"], 1: {"precision": torch.ones(200)}}}, "precision and momentum"),
        (changed(momentum=torch.ones(1)), "momentum of shape"),
        (changed(momentum=3.0), "momentum of shape .* got float"),
        (changed(exp_avg=torch.ones(200)), "precision and momentum"),
    ],
)
def test_a_damaged_state_is_refused_in_words(given: Any, words: str) -> None:
    _, optimizer = pair()
    with pytest.raises(ValueError, match=f"state_dict: .*{words}"):
        optimizer.load_state_dict(given(optimizer.state_dict()) if callable(given) else given)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_run_of_ivon_opt_goes_on(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours takes its h and momentum, and goes on as it would, given the same normals, where nothing is debiased."""
    options: dict[str, Any] = {"ess": 50.0, "hess_init": 0.375, "beta2": 0.99, "weight_decay": 0.01, "debias": False}

    def grouped(network: nn.Sequential) -> Any:
        parts = [{"params": network[0].parameters()}, {"params": network[2].parameters(), "lr": 0.05}]
        return parts if groups == 2 else network.parameters()

    network, data = model(), batches(8)
    theirs = peer.IVON(grouped(network), lr=0.1, **options)
    train(network, theirs, data[:4])
    other = copy.deepcopy(network)
    ours = IVON(grouped(other), lr=0.3, **options, seed=0)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
    monkeypatch.setattr(torch, "randn", lambda count, **_: torch.ones(count, dtype=torch.float64))
    draw_instead(monkeypatch, lambda draw: 1.0)
    train(network, theirs, data[4:])
    train(other, ours, data[4:])
    torch.testing.assert_close(parameters(other), parameters(network), rtol=1e-12, atol=1e-13)


def test_an_ivon_opt_state_of_another_size_is_refused() -> None:
    theirs = peer.IVON(nn.Linear(3, 1).parameters(), lr=0.1, ess=1.0)
    ours = IVON(nn.Linear(3, 2).parameters(), lr=0.1, ess=1.0)
    with pytest.raises(ValueError, match="state_dict: expected hess of 8 entries for group 0, got 4"):
        ours.load_state_dict(theirs.state_dict())


def replace_state(optimizer: IVON) -> None:
    for p in list(optimizer.state):
        optimizer.state[p] = {name: t.clone() * 2 for name, t in optimizer.state[p].items()}


def replace_entries(optimizer: IVON) -> None:
    for own in optimizer.state.values():
        for name in own:
            own[name] = own[name].double() * 2


def in_place(optimizer: IVON) -> None:
    for own in optimizer.state.values():
        for t in own.values():
            t.mul_(2)


@pytest.mark.parametrize("change", [replace_state, replace_entries, in_place])
def test_state_that_a_user_changes_is_used(change: Callable[[IVON], None]) -> None:
    network, optimizer = pair()
    train(network, optimizer, points(2))
    before = [s.clone() for s in optimizer.precision]
    change(optimizer)
    torch.testing.assert_close(optimizer.precision, [2 * s for s in before])
    train(network, optimizer, points(1))
    assert {t.dtype for own in optimizer.state.values() for t in own.values()} == {torch.float32}


def test_state_that_a_user_clears_starts_anew() -> None:
    network, optimizer = pair()
    train(network, optimizer, points(2))
    optimizer.state = collections.defaultdict(dict)
    assert all(torch.equal(s, torch.full_like(s, 50.0 * 1.0001)) for s in optimizer.precision)
    train(network, optimizer, points(1))
    optimizer.state.clear()
    assert all(torch.equal(s, torch.full_like(s, 50.0 * 1.0001)) for s in optimizer.precision)


def test_seeds_are_torchs() -> None:
    """torch.manual_seed sets them where none is given; negative ones are taken, as torch takes them."""
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(IVON(wide().parameters(), 0.1, 1.0).sample()[0])
    assert torch.equal(*draws)
    assert torch.equal(
        IVON(wide().parameters(), 0.1, 1.0, seed=-1).sample()[0],
        IVON(wide().parameters(), 0.1, 1.0, seed=(1 << 64) - 1).sample()[0],
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=10),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    ],
)
def test_schedulers_cycle_beta1(make: Callable[[IVON], Any]) -> None:
    network, optimizer = pair()
    schedule, seen = make(optimizer), []
    for x, y in points(6):
        train(network, optimizer, [(x, y)])
        seen.append((optimizer.param_groups[0]["beta1"], optimizer.param_groups[0]["betas"]))
        schedule.step()
    assert len({beta1 for beta1, _ in seen}) > 2
    assert all(pair == (beta1, 0.99999) for beta1, pair in seen)


@pytest.mark.parametrize("set_it", [{"beta1": 0.5}, {"betas": (0.5, 0.99999)}])
def test_beta1_is_set_by_either_name(set_it: dict[str, Any]) -> None:
    (first, ours), (second, plain) = pair(), (wide(), None)
    plain = IVON(second.parameters(), 0.1, 50.0, seed=7, beta1=0.5, debias=False)
    ours.debias = False
    ours.param_groups[0].update(set_it)
    train(first, ours, points(3))
    train(second, plain, points(3))
    assert torch.equal(parameters(first), parameters(second))


@pytest.mark.parametrize("given", [{"beta1": 0.5, "beta2": 0.9}, {"betas": (0.5, 0.9)}])
def test_a_group_may_have_betas_of_its_own(given: dict[str, Any]) -> None:
    network = model()
    optimizer = IVON([{"params": network[0].parameters()}, {"params": network[2].parameters(), **given}], 0.1, 10.0)
    assert [g["betas"] for g in optimizer.param_groups] == [(0.9, 0.99999), (0.5, 0.9)]
    assert [(g["beta1"], g["beta2"]) for g in optimizer.param_groups] == [(0.9, 0.99999), (0.5, 0.9)]
    with pytest.raises(ValueError, match="beta1: expected"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "betas": (1.5, 0.9)})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([torch.zeros(1), torch.zeros(1)], 1.0), "mean: expected a number or 4 tensors like the parameters, got 2"),
        (([torch.zeros(1)] * 4, 1.0), r"mean: expected shape \(200, 200\) for parameter 0, got \(1,\)"),
        ((0.0, -1.0), "precision: expected positive, got -1.0"),
        ((0.0, math.inf), "precision: expected positive, got inf"),
        ((math.nan, 1.0), "mean: expected finite, got nan"),
        ((0.0, 1.0, ([torch.zeros(3)] * 4, 0.0)), r"duals\[0\]: expected shape"),
        ((0.0, 1.0, (0.0, 0.0), 0.0), "rho: expected a positive number, got 0.0"),
    ],
)
def test_a_prior_of_other_shapes_or_values_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    _, optimizer = pair()
    before = [s.clone() for s in optimizer.precision]
    with pytest.raises(ValueError, match=words):
        optimizer.set_prior(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.precision, strict=True))


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (nn.Parameter(torch.zeros(2, dtype=torch.complex64)), "got torch.complex64 for parameter 0 of group 0"),
        (nn.Parameter(torch.zeros(2, device="meta")), r"no memory \(meta\)"),
        (nn.LazyLinear(3).weight, "which a lazy module has yet to shape"),
        (nn.Parameter(torch.eye(3).to_sparse()), "torch.sparse_coo"),
    ],
)
def test_parameters_without_real_memory_are_refused_by_name(p: Tensor, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of lazy modules and sparse tensors
        with pytest.raises(ValueError, match=f"params: expected .*{words}"):
            IVON([p], 0.1, 1.0)


def test_a_gradient_that_is_not_finite_names_its_parameter() -> None:
    network, optimizer = pair()
    with optimizer.sampled_params(train=True):
        (next(network.parameters())[3, 4] * math.inf).backward()
    with pytest.raises(ValueError, match=r"gradient: expected finite, got inf at index 604, in parameter 0 of group 0"):
        optimizer.step()


def test_an_empty_parameter_and_a_scalar_one() -> None:
    empty, single = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.tensor(1.0))
    optimizer = IVON([empty, single], 0.1, 10.0, seed=0)
    with optimizer.sampled_params(train=True):
        single.square().backward()
    optimizer.step()
    assert [m.shape for m in optimizer.mean] == [torch.Size([0, 3]), torch.Size([])]
    assert float(single.detach()) < 1
