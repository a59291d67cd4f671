"""Planted errors in the CUDA kernels, in the header's mathematics and in the loops, are caught by the validation's
checks and by comparison with the CPU: on the host, and five of them on a GPU where there is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.gpu import device as gpu_device
from badmm_kernels.gpu.source import HERE, INCLUDE
from tests.kernels.host_device import HostDevice
from validation.calls import Call
from validation.checks import (
    domain as checks_domain,
    elementwise as checks_elementwise,
    layout as checks_layout,
    reductions as checks_reductions,
)
from validation.on_device import HostArrayNamespace

FAMILY = "diagonal_gaussian"


@dataclass(frozen=True)
class Planted:
    """One change of text in a kernel's source with everything it includes."""

    name: str
    old: str
    new: str
    on_gpu: bool = False


PLANTED = (
    Planted("dual steps away", "natural_global - natural_client", "natural_client - natural_global", on_gpu=True),
    Planted("KL without its half", "0.5 * badmm_ratio_divergence", "1.0 * badmm_ratio_divergence"),
    Planted("gradient with + H m", "fma(-expected_hessian, mean", "fma(expected_hessian, mean", on_gpu=True),
    Planted("no tail", "for (; i < slot.width; ++i) coordinates", "for (; false; ++i) coordinates", on_gpu=True),
    Planted("every client reads the first", "row * slot.step[k] + i)", "0 * slot.step[k] + i)", on_gpu=True),
    Planted("a coordinate a chunk is lost", "? start + CHUNK :", "? start + CHUNK - 1 :"),
    Planted("half a warp is summed", "apart = 16", "apart = 8", on_gpu=True),
    Planted("the first client is left out", "Index client = 0; client <", "Index client = 1; client <"),
    Planted("the domain is not looked at", "if (wrong) {", "if (wrong > 1000) {"),
    Planted("the index of a fault is its group's", "row * slot.width + i + w)", "row * slot.width + i)"),
)  # fmt: skip


def whole_text(name: str) -> str:
    """A source with what it includes in its place."""
    included: set[str] = set()

    def expand(text: str) -> str:
        def content(match: re.Match[str]) -> str:
            path = next(p for p in (INCLUDE / match[1], HERE / match[1]) if p.exists())
            if path.name in included:
                return ""
            included.add(path.name)
            return expand(path.read_text(encoding="utf-8"))

        return re.sub(r'#include "([^"]+)"', content, text)

    return expand((HERE / f"{name}.cu").read_text(encoding="utf-8"))


def changed(planted: Planted | None) -> Callable[[str], str]:
    """Sources with the error in the family's and the round's; the common kernels stay as they are."""

    def text(name: str) -> str:
        whole = whole_text(name)
        return whole.replace(planted.old, planted.new) if planted and name in (FAMILY, "round") else whole

    return text


def put(array: Any, index: int, value: float) -> Any:
    """A copy with one element changed."""
    array = array.copy()
    array[index] = value
    return array


def misses() -> Iterator[str]:
    """What the checks find wrong with the device in use."""
    namespace, cpu = HostArrayNamespace(badmm_kernels.load(FAMILY, device="gpu")), badmm_kernels.load(FAMILY)
    found = []
    for dtype in ("float64", "float32"):
        for run in (
            lambda d: checks_elementwise.checks(namespace, FAMILY, d, count=24, map_count=24),
            lambda d: checks_domain.checks(namespace, FAMILY, d),
            lambda d: checks_layout.broadcast_checks(namespace, FAMILY, d, 33),
            lambda d: checks_layout.server_total_checks(namespace, FAMILY, d, 33),
            lambda d: checks_reductions.checks(namespace, FAMILY, d, count=4, large=False),
        ):
            found = [c for c in run(dtype) if not c.passed]
            yield from (f"{dtype} {c.group}: {c.name}" for c in found)
        rng = np.random.default_rng(0)
        xi, precision = rng.normal(size=3001).astype(dtype), rng.uniform(0.5, 2.0, 3001).astype(dtype)
        if abs(namespace.entropy(xi, precision) / cpu.entropy(xi, precision) - 1) > 1e-12:
            yield f"{dtype}: entropy of many coordinates"
        stack = rng.normal(size=(3, 33)).astype(dtype)
        at = checks_domain.complaint(namespace, Call("natural_from_standard", (xi, put(precision, 6, -1.0))), "index 6")
        yield from [f"{dtype}: the index of a fault: {at}"] if at else []
        totals = [ns.server_total((stack, stack), (stack, stack), 0.5)[0] for ns in (namespace, cpu)]
        if totals[0].tobytes() != totals[1].tobytes():
            yield f"{dtype}: a total over clients"


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.name)
def test_every_planted_error_changes_the_text(planted: Planted) -> None:
    assert [changed(planted)(n) for n in (FAMILY, "round")] != [changed(None)(n) for n in (FAMILY, "round")]


@pytest.mark.slow
@pytest.mark.parametrize("planted", [None, *PLANTED], ids=lambda p: p.name if p else "unchanged")
def test_errors_are_caught_on_the_host(planted: Planted | None) -> None:
    with gpu_device.using(HostDevice(text=changed(planted), level="-O0")):
        assert bool(next(misses(), "")) == (planted is not None)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "planted", [None, *(p for p in PLANTED if p.on_gpu)], ids=lambda p: p.name if p else "unchanged"
)
def test_errors_are_caught_on_a_gpu(planted: Planted | None) -> None:
    from badmm_kernels.gpu.cupy_device import CuPyDevice

    found: Any = CuPyDevice(text=changed(planted))
    with gpu_device.using(found):
        assert bool(next(misses(), "")) == (planted is not None)


def test_five_are_planted_on_a_gpu() -> None:
    assert len([p for p in PLANTED if p.on_gpu]) == 5
