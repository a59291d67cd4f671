"""Checks that results do not depend on size, thread count, client axis, `out=` or aliasing.

An elementwise kernel does the same arithmetic at every coordinate, so these are equalities bit for bit. The value of a
check is the number of coordinates that differ; its tolerance is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..calls import Array, Call, invoke
from ..check import Check, check, failed
from ..oracles import lines
from ..points import generator
from .elementwise import coordinates

GROUP = "layout"
ODD_SIZES = (1, 2, 3, 7, 31, 33, 255, 1023)
LARGE = 300_001  # odd, and above the size at which kernels start to run in parallel
CLIENTS = 3
DETAIL = "coordinates that differ"


def different(left: tuple[Array, ...], right: tuple[Array, ...]) -> float:
    """Return the number of unequal coordinates; infinite if shapes or dtypes differ."""
    if len(left) != len(right):
        return float("inf")
    count = 0
    for a, b in zip(left, right, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        count += int(np.sum(a != b))
    return float(count)


def joined(parts: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Concatenate the slots of several results along the last axis."""
    return tuple(np.concatenate(slots, axis=-1) for slots in zip(*parts, strict=True))


def sample_calls(family: str, dtype: str, count: int) -> list[Call]:
    """Return one ordinary call of every array-valued elementwise kernel, at `count` coordinates."""
    chosen: dict[str, Call] = {}
    oracle = coordinates(family)
    for call in lines.calls(oracle, dtype, count) + oracle.calls(dtype, count):
        chosen.setdefault(call.function, call)
    if not oracle.has_inverse:
        mu = oracle.inverse_points(dtype, count + 40)  # rounding may move a few outside the domain
        mu = tuple(np.ascontiguousarray(slot[:count]) for slot in mu)
        chosen["natural_from_expectation"] = Call("natural_from_expectation", mu, kwargs=oracle.fixed)
    return list(chosen.values())


def window(call: Call, start: int, stop: int) -> Call:
    """Return the call on coordinates `start:stop` of every array."""
    return call.mapped(lambda array: np.ascontiguousarray(array[..., start:stop]))


def size_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check at sizes around that of a vector register that the first n coordinates do not depend on the others."""
    whole = invoke(namespace, call)
    bad = 0.0
    for size in ODD_SIZES:
        if size <= call.arrays()[0].size:
            bad += different(invoke(namespace, window(call, 0, size)), tuple(slot[:size] for slot in whole))
    return check(f"{call.function}: odd sizes", GROUP, family, dtype, bad, 0.0, DETAIL)


def large_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check that a call large enough to run in parallel equals small serial calls."""
    count = call.arrays()[0].size
    repeats = LARGE // count + 1
    large = call.mapped(lambda array: np.ascontiguousarray(np.tile(array, repeats)[:LARGE]))
    small = tuple(np.tile(slot, repeats)[:LARGE] for slot in invoke(namespace, call))
    return check(
        f"{call.function}: above the parallel size",
        GROUP,
        family,
        dtype,
        different(invoke(namespace, large), small),
        0.0,
        DETAIL,
    )


def stacked(array: Array) -> Array:
    """Return the array as CLIENTS rows without the remainder."""
    width = array.shape[-1] // CLIENTS
    return np.ascontiguousarray(array[: CLIENTS * width].reshape(CLIENTS, width))


def client_row(array: Array, client: int) -> Array:
    """Return a copy of one client's row."""
    return np.asarray(array[client].copy())


def client_axis_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check that a leading client axis equals a loop over clients."""
    stack = call.mapped(stacked)
    rows = [invoke(namespace, stack.mapped(partial(client_row, client=k))) for k in range(CLIENTS)]
    loop = tuple(np.stack(slots) for slots in zip(*rows, strict=True))
    return check(
        f"{call.function}: client axis",
        GROUP,
        family,
        dtype,
        different(invoke(namespace, stack), loop),
        0.0,
        DETAIL,
    )


def broadcast_checks(namespace: Any, family: str, dtype: str, count: int) -> Iterator[Check]:
    """Check that a natural parameter without client axis is shared by all clients."""
    rng, oracle = generator("broadcast", family, dtype), coordinates(family)
    shared = oracle.natural_points(rng, count, 2.0, dtype)
    wide = count * CLIENTS
    client = tuple(slot.reshape(CLIENTS, count) for slot in oracle.natural_points(rng, wide, 2.0, dtype))
    dual = tuple(slot.reshape(CLIENTS, count) for slot in oracle.duals(rng, wide, 2.0, dtype))
    repeated = tuple(np.ascontiguousarray(np.broadcast_to(slot, (CLIENTS, count))) for slot in shared)
    pairs = (
        (
            Call("dual_update", (dual, shared, client, 0.3, 0.7)),
            Call("dual_update", (dual, repeated, client, 0.3, 0.7)),
        ),
        (Call("client_map", (shared, dual, client, 0.3)), Call("client_map", (repeated, dual, client, 0.3))),
    )
    for narrow, full in pairs:
        bad = different(invoke(namespace, narrow), invoke(namespace, full))
        yield check(f"{narrow.function}: shared by clients", GROUP, family, dtype, bad, 0.0, DETAIL)


def out_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check that `out=` receives the result and is returned, and that no input changes."""
    name = f"{call.function}: out="
    expected = invoke(namespace, call)
    out = tuple(np.full_like(slot, 0.125) for slot in expected)
    before = [array.copy() for array in call.arrays()]
    returned = invoke(namespace, call, out=out)
    if len(returned) != len(out) or any(a is not b for a, b in zip(returned, out, strict=True)):
        return failed(name, GROUP, family, dtype, "the tuple given as out= was not returned")
    bad = different(out, expected) + different(tuple(before), tuple(call.arrays()))
    return check(name, GROUP, family, dtype, bad, 0.0, DETAIL)


def fused_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check that `round_update` equals `dual_update` followed by `server_contribution` bit for bit."""
    dual, server, client, rho, damping, alpha, clients = call.args
    new = namespace.dual_update(dual, server, client, rho, damping)
    expected = (*new, *namespace.server_contribution(client, new, alpha, clients))
    bad = different(invoke(namespace, call), expected)
    return check(f"round_update is the two calls: {call.label}", GROUP, family, dtype, bad, 0.0, DETAIL)


def alias_checks(namespace: Any, family: str, dtype: str, call: Call) -> Iterator[Check]:
    """Check that `out=` may be an input of the same slot: every tuple argument of an ADMM line, the inputs of a map."""
    expected = invoke(namespace, call)
    positions = [index for index, argument in enumerate(call.args) if isinstance(argument, tuple)]
    for position in positions or [0]:
        fresh = call.mapped(lambda array: array.copy())
        # the last inputs, from which the results of a natural gradient are computed
        given = fresh.args[position] if positions else tuple(fresh.arrays())
        out = given[-len(expected) :]
        out += tuple(np.empty_like(slot) for slot in expected[len(out) :])
        invoke(namespace, fresh, out=out)
        where = f"argument {position + 1}" if positions else "its input"
        yield check(f"{call.function}: out= is {where}", GROUP, family, dtype, different(out, expected), 0.0, DETAIL)


def server_total_checks(namespace: Any, family: str, dtype: str, count: int) -> Iterator[Check]:
    """Check that the sum over clients does not depend on odd sizes or tiles."""
    rng, oracle = generator("total", family, dtype), coordinates(family)
    clients = 5
    client = tuple(slot.reshape(clients, count) for slot in oracle.natural_points(rng, clients * count, 2.0, dtype))
    dual = tuple(slot.reshape(clients, count) for slot in oracle.duals(rng, clients * count, 2.0, dtype))
    call = Call("server_total", (client, dual, 0.4))
    whole = invoke(namespace, call)
    sizes = (1, 2, count // 3, count - 1)
    bad = sum(different(invoke(namespace, window(call, 0, n)), tuple(slot[:n] for slot in whole)) for n in sizes)
    yield check("server_total: odd sizes", GROUP, family, dtype, bad, 0.0, DETAIL)
    repeats = LARGE // count + 1
    large = call.mapped(lambda array: np.ascontiguousarray(np.tile(array, (1, repeats))[:, :LARGE]))
    small = tuple(np.tile(slot, repeats)[:LARGE] for slot in whole)
    bad = different(invoke(namespace, large), small)
    yield check("server_total: above the parallel size", GROUP, family, dtype, bad, 0.0, DETAIL)


def strided_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check that a non-contiguous input is refused by name or gives equal numbers."""
    name = f"{call.function}: strided input"
    expected = invoke(namespace, call)
    strided = call.mapped(lambda array: np.repeat(array, 2)[::2])
    try:
        bad = different(invoke(namespace, strided), expected)
    except (ValueError, TypeError) as error:
        named = "contiguous" in str(error)
        return check(name, GROUP, family, dtype, 0.0 if named else 1.0, 0.0, f"refused: {error}")
    return check(name, GROUP, family, dtype, bad, 0.0, DETAIL)


def checks(namespace: Any, family: str, dtype: str, count: int = 1025) -> list[Check]:
    """Return all layout checks of one elementwise family and dtype."""
    found: list[Check] = []
    for call in sample_calls(family, dtype, count):
        found.append(size_check(namespace, family, dtype, call))
        found.append(large_check(namespace, family, dtype, call))
        found.append(client_axis_check(namespace, family, dtype, call))
        found.append(out_check(namespace, family, dtype, call))
        found.append(strided_check(namespace, family, dtype, call))
        found.extend(alias_checks(namespace, family, dtype, call))
    fused = [call for call in lines.calls(coordinates(family), dtype, count) if call.function == "round_update"]
    found.extend(fused_check(namespace, family, dtype, call) for call in fused)
    found.extend(broadcast_checks(namespace, family, dtype, count))
    found.extend(server_total_checks(namespace, family, dtype, count))
    return found
