"""Errors of the GPU functions: the CPU's words for a bad call at once, and for a bad value when the host next waits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.gpu import status
from tests.kernels.host_device import HostDevice

x, ones, nan = np.linspace(-1.0, 1.0, 7), np.ones(7), np.nan
Arguments = tuple[Any, ...]


def put(array: Any, index: Any, value: float) -> Any:
    changed = array.copy()
    changed[index] = value
    return changed


stack, pair = np.ones((3, 4)), (np.ones((3, 4)),) * 2
eye = np.stack([np.eye(3)] * 2)

# family, function, arguments, keywords: the same ValueError or TypeError on both devices
SHAPES: list[tuple[str, str, Arguments, dict[str, Any]]] = [
    ("diagonal_gaussian", "natural_from_standard", (x, ones[:3]), {}),
    ("diagonal_gaussian", "natural_from_standard", (x.astype(np.float16), ones), {}),
    ("diagonal_gaussian", "natural_from_standard", (x, ones.astype(np.float32)), {}),
    ("diagonal_gaussian", "natural_from_standard", (np.ones(14)[::2], ones), {}),
    ("diagonal_gaussian", "natural_from_standard", (x, ones), {"out": (x.copy(),)}),
    ("diagonal_gaussian", "natural_from_standard", (x, ones), {"out": (np.empty(5), x.copy())}),
    ("diagonal_gaussian", "natural_from_standard", (x, ones), {"out": (np.empty(14)[::2], x.copy())}),
    ("diagonal_gaussian", "natural_from_standard", (x, ones), {"out": (np.empty(7, np.float32), x.copy())}),
    ("diagonal_gaussian", "dual_update", ((x,), (x, x), (x, x), 1.0, 1.0), {}),
    ("diagonal_gaussian", "dual_update", ((x, x), (x, x), (x, x), 0.0, 1.0), {}),
    ("diagonal_gaussian", "dual_update", ((x, x), (x, x), (x, x), 1.0, 1.5), {}),
    ("diagonal_gaussian", "dual_update", ((x, x), (x, x), (x, x), "0.5", 1.0), {}),
    ("diagonal_gaussian", "dual_update", (*(((x.astype("f4"),) * 2,) * 3), 1e-60, 1.0), {}),
    ("diagonal_gaussian", "round_update", ((x, x), (x, x), (x, x), 1.0, 1.0, 0.5, 2), {"out": ((x, x),)}),
    ("diagonal_gaussian", "server_contribution", ((x, x), (x, x), 0.5, 2.5), {}),
    ("diagonal_gaussian", "server_total", ((np.ones((0, 4)),) * 2, (np.ones((0, 4)),) * 2, 0.5), {}),
    ("diagonal_gaussian", "server_total", ((ones, ones), (stack, stack), 0.5), {}),
    ("diagonal_gaussian", "client_map", ((np.ones((2, 4)),) * 2, pair, pair, 1.0), {}),
    ("diagonal_gaussian", "entropy", (x, ones), {"axis": 1}),
    ("isotropic_gaussian", "entropy", (x,), {"precision": -1.0}),
    ("full_gaussian", "natural_gradient", (np.ones(3), np.ones(3), np.ones((3, 2))), {}),
    ("full_gaussian", "kl", ((np.ones(3), np.eye(3)), (np.ones(4), np.eye(4))), {}),
]
DOMAINS: list[tuple[str, str, Arguments, dict[str, Any]]] = [
    ("diagonal_gaussian", "natural_from_standard", (x, put(ones, 4, -0.3)), {}),
    ("diagonal_gaussian", "natural_from_standard", (x.astype("f4"), put(ones, 4, -0.3).astype("f4")), {}),
    ("diagonal_gaussian", "natural_from_standard", (put(x, 5, nan), put(ones, 6, 0.0)), {}),
    ("diagonal_gaussian", "natural_from_standard", (put(x, 2, np.inf), put(ones, 2, -1.0)), {}),
    ("diagonal_gaussian", "natural_from_standard", (np.full(7, 1e10), put(ones, 3, 1e308)), {}),
    ("diagonal_gaussian", "natural_from_standard", (np.full(7, 1e10, "f4"), put(ones, 3, 1e30).astype("f4")), {}),
    ("diagonal_gaussian", "natural_from_expectation", (x, -0.5 * x * x), {}),
    ("diagonal_gaussian", "natural_from_expectation", (x, put(-x * x - 1, 3, 0.5)), {}),
    ("gamma", "natural_from_expectation", (put(np.full(7, -1.0), 2, 5.0), -ones), {}),
    ("diagonal_gaussian", "kl", ((x, ones), (x, put(ones, 6, np.inf))), {}),
    ("diagonal_gaussian", "kl", ((put(x, 6, nan), ones), (put(x, 1, nan), put(ones, 0, -1.0))), {}),
    ("diagonal_gaussian", "entropy", (stack, put(stack, (2, 1), -1.0)), {}),
    ("diagonal_gaussian", "entropy", (stack, put(np.ones(4), 3, -1.0)), {"axis": -1}),
    ("diagonal_gaussian", "log_partition", (np.full(7, 1e200), ones), {}),
    ("diagonal_gaussian", "log_partition", (put(stack, (1, 0), 1e200), stack), {"axis": -1}),
    ("gamma", "entropy", (put(ones, 3, -2.0), ones), {}),
    ("diagonal_gaussian", "dual_update", (pair, pair, (stack, put(stack, (2, 1), nan)), 1.0, 1.0), {}),
    ("diagonal_gaussian", "dual_update", (pair, (np.ones(4), put(np.ones(4), 2, nan)), pair, 1.0, 1.0), {}),
    ("diagonal_gaussian", "dual_update", (pair, (put(np.ones(4), 2, nan),) * 2, (stack * nan,) * 2, 1.0, 1.0), {}),
    ("diagonal_gaussian", "server_total", (pair, (stack, put(stack, (1, 3), -np.inf)), 0.5), {}),
    ("diagonal_gaussian", "server_total", ((np.full((3, 4), 1e308), stack), (np.full((3, 4), -1e308), stack), 1.0), {}),
    ("full_gaussian", "standard_from_natural", (np.ones((2, 3)), put(eye, (1, 2, 2), -1.0)), {}),
    ("full_gaussian", "standard_from_natural", (np.ones((2, 3)), put(eye, (1, 0, 2), 0.5)), {}),
    ("full_gaussian", "standard_from_natural", (put(np.ones((2, 3)), (1, 2), nan), eye), {}),
    ("full_gaussian", "natural_from_standard", (np.ones(3), -np.eye(3)), {}),
    ("full_gaussian", "natural_from_expectation", (np.ones(3), -0.1 * np.eye(3)), {}),
    ("full_gaussian", "kl", ((np.ones((2, 3)), put(eye, (1, 1, 1), -1.0)), (np.ones(3), np.eye(3))), {}),
    ("full_gaussian", "entropy", (np.ones((2, 3)), put(eye, (0, 1, 1), nan)), {"axis": -1}),
    ("full_gaussian", "natural_gradient", (np.full(3, 1e200), np.ones(3), 1e200 * np.eye(3)), {}),
]  # fmt: skip


def named(cases: list[tuple[str, str, Arguments, dict[str, Any]]]) -> list[str]:
    return [f"{function}-{k}" for k, (_, function, _, _) in enumerate(cases)]


def told(call: Callable[[], Any]) -> tuple[type[Exception], str]:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    return type(caught.value), str(caught.value)


def sent(device: Any, value: Any) -> Any:
    """Arrays on the device, strides kept; one array stays one."""
    xp = device.memory.xp
    if isinstance(value, (tuple, list)):
        return tuple(sent(device, v) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim == 1 and not value.flags.c_contiguous:
        return xp.repeat(xp.asarray(np.ascontiguousarray(value)), 2)[::2]
    return xp.array(value)


@pytest.mark.parametrize("case", SHAPES, ids=named(SHAPES))
def test_a_bad_call_is_refused_at_once_in_the_cpus_words(device: Any, case: Any) -> None:
    family, function, arguments, options = case
    cpu = told(lambda: getattr(badmm_kernels.load(family), function)(*arguments, **options))
    given = sent(device, arguments), {k: sent(device, v) for k, v in options.items()}
    assert told(lambda: getattr(badmm_kernels.load(family, device="gpu"), function)(*given[0], **given[1])) == cpu
    badmm_kernels.synchronize()


@pytest.mark.parametrize("case", DOMAINS, ids=named(DOMAINS))
def test_a_bad_value_is_named_in_the_cpus_words_when_the_host_waits(device: Any, case: Any) -> None:
    family, function, arguments, options = case
    with np.errstate(all="ignore"):
        cpu = told(lambda: getattr(badmm_kernels.load(family), function)(*arguments, **options))
    ns, given = badmm_kernels.load(family, device="gpu"), sent(device, arguments)
    if function in ("kl", "entropy", "log_partition") and "axis" not in options:
        assert told(lambda: getattr(ns, function)(*given, **options)) == cpu
    else:
        getattr(ns, function)(*given, **options)
        assert told(badmm_kernels.synchronize) == cpu
    badmm_kernels.synchronize()  # the record was cleared


def test_an_input_overwritten_by_the_result_is_still_named(device: Any) -> None:
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    dual = sent(device, (ones, put(ones, 6, nan)))
    lam = sent(device, (ones, ones))
    ns.dual_update(dual, lam, lam, 1.0, 1.0, out=dual)
    assert told(badmm_kernels.synchronize) == (ValueError, "dual.precision: expected finite, got nan at index 6")


def test_the_first_launch_that_failed_is_the_one_reported(device: Any) -> None:
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    good, first, second = sent(device, (ones, put(ones, 5, -1.0), put(ones, 2, -2.0)))
    ns.natural_from_standard(good, first)
    ns.natural_from_standard(good, second)
    ns.natural_from_standard(good, good)
    with pytest.raises(ValueError, match=r"precision: expected positive, got -1.0 at index 5") as caught:
        ns.entropy(good, good)  # waits, and has no fault of its own
    assert "found by natural_from_standard" in caught.value.__notes__[0]
    assert np.isfinite(ns.entropy(good, good))


def test_the_smallest_index_wins_among_many(device: Any) -> None:
    xp, ns = device.memory.xp, badmm_kernels.load("diagonal_gaussian", device="gpu")
    size = 20_000
    for first in (0, 777, 19_999):
        precision = xp.ones(size)
        precision[first:] = -1.0
        ns.natural_from_standard(xp.ones(size), precision)
        assert told(badmm_kernels.synchronize)[1] == f"precision: expected positive, got -1.0 at index {first}"


def test_a_call_does_not_wait(device: Any) -> None:
    if not isinstance(device, HostDevice):
        pytest.skip("on a GPU this is test_gpu_hardware.py's")
    xp, ns, full = device.memory.xp, badmm_kernels.load("gamma", "gpu"), badmm_kernels.load("full_gaussian", "gpu")
    a = xp.ones(5)
    before = device.waits
    ns.dual_update((a, a), (a, a), (a, a), 1.0, 1.0)
    ns.server_total((xp.ones((2, 5)),) * 2, (xp.ones((2, 5)),) * 2, 0.5)
    ns.entropy(a, a, axis=-1)
    full.expectation_from_natural(xp.ones((2, 3)), xp.asarray(eye))
    full.kl((xp.ones(3), xp.eye(3)), (xp.ones(3), xp.eye(3)), axis=-1)
    assert device.waits == before
    ns.entropy(a, a)
    assert device.waits == before + 1


def test_old_launches_are_forgotten_but_their_failures_are_not(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "KEPT", 2)
    monkeypatch.setattr(status, "_launches", type(status._launches)())
    ns = badmm_kernels.load("diagonal_gaussian", device="gpu")
    good, bad = sent(device, (ones, -ones))
    ns.natural_from_standard(good, bad)
    for _ in range(3):
        ns.natural_from_standard(good, good)
    assert len(status._launches) == 2
    assert told(badmm_kernels.synchronize)[1] == "a kernel: expected values inside the domain, got one outside it"


def test_launches_are_numbered_from_one() -> None:
    numbers = [status.register("a", lambda _f: None) for _ in range(3)]
    assert all(b == a + 1 > 1 for a, b in itertools.pairwise(numbers))
