"""The CUDA kernels, one body of tests for two devices: the host, which runs the very same text, and a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from tests.kernels.host_device import HostDevice
from tests.kernels.representative import FACTORISING, REPRESENTATIVE
from validation.calls import Call, invoke
from validation.check import Check
from validation.checks import (
    autograd as checks_autograd,
    domain as checks_domain,
    elementwise as checks_elementwise,
    full as checks_full,
    full_reductions as checks_full_reductions,
    layout as checks_layout,
    reductions as checks_reductions,
    rounds as checks_rounds,
)
from validation.checks.elementwise import coordinates
from validation.checks.reductions import keywords
from validation.on_device import HostArrayNamespace
from validation.oracles import lines

pytestmark = pytest.mark.slow

DTYPES = ("float32", "float64")


def on_device(family: str) -> Any:
    """A family's GPU functions with NumPy arrays in and out."""
    return HostArrayNamespace(badmm_kernels.load(family, device="gpu"))


def validations(namespace: Any, family: str, dtype: str) -> Iterator[Check]:
    """The validation's own checks, unchanged, at fewer points than `python -m validation --device gpu`."""
    yield from checks_rounds.checks(namespace, family, dtype, size=3)
    yield from checks_autograd.checks(namespace, family, dtype)
    yield from checks_domain.checks(namespace, family, dtype)
    if family == "full_gaussian":
        yield from checks_full.checks(namespace, family, dtype, sizes=(1, 3, 5, 17))
        yield from checks_full_reductions.checks(namespace, family, dtype, sizes=(1, 3), large=False)
        return
    yield from checks_elementwise.checks(namespace, family, dtype, count=24, map_count=24)
    yield from checks_reductions.checks(namespace, family, dtype, count=4, large=False)
    yield from checks_layout.checks(namespace, family, dtype, count=1025)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", REPRESENTATIVE)
def test_the_validation_passes(device: Any, family: str, dtype: str) -> None:
    found = list(validations(on_device(family), family, dtype))
    assert len(found) > 100
    assert [f"{c.group}: {c.name}: {c.value:.3g}" for c in found if not c.passed] == []


def exact_calls(family: str, dtype: str, count: int) -> Iterator[Call]:
    """Calls of kernels of + − × ÷ √ fma alone, at ordinary, extreme and cancelling points."""
    yield from lines.calls(coordinates(family), dtype, count)
    if not coordinates(family).tolerances:
        yield from coordinates(family).calls(dtype, count)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FACTORISING)
def test_kernels_without_transcendental_functions_have_the_cpus_bits(device: Any, family: str, dtype: str) -> None:
    gpu, cpu, seen = on_device(family), badmm_kernels.load(family), set()
    for count in (1, 7, 64, 1000, 4096):
        for call in exact_calls(family, dtype, count):
            for got, expected in zip(flat(invoke(gpu, call)), flat(invoke(cpu, call)), strict=True):
                assert got.tobytes() == expected.tobytes(), (call.function, call.label, count)
            seen.add(call.function)
    assert {"dual_update", "server_contribution", "client_map", "server_update"} <= seen


def flat(result: Any) -> list[Any]:
    """The arrays of a result, tuples of tuples opened."""
    return [a for r in result for a in flat(r)] if isinstance(result, tuple) else [result]


def naturals(family: str, shape: tuple[int, ...], dtype: str, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    draw = {"real": lambda: rng.normal(size=shape), "positive": lambda: rng.uniform(0.5, 2.0, shape)}
    return tuple(draw[domain]().astype(dtype) for domain in coordinates(family).domains)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FACTORISING)
def test_lines_of_a_round_have_the_cpus_bits_for_clients_and_shared_operands(
    device: Any, family: str, dtype: str
) -> None:
    gpu, cpu = on_device(family), badmm_kernels.load(family)
    for clients, width in ((1, 5), (3, 8), (5, 37), (2, 1024), (70, 3), (1, 1)):
        prior = naturals(family, (width,), dtype)
        client, dual = (naturals(family, (clients, width), dtype, s) for s in (1, 2))
        for name, arguments in {
            "client_map": (prior, dual, client, 0.3),
            "cavity": (prior, dual, 0.3),
            "bregman_dual_update": (dual, prior, client, 0.3, 1.7),
            "contribution_change": (client, dual, dual, 0.4, clients),
            "primal_residual": (client, prior),
            "dual_residual": (prior, prior, dual),
            "dual_update": (dual, prior, client, 0.3, 0.7),
            "server_contribution": (client, dual, 0.4, clients),
            "round_update": (dual, prior, client, 0.3, 0.7, 0.4, clients),
            "server_total": (client, dual, 0.4),
            "server_update": (prior, prior, 0.4),
        }.items():
            got, expected = (flat(getattr(ns, name)(*arguments)) for ns in (gpu, cpu))
            assert [a.tobytes() for a in got] == [a.tobytes() for a in expected], (name, clients, width)


@pytest.mark.parametrize("dtype", DTYPES)
def test_slots_of_different_widths_run_in_one_launch(device: Any, dtype: str) -> None:
    gpu, cpu = on_device("full_gaussian"), badmm_kernels.load("full_gaussian")
    for clients, d in ((1, 1), (2, 3), (3, 4), (2, 8)):
        rng = np.random.default_rng(d)

        def member(*lead: int, rng: Any = rng, d: int = d) -> tuple[Any, Any]:
            first, second = (rng.normal(size=lead + shape).astype(dtype) for shape in ((d,), (d, d)))
            return first, second

        prior, client, dual = member(), member(clients), member(clients)
        for name, arguments in {
            "dual_update": (dual, prior, client, 0.3, 0.7),
            "round_update": (dual, prior, client, 0.3, 0.7, 0.4, clients),
            "server_total": (client, dual, 0.4),
        }.items():
            got, expected = (flat(getattr(ns, name)(*arguments)) for ns in (gpu, cpu))
            assert [a.tobytes() for a in got] == [a.tobytes() for a in expected], (name, clients, d)
    if isinstance(device, HostDevice):
        assert len([x for x in device.launched if x[1].startswith("dual_update")]) == 4


CANARY = -12345.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_unaligned_views_and_tails_write_what_they_should_and_nothing_else(device: Any, shift: int, dtype: str) -> None:
    """In and out of buffers at every alignment: the vector and the scalar path give the same bits, borders stay."""
    xp = device.memory.xp
    ns, cpu = badmm_kernels.load("diagonal_gaussian", device="gpu"), badmm_kernels.load("diagonal_gaussian")
    for size in (*range(1, 18), 31, 32, 33, 255, 257, 1023, 2049):
        mean, precision = naturals("diagonal_gaussian", (size,), dtype, size)
        expected = cpu.expectation_from_natural(mean, precision)

        def placed(values: Any, size: int = size) -> tuple[Any, Any]:
            buffer = xp.full(size + 16, CANARY, dtype=dtype)
            view = buffer[4 + shift : 4 + shift + size]
            view[...] = xp.asarray(values)
            return buffer, view

        (_, first), (_, second) = placed(mean), placed(precision)
        (left, out_0), (right, out_1) = placed(np.zeros(size)), placed(np.zeros(size))
        ns.expectation_from_natural(first, second, out=(out_0, out_1))
        badmm_kernels.synchronize()
        for out, buffer, want in ((out_0, left, expected[0]), (out_1, right, expected[1])):
            assert device.read(out).tobytes() == want.tobytes()
            border = np.concatenate([device.read(buffer)[: 4 + shift], device.read(buffer)[4 + shift + size :]])
            assert (border == CANARY).all()
    if isinstance(device, HostDevice):
        aligned = shift * np.dtype(dtype).itemsize % 16 == 0
        used = {name[-2:] for _, name, _, _ in device.launched}
        assert used == ({"x4" if dtype == "float32" else "x2"} if aligned else {"x1"})


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_do_not_depend_on_alignment(device: Any, dtype: str) -> None:
    xp, ns = device.memory.xp, badmm_kernels.load("diagonal_gaussian", device="gpu")
    for size in (1, 5, 1023, 1024, 1025, 4097):
        mean, precision = naturals("diagonal_gaussian", (size,), dtype, size)
        totals = set()
        for shift in (0, 1):
            buffers = [xp.zeros(size + 8, dtype=dtype) for _ in range(2)]
            views = [b[4 + shift : 4 + shift + size] for b in buffers]
            for view, values in zip(views, (mean, precision), strict=True):
                view[...] = xp.asarray(values)
            totals.add(ns.entropy(*views))
        assert len(totals) == 1


@pytest.mark.parametrize("family", FACTORISING)
def test_sums_over_everything_rows_and_shared_arguments(device: Any, family: str) -> None:
    gpu, cpu, options = on_device(family), badmm_kernels.load(family), keywords(family)
    for shape in ((), (1,), (3, 1), (7, 25), (3, 1030), (2, 3, 40)):
        q, p = naturals(family, shape, "float64"), naturals(family, shape, "float64", 1)
        shared = naturals(family, shape[1:], "float64", 2) if len(shape) > 1 else p
        for call in (
            lambda ns, axis, q=q: ns.entropy(*q, axis=axis, **options),
            lambda ns, axis, q=q: ns.log_partition(*q, axis=axis, **options),
            lambda ns, axis, q=q, p=p: ns.kl(q, p, axis=axis, **options),
            lambda ns, axis, q=q, p=shared: ns.kl(q, p, axis=axis, **options),
        ):
            total = call(gpu, None)
            assert isinstance(total, float)
            assert total == pytest.approx(call(cpu, None), rel=1e-13, abs=1e-13)
            rows, expected = call(gpu, -1), call(cpu, -1)
            assert rows.shape == np.shape(expected)
            np.testing.assert_allclose(rows, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("family", REPRESENTATIVE)
def test_empty_arrays(device: Any, family: str) -> None:
    ns = on_device(family)
    empty: tuple[Any, ...]
    if family == "full_gaussian":
        empty = (np.ones((0, 3)), np.ones((0, 3, 3)))
        assert [a.shape for a in ns.standard_from_natural(*empty)] == [(0, 3), (0, 3, 3)]
    else:
        empty = tuple(np.ones((0, 4)) for _ in naturals(family, (1,), "float64"))
        assert [a.shape for a in ns.dual_update(empty, empty, empty, 1.0, 1.0)] == [(0, 4)] * len(empty)
    assert ns.entropy(*empty, **keywords(family)) == 0.0
    assert ns.entropy(*empty, axis=-1, **keywords(family)).shape == (0,)
    if family != "full_gaussian":
        wide = tuple(np.ones((3, 0)) for _ in empty)
        assert ns.entropy(*wide, axis=-1, **keywords(family)).tolist() == [0.0] * 3


@pytest.mark.parametrize("function", ["dual_update", "round_update"])
def test_a_round_in_place_has_the_same_bits(device: Any, function: str) -> None:
    gpu, cpu = on_device("diagonal_gaussian"), badmm_kernels.load("diagonal_gaussian")
    prior = naturals("diagonal_gaussian", (1001,), "float32")
    client, dual = (naturals("diagonal_gaussian", (3, 1001), "float32", s) for s in (1, 2))
    scalars = (0.3, 0.7, 0.4, 3) if function == "round_update" else (0.3, 0.7)
    expected = flat(getattr(cpu, function)(dual, prior, client, *scalars))
    inplace = tuple(a.copy() for a in dual)
    out: Any = inplace if function == "dual_update" else (inplace, tuple(a.copy() for a in client))
    getattr(gpu, function)(inplace, prior, client, *scalars, out=out)
    assert [a.tobytes() for a in flat(out)] == [a.tobytes() for a in expected]


def test_arrays_in_same_library_out(device: Any) -> None:
    xp, ns = device.memory.xp, badmm_kernels.load("gamma", device="gpu")
    shape, rate = xp.ones(5), xp.ones(5)
    result = ns.natural_from_standard(shape, rate)
    assert isinstance(result, tuple) and all(isinstance(a, xp.ndarray) for a in result)
    out = (xp.empty(5), xp.empty(5))
    assert all(a is b for a, b in zip(ns.natural_from_standard(shape, rate, out=out), out, strict=True))
    assert isinstance(ns.entropy(shape, rate), float)
    assert isinstance(ns.entropy(shape, rate, axis=-1), xp.ndarray)


@pytest.mark.parametrize("axis", [None, -1])
def test_one_axis_is_one_row_whichever_operand_is_shared_along_it(device: Any, axis: int | None) -> None:
    """A row per number of the shared operand would be written past the end of the one result."""
    q = tuple(np.linspace(1.0, 2.0, 5) * k for k in (1, 2))
    p = (np.array(1.5), np.array(2.0))
    expected = sum(badmm_kernels.load("gamma").kl(tuple(s[k : k + 1] for s in q), tuple(s.reshape(1) for s in p))
                   for k in range(5))  # fmt: skip
    assert float(on_device("gamma").kl(q, p, axis=axis)) == pytest.approx(expected, rel=1e-13)
    assert float(badmm_kernels.load("gamma").kl(q, p, axis=axis)) == pytest.approx(expected, rel=1e-13)
