"""The fast acceptance path takes only what the full checks take, and computes the same."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import badmm_kernels
from badmm_kernels.cpu import ivon, sweep
from badmm_kernels.face import arrays, exchange

KERNELS = {
    k.name: k for k in (ivon._SAMPLE, ivon._UPDATE, ivon._UPDATE_SAMPLE, ivon._ACCUMULATE, ivon._UPDATE_AVERAGED)
}
SCALARS = {"ess": 400.0, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "debias": 0.5, "clip": None, "samples": 3}
COUNT = 12  # elements of every array of a right call


def pool(rng: np.random.Generator, dtype: str) -> list[Any]:
    """Arrays to choose from: right ones, and one of each kind that the fast path must leave to the full checks."""
    whole = rng.uniform(0.5, 2.0, 4 * COUNT).astype(dtype)
    right = [rng.uniform(0.5, 2.0, COUNT).astype(dtype) for _ in range(8)]
    read_only = right[0].copy()
    read_only.flags.writeable = False
    odd: list[Any] = [
        read_only,
        whole[:COUNT],
        whole[3 : COUNT + 3],
        whole[: 2 * COUNT : 2],
        whole[: COUNT + 1],
        whole[COUNT : 2 * COUNT].reshape(3, 4),
        rng.uniform(0.5, 2.0, COUNT).astype("float32" if dtype == "float64" else "float64"),
        np.ones(COUNT, np.int64),
        np.empty(0, dtype),
        right[1].view(np.recarray),
        np.frombuffer(bytearray(COUNT * np.dtype(dtype).itemsize + 1), dtype, COUNT, 1),  # unaligned
        torch.from_numpy(rng.uniform(0.5, 2.0, COUNT).astype(dtype)),
        torch.from_numpy(rng.uniform(0.5, 2.0, COUNT).astype(dtype)).requires_grad_(),
        -0.3,
        1,
        None,
        "x",
    ]
    return right if rng.random() < 0.5 else [*right, *odd]


def arguments(kernel: Any, seed: int, dtype: str, wrap: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The arguments of one call, right or not, the same for the same seed."""
    rng = np.random.default_rng(seed)
    choice = [wrap(a) for a in pool(rng, dtype)]
    pick = lambda: choice[int(rng.integers(len(choice)))]  # noqa: E731
    values = list(choice[: len(kernel.operands)])  # distinct, as a right call has them
    for k, (_, _, scalar) in enumerate(kernel.operands):
        if rng.random() < 0.1:
            values[k] = pick()
        elif scalar and rng.random() < 0.4:
            values[k] = 0.7
    steps, noise = [], []
    for k, (_, _, keeps) in enumerate(kernel.normals):
        drawn = rng.random() < 0.5
        steps.append(k + 1 if drawn else None)
        given = rng.random() < (0.5 if keeps or rng.random() < 0.1 else 0.0) if drawn else rng.random() < 0.95
        noise.append((choice[7] if rng.random() < 0.8 else pick()) if given else None)
    out: Any = None
    if rng.random() < 0.8:
        operands = [n for n, _, _ in kernel.operands]
        own = iter(wrap(np.ones(COUNT, dtype)) for _ in kernel.results)
        out = [
            pick() if rng.random() < 0.05 else values[operands.index(r)] if r and rng.random() < 0.7 else next(own)
            for _, _, r in kernel.results
        ]
        out = out[:-1] if rng.random() < 0.03 else tuple(out)
    scalars = [SCALARS[n] for n, _ in kernel.scalars]
    return values, scalars, 3, steps, noise, out


def outcome(call: Callable[..., Any], given: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call returned, with every array that it could have written; or its error."""
    try:
        results = call(*given)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    seen = [*given[0], *given[4], *(given[5] or ()), *results]
    return tuple(np.asarray(a).tobytes() for a in seen if a is not None), [type(r) for r in results]


def checked(kernel: Any) -> Callable[..., tuple[Any, ...]]:
    """The kernel's call with the full checks alone."""
    return lambda *given: kernel._run_checked(kernel.check(*given), given[-1])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(KERNELS))
def test_the_fast_path_and_the_checks_agree(name: str, dtype: str, library: str) -> None:
    kernel, ends = KERNELS[name], Counter[str]()

    def wrap(value: Any) -> Any:
        plain = library == "torch" and type(value) is np.ndarray and value.flags.writeable and value.flags.aligned
        return torch.from_numpy(value) if plain else value

    for seed in range(300):
        given = arguments(kernel, seed, dtype, wrap)
        fast = kernel._accept(given[0], *given[3:]) is not None
        ours = outcome(kernel, given)
        theirs = outcome(checked(kernel), arguments(kernel, seed, dtype, wrap))
        assert ours == theirs
        ends["fast" if fast else "error" if isinstance(ours[0], type) else "checked"] += 1
    assert min(ends[end] for end in ("fast", "error", "checked")) >= 3, ends


def test_a_common_call_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, of rows with scalars of their own, of tensors, with the normals kept where they were read."""

    def refuse(*_arguments: Any) -> None:
        raise AssertionError("a usual call went through the checks")

    monkeypatch.setattr(sweep.SweepKernel, "check", refuse)
    ns = badmm_kernels.load("ivon")
    for shape, ess in (((24,), 400.0), ((2, 12), [300.0, 400.0]), ((2, 3, 4), np.array([300.0, 400.0]))):
        for wrap in (np.asarray, torch.from_numpy):
            g, m, s, v, eps, theta, prior = (wrap(np.full(shape, 0.5, np.float32)) for _ in range(7))
            for cavity in ((0.0, 0.1), (prior, prior)):
                hyper = {"ess": ess, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "clip": 0.05}
                ns.update_sample(
                    g, m, s, v, cavity, **hyper, seed=1, next_step=2, noise=eps, next_noise=eps, out=(m, s, v, theta)
                )
                ns.sample(m, s, ess, seed=1, step=1, noise=eps, out=(theta,))
                assert all(type(r) is type(g) for r in ns.update(g, m, s, v, cavity, **hyper, noise=eps))


def test_spans_overlap_where_numpy_says_so() -> None:
    """Empty, strided, reversed and transposed views of one buffer included."""
    rng, memory, buffer = np.random.default_rng(0), arrays.Memory(), np.zeros(64, np.float32)

    def pick() -> Any:
        low, high = sorted(rng.integers(0, 65, 2))
        if low == high:
            return np.ndarray((0,), np.float32, buffer, 4 * int(low))  # of no bytes, within the buffer
        view = buffer[low:high][:: int(rng.choice([1, 2, 3, -1]))]
        return view.reshape(-1, 2).T if view.size % 2 == 0 and rng.random() < 0.3 else view

    for _ in range(3000):
        one, other = pick(), pick()
        (low, high), (begin, end) = memory.span(one), memory.span(other)
        assert (low < end and begin < high) == np.may_share_memory(one, other)


def test_noise_has_the_shape_of_the_call() -> None:
    """Of all operands, not of the first: a shared first operand does not let other rows in."""
    ns, hyper = badmm_kernels.load("ivon"), {"ess": 400.0, "lr": 0.1, "beta1": 0.9, "beta2": 0.99}
    row, rows = np.ones(6), np.ones((2, 6))
    with pytest.raises(ValueError, match=r"noise: expected shape \(6,\), got \(2, 6\)"):
        ns.update(row, row, row, row, (0.0, 0.1), **hyper, noise=rows)
    with pytest.raises(ValueError, match=r"noise: expected shape \(2, 6\) or, .* clients, \(6,\), got \(3, 6\)"):
        ns.update(row, rows, rows, rows, (0.0, 0.1), **hyper, noise=np.ones((3, 6)))
    shared = ns.update(row, rows, rows, rows, (0.0, 0.1), **hyper, noise=row)
    whole = ns.update(row, rows, rows, rows, (0.0, 0.1), **hyper, noise=rows)
    assert all((a == b).all() for a, b in zip(shared, whole, strict=True))


def test_a_tensor_is_viewed_where_it_is_and_kept_alive() -> None:
    tensor = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    seen = exchange.plain_tensor(tensor[1:])
    assert seen is not None
    array, library = seen
    assert array.shape == (1, 3) and array.flags.writeable and library.module is torch
    array[0, 0] = 7.0
    assert tensor[1, 0] == 7.0
    del tensor, seen
    gc.collect()
    torch.full((6,), -1.0, dtype=torch.float64)  # would take the memory, were it free
    assert array.tolist() == [[7.0, 4.0, 5.0]]


def test_a_viewed_tensor_can_still_be_resized() -> None:
    """As after DLPack; not after Tensor.numpy."""
    tensor = torch.ones(4)
    badmm_kernels.load("ivon").sample(tensor, tensor, 400.0, seed=1, step=1)
    assert tensor.resize_(100).numel() == 100


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(4, dtype=torch.bfloat16), "mean: expected dtype float32 or float64, got torch.bfloat16"),
        (torch.ones(4, requires_grad=True), "mean: expected a tensor that does not require a gradient"),
        (torch.ones(4, device="meta"), "mean: expected an array in CPU memory, got one on meta"),
    ],
)
def test_other_tensors_are_refused(tensor: Any, message: str) -> None:
    assert exchange.plain_tensor(tensor) is None
    with pytest.raises(TypeError, match=message):
        badmm_kernels.load("ivon").sample(tensor, torch.ones(4), 400.0, seed=1, step=1)


def test_a_tensor_whose_memory_is_not_that_of_an_array_is_not_plain() -> None:
    whole = torch.arange(6.0).view(2, 3)
    assert exchange.plain_tensor(whole) is not None and exchange.plain_tensor(whole.T.contiguous()) is not None
    for other in (whole.T, whole[:, :2], whole.to_sparse(), torch.empty(0), whole.int(), np.ones(3)):
        assert exchange.plain_tensor(other) is None


def test_parameters_and_subclasses_are_tensors_too() -> None:
    class Own(torch.Tensor):
        pass

    base, ns = torch.rand(8), badmm_kernels.load("ivon")
    expected = ns.sample(base, torch.ones(8), 400.0, seed=1, step=1)[0]
    for mean in (torch.nn.Parameter(base, requires_grad=False), base.as_subclass(Own)):
        assert torch.equal(ns.sample(mean, torch.ones(8), 400.0, seed=1, step=1)[0], expected)
