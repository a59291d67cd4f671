"""One body of tests for every implementation of the kernels: Numba, and the C header as each compiler builds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from derive.families import load_families
from derive.ir import nodes as ir
from derive.ir.names import operations
from derive.lower.admm import round_module
from derive.lower.families import build_module
from tests.kernels.backends import BACKENDS, BUILDS, HEADERS, Backend, on
from tests.kernels.representative import FACTORISING, REPRESENTATIVE
from validation.calls import Call, invoke
from validation.check import Check
from validation.checks import (
    agreement as checks_agreement,
    autograd as checks_autograd,
    device as checks_device,
    domain as checks_domain,
    elementwise as checks_elementwise,
    full as checks_full,
    full_reductions as checks_full_reductions,
    layout as checks_layout,
    reductions as checks_reductions,
    rounds as checks_rounds,
    special as checks_special,
)
from validation.checks.elementwise import coordinates
from validation.oracles import lines
from validation.points import DTYPES, generator

pytestmark = pytest.mark.slow

Checks = Callable[[Any, str, str], list[Check]]


def groups(family: str) -> list[Checks]:
    """The validation's checks of one family, at fewer points than `python -m validation` takes, which is how Numba's
    kernels pass them."""
    shared: list[Checks] = [checks_autograd.checks, checks_rounds.checks, checks_domain.checks, checks_device.checks]
    if family == "full_gaussian":
        maps, reductions = (
            partial(checks_full.checks, sizes=(1, 3, 8)),
            partial(checks_full_reductions.checks, sizes=(2, 5)),
        )
        return [maps, reductions, *shared]
    exact = partial(checks_elementwise.checks, count=100, map_count=400)
    return [exact, checks_reductions.checks, checks_layout.checks, *shared]


@on(*BUILDS)
@pytest.mark.parametrize("family", REPRESENTATIVE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_passes_the_validation(backend: Backend, family: str, dtype: str) -> None:
    namespace = backend.load(family)
    found = [item for group in groups(family) for item in group(namespace, family, dtype)]
    assert len(found) > 100
    assert [item for item in found if not item.passed] == []


@on(*BACKENDS)
def test_its_special_functions_have_fourteen_digits(backend: Backend) -> None:
    found = checks_special.checks(backend.load("gamma"), "gamma", "float64", count=300)
    assert {item.kernel for item in found} >= {"lgamma", "digamma", "trigamma"}
    assert [item for item in found if not item.passed] == []


@on(*BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_its_families_agree(backend: Backend, dtype: str) -> None:
    full, diagonal, isotropic = (backend.load(f) for f in ("full_gaussian", "diagonal_gaussian", "isotropic_gaussian"))
    found = [*checks_agreement.full_as_diagonal(full, diagonal, dtype)]
    found += checks_agreement.diagonal_as_isotropic(diagonal, isotropic, dtype)
    assert [item for item in found if not item.passed] == []


@cache
def exact_kernels(family: str) -> set[str]:
    """Kernels made of + - × ÷ √ fma alone."""
    module = build_module(load_families()[family])

    def of(kernel: Any) -> set[str]:
        results = kernel.results if isinstance(kernel, ir.Map) else (kernel.term,)
        nodes = [*kernel.body, *results, *(value for _, value in kernel.uniforms)]
        return {op for node in nodes for op in operations(node)}

    scalar = [k for k in (*module.kernels, *module.lines) if not isinstance(k, ir.MatrixMap)]
    return {k.name for k in scalar if not of(k) & {"call", "exp", "log", "log1p"}}


def exact_calls(family: str, dtype: str) -> Iterator[Call]:
    """The validation's points, cancelling and extreme ones included, of the exact kernels; sums over clients too."""
    count = 1025
    oracle = coordinates(family)
    calls = lines.calls(oracle, dtype, count) + oracle.calls(dtype, count)
    rng = generator("bits", family, dtype)
    client = tuple(a.reshape(5, count) for a in oracle.natural_points(rng, 5 * count, 3.0, dtype))
    dual = tuple(a.reshape(5, count) for a in oracle.duals(rng, 5 * count, 3.0, dtype))
    calls.append(Call("server_total", (client, dual, 0.4)))
    kwargs = {"precision": 0.3} if family == "isotropic_gaussian" else {}
    rows = [tuple(a.reshape(-1, 1) for a in oracle.natural_points(rng, count, 9.0, dtype)) for _ in range(2)]
    calls += [Call("log_partition", rows[0], kwargs=kwargs | {"axis": -1})]
    calls += [Call("kl", tuple(rows), kwargs=kwargs | {"axis": -1})]
    yield from (call for call in calls if call.function in exact_kernels(family))


def bits(result: Any) -> list[bytes]:
    """What an equality of bits compares."""
    return [np.ascontiguousarray(a).tobytes() for a in (result if isinstance(result, tuple) else (result,))]


@on(*HEADERS)
@pytest.mark.parametrize("family", FACTORISING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_header_gives_numbas_bits_where_nothing_is_transcendental(
    backend: Backend, family: str, dtype: str
) -> None:
    header, numba = backend.load(family), badmm_kernels.load(family)
    seen = set()
    for call in exact_calls(family, dtype):
        assert bits(invoke(header, call)) == bits(invoke(numba, call)), f"{call.function}: {call.label}"
        seen.add(call.function)
    assert seen == exact_kernels(family)


def test_most_kernels_are_exact() -> None:
    lines = {line.name for line in round_module().kernels}
    assert {"client_map", "dual_update", "server_contribution", "server_total", "server_update", "round_update"} < lines
    maps = {"natural_from_standard", "standard_from_natural", "expectation_from_natural", "natural_from_expectation"}
    assert exact_kernels("full_gaussian") == lines
    assert exact_kernels("gamma") == lines | {"natural_from_standard", "standard_from_natural"}
    assert exact_kernels("exponential") == lines | maps | {"natural_gradient", "whiten"}
    assert exact_kernels("diagonal_gaussian") == lines | maps | {"natural_gradient", "whiten"}
    assert exact_kernels("isotropic_gaussian") == lines | maps | {"natural_gradient", "whiten", "log_partition", "kl"}
