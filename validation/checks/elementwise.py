"""Accuracy of the elementwise kernels against mpmath, coordinate by coordinate.

Without a transcendental function: 2 ulp of the largest term, in float32 and in float64 (`validation.oracles.mp`
states the terms); 4 where two lines are fused, the second of which starts from the first's rounded result. With one:
relative to the largest term, or to 1 where that is larger (a digamma has a zero), at most 1e-14 for the gamma's
expectation parameters and 1e-13 for its natural gradient in float64; 2 ulp of the largest term in float32, whose
kernels compute in float64.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from ..calls import Call, invoke
from ..check import Check, check, failed
from ..oracles import mp as oracles_mp
from ..points import linear_calls, map_calls
from ..ulps import DIGITS, Terms, exact, scaled_error, ulp_error

ULPS = 2.0
TRANSCENDENTAL = {("gamma", "expectation_from_natural"): 1e-14, ("gamma", "natural_gradient"): 1e-13}


def results_match(call: Call, slots: tuple[Any, ...], expected: list[Any], dtype: str) -> str:
    """What is wrong with the form of a result, or nothing: one array a slot, of the inputs' type and shape."""
    if not isinstance(slots, tuple) or len(slots) != len(expected):
        return f"{call.function} returned {type(slots).__name__}, expected a tuple of {len(expected)} arrays"
    for slot, template in zip(slots, expected, strict=True):
        if slot.dtype != np.dtype(dtype) or slot.shape != template.shape:
            return f"{call.function} returned {slot.dtype}{slot.shape}, expected {dtype}{template.shape}"
    return ""


def slot_errors(got: Any, terms: list[Terms], dtype: str, scaled: bool) -> list[float]:
    """The error of every coordinate of one slot, in ulps of the largest term or (``scaled``) relative to it."""
    values = got.ravel().tolist()
    if scaled:
        return [scaled_error(value, term, floor=1.0) for value, term in zip(values, terms, strict=True)]
    return [ulp_error(value, term, dtype) for value, term in zip(values, terms, strict=True)]


def linear_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """One ADMM line at one set of points."""
    slots = invoke(namespace, call)
    formulas = oracles_mp.LINEAR[call.function]
    templates = next(argument for argument in call.args if isinstance(argument, tuple))
    complaint = results_match(call, slots, list(templates) * len(formulas), dtype)
    if complaint:
        return failed(f"{call.function}: {call.label}", "ulp", family, dtype, complaint)
    errors: list[float] = []
    for number, got in enumerate(slots):
        result, slot = divmod(number, len(templates))
        columns = [exact(array.ravel().tolist()) for array in call.slot(slot)]
        terms = [formulas[result](point, call.scalars(), dtype) for point in zip(*columns, strict=True)]
        errors += slot_errors(got, terms, dtype, scaled=False)
    return check(
        f"{call.function}: {call.label}",
        "ulp",
        family,
        dtype,
        max(errors),
        ULPS * len(formulas) * oracles_mp.DIFFERENCES.get(call.function, 1),
        "ulp of the largest term",
        errors,
    )


def map_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """One parameter map, or the natural gradient, at one set of points."""
    name = f"{call.function}: {call.label}"
    slots = invoke(namespace, call)
    oracle = oracles_mp.map_oracle(family, call.function, call.kwargs)
    columns = [exact(array.tolist()) for array in call.arrays()]
    points = [oracle(point) for point in zip(*columns, strict=True)]
    arrays = call.arrays()
    complaint = results_match(call, slots, [arrays[0]] * len(points[0]), dtype)
    transcendental = (family, call.function) in TRANSCENDENTAL
    group = "transcendental" if transcendental else "ulp"
    if complaint:
        return failed(name, group, family, dtype, complaint)
    scaled = transcendental and dtype == "float64"
    errors: list[float] = []
    for index, got in enumerate(slots):
        errors += slot_errors(got, [point[index] for point in points], dtype, scaled)
    tolerance = TRANSCENDENTAL[family, call.function] if scaled else ULPS
    detail = "relative to the largest term" if scaled else "ulp of the largest term"
    return check(name, group, family, dtype, max(errors), tolerance, detail, errors)


def checks(namespace: Any, family: str, dtype: str, count: int = 400, map_count: int = 8001) -> list[Check]:
    """Every elementwise kernel of one elementwise family and one type; maps, which round more often, at more points."""
    with mpmath.workdps(DIGITS):
        found = [linear_check(namespace, family, dtype, call) for call in linear_calls(family, dtype, count)]
        return found + [map_check(namespace, family, dtype, call) for call in map_calls(family, dtype, map_count)]
