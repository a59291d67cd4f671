"""Checks of the scalar functions that kernels export for a user's own compiled code.

``<function>_f32`` and ``<function>_f64`` compute one coordinate and equal the array kernel bit for bit. The value of a
check is the number of coordinates that differ; its tolerance is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..calls import Array, Call, invoke
from ..check import Check, check, failed
from ..oracles import lookup
from ..oracles.family import FactorisingOracle
from ..oracles.lines import LINES
from .full import linear_calls as full_linear_calls
from .layout import different, sample_calls

SUFFIX = {"float32": "f32", "float64": "f64"}
GROUP = "device functions"


def scalar_results(function: Callable[..., Any], columns: list[Array], scalars: list[Any], slots: int) -> list[Array]:
    """Evaluate the scalar function at every coordinate; return one column per slot."""
    shape, rows = columns[0].shape, []
    for point in zip(*(column.ravel() for column in columns), strict=True):
        value = function(*point, *scalars)
        rows.append(value if isinstance(value, tuple) else (value,))
    dtype = columns[0].dtype
    return [np.array([row[slot] for row in rows], dtype=dtype).reshape(shape) for slot in range(slots)]


def device_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """One scalar function against its array kernel."""
    name = f"{call.function}_{SUFFIX[dtype]}"
    function = getattr(namespace, name, None)
    if function is None:
        return failed(name, GROUP, family, dtype, "no such function is exported")
    expected = invoke(namespace, call)
    if call.function in LINES:
        results = call.results
        slots = range(len(expected) // results)
        found = [scalar_results(function, call.slot(k), list(call.scalars()), results) for k in slots]
        parts = [columns[r] for r in range(results) for columns in found]
    else:
        oracle = lookup.family(family)
        assert isinstance(oracle, FactorisingOracle)
        columns = oracle.columns(call.function, call.arrays())
        scalars = [*call.scalars(), *call.kwargs.values()]
        parts = scalar_results(function, columns, scalars, len(expected))
    return check(name, GROUP, family, dtype, different(tuple(parts), expected), 0.0, "coordinates that differ")


def calls(family: str, dtype: str, count: int) -> Iterator[Call]:
    """Yield one call of every function that has a scalar form."""
    if lookup.family(family).structure == "coordinates":
        yield from sample_calls(family, dtype, count)
        return
    seen: set[str] = set()
    for call in full_linear_calls(4, dtype):
        if call.function not in seen:
            seen.add(call.function)
            yield call


def checks(namespace: Any, family: str, dtype: str, count: int = 40) -> list[Check]:
    """Check all scalar functions of one family and dtype."""
    return [device_check(namespace, family, dtype, call) for call in calls(family, dtype, count)]
