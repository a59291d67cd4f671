"""The optimizer as torch operations gives the compiled kernels' numbers: normals, every step, errors."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import badmm_kernels
from badmm.ivon import IVON, backends
from tests.badmm.ivon.test_ivon import batches, model, parameters, train

TOLERANCE = {torch.float32: 2e-6, torch.float64: 2e-14}
K, P = 3, 300


def both() -> tuple[Any, Any]:
    return badmm_kernels.load("ivon"), importlib.import_module("badmm_kernels.torch.ivon")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_normals_are_the_kernels(dtype: torch.dtype) -> None:
    """To the rounding of their polynomials; the integers below them are the same."""
    compiled, plain = both()
    for seed, step in (([5, 2**63 + 7, 1], 4), (2**64 - 1, [0, 2**40, 2**63])):
        first, second = (torch.empty(K, P, dtype=dtype) for _ in range(2))
        compiled.noise(seed, step, out=first)
        plain.noise(seed, step, out=second)
        torch.testing.assert_close(first, second, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def arguments(name: str, dtype: torch.dtype) -> tuple[list[Any], dict[str, Any]]:
    draw = torch.Generator().manual_seed(3)

    def some(positive: bool = False) -> Tensor:
        values = torch.randn(K, P, generator=draw, dtype=torch.float64)
        return (values.exp() if positive else values).to(dtype)

    ess = [50.0, 80.0, 20.0]
    state, cavity = (some(), some(True), some()), (some(), 0.3)
    hyper: list[Any] = [0.1, 0.9, 0.99, [0.1, 0.2, 0.3], 0.5]
    if name == "sample":
        return [state[0], state[1], ess], {"seed": 4, "step": 2}
    if name == "update":
        return [some(), *state, cavity, ess, *hyper], {"noise": some()}
    if name == "update_sample":
        return [some(), *state, cavity, ess, *hyper], {"noise": some(), "seed": [1, 2, 3], "next_step": 9}
    if name == "accumulate":
        return [some(), some(), some()], {"noise": some()}
    if name == "accumulate_squares":
        return [some(), some(), some(True)], {}
    of_precision = [ess, 0.99]
    if name == "update_precision":
        return [some(), *state[:2], cavity, *of_precision], {"noise": some()}
    if name == "update_precision_averaged":
        return [some(), some(), *state[:2], cavity, 4, *of_precision], {}
    rest = hyper if name.endswith("squares") else [ess, *hyper]
    return [some(), some(True), *state, cavity, 4, *rest], {}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "name", [n for n in importlib.import_module("badmm_kernels.torch.ivon").__all__ if n != "noise"]
)
def test_steps_are_the_kernels(name: str, dtype: torch.dtype) -> None:
    compiled, plain = both()
    positional, keywords = arguments(name, dtype)
    first = getattr(compiled, name)(*positional, **keywords)
    second = getattr(plain, name)(*positional, **keywords)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert b.shape == (K, P)
        torch.testing.assert_close(a, b, rtol=20 * TOLERANCE[dtype], atol=20 * TOLERANCE[dtype])


def test_in_place_with_one_array_for_both_normals() -> None:
    ends = []
    for namespace in both():
        positional, keywords = arguments("update_sample", torch.float64)
        noise = keywords.pop("noise")
        out = (*positional[1:4], positional[0])  # the next sample in the gradient's place
        namespace.update_sample(*positional, **keywords, noise=noise, next_noise=noise, out=out)
        ends.append((*out, noise))
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_errors_name_the_argument() -> None:
    _, plain = both()
    positional, keywords = arguments("update", torch.float64)
    positional[2][1, 2] = -1.0
    with pytest.raises(ValueError, match=r"precision: expected positive, got -1.0 at index \(1, 2\)"):
        plain.update(*positional, **keywords)
    with pytest.raises(ValueError, match=r"noise: expected an array where step is None"):
        plain.sample(positional[1], positional[1], 3.0)
    with pytest.raises(TypeError, match="mean: expected a torch tensor"):
        plain.sample(np.ones(3), torch.ones(3), 3.0)


def faults() -> dict[str, tuple[list[Any], dict[str, Any]]]:
    wide, few, ones = (torch.ones(K, n, dtype=torch.float64) for n in (2 * P, P - 1, P))
    bad = ones.clone()
    bad[1, 2] = torch.nan
    return {
        "strides": ([wide[:, ::2], ones, 3.0], {"noise": ones}),
        "shape": ([ones, few, 3.0], {"noise": ones}),
        "gradient": ([ones, ones.clone().requires_grad_(), 3.0], {"noise": ones}),
        "type": ([ones, ones.float(), 3.0], {"noise": ones}),
        "noise": ([ones, ones, 3.0], {"noise": bad}),
        "overflow": ([ones, ones, 1e-300], {"noise": 1e200 * ones}),
        "coefficient": ([ones.float(), ones.float(), 1e300], {"noise": ones.float()}),
        "out": ([ones, ones, 3.0], {"noise": ones, "out": (few,)}),
    }


@pytest.mark.parametrize("fault", faults())
def test_errors_are_the_kernels(fault: str) -> None:
    said = []
    for namespace in both():
        positional, keywords = faults()[fault]
        with pytest.raises((TypeError, ValueError)) as caught:
            namespace.sample(*positional, **keywords)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


def test_an_output_overlaps_no_other_array() -> None:
    for namespace in both():
        memory = torch.ones(K * P + 1, dtype=torch.float64)
        mean, out = memory[:-1].view(K, P), memory[1:].view(K, P)
        with pytest.raises(ValueError, match=r"out\[0\]: expected memory of its own or .*, got an overlap with mean"):
            namespace.sample(mean, torch.ones_like(mean), 3.0, noise=torch.ones(K, P, dtype=torch.float64), out=(out,))


def test_the_optimizer_takes_it_where_numba_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backends.load("ivon", torch.device("cpu")) is both()[0]
    assert backends.load("ivon", torch.device("cpu"), "torch") is both()[1]
    first, second = model(), model()
    train(first, IVON(first.parameters(), 0.1, 50.0, seed=1), batches(30), 2)
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    optimizer = IVON(second.parameters(), 0.1, 50.0, seed=1)
    train(second, optimizer, batches(30), 2)
    assert optimizer._arrangements[0].stores[0].kernels.namespace is both()[1]
    torch.testing.assert_close(parameters(first), parameters(second), rtol=1e-11, atol=1e-12)
