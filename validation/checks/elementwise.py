"""Accuracy of the elementwise kernels against mpmath, coordinate by coordinate.

Without a transcendental function: 2 ulp of the largest term, in float32 and in float64 (`validation.oracles.lines`
and the family state the terms); 4 where two lines are fused, the second of which starts from the first's rounded
result. With one: relative to the largest term, or to 1 where that is larger (a digamma has a zero), at most the
tolerance that the family's oracle states in float64; 2 ulp of the largest term in float32, whose kernels compute in
float64.

An inverse map without a closed form may be ill-conditioned, so it is measured as a backward error: to first order the
smallest delta for which the result is the exact image of ``mu (1 + delta)``: 1e-13 in float64, and in float32, where
the results are rounded, 2 units of relative spacing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np

from ..calls import Call, invoke
from ..check import Check, check, failed
from ..oracles import lines, lookup
from ..oracles.family import Coordinates
from ..ulps import DIGITS, Terms, epsilon, exact, scaled_error, ulp_error

ULPS = 2.0
INVERSE_TOLERANCE = 1e-13


def coordinates(name: str) -> Coordinates:
    """The oracle of a factorising family."""
    found = lookup.family(name)
    assert isinstance(found, Coordinates), f"{name}: expected a factorising family's oracle"
    return found


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
    formulas = lines.LINES[call.function].formulas
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
        lines.LINES[call.function].ulps,
        "ulp of the largest term",
        errors,
    )


def map_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """One parameter map, or the natural gradient, at one set of points."""
    name = f"{call.function}: {call.label}"
    slots = invoke(namespace, call)
    oracle = coordinates(family)
    formula = replace(oracle, **call.kwargs).formula(call.function)
    columns = [exact(array.tolist()) for array in call.arrays()]
    points = [formula(point) for point in zip(*columns, strict=True)]
    arrays = call.arrays()
    complaint = results_match(call, slots, [arrays[0]] * len(points[0]), dtype)
    transcendental = call.function in oracle.tolerances
    group = "transcendental" if transcendental else "ulp"
    if complaint:
        return failed(name, group, family, dtype, complaint)
    scaled = transcendental and dtype == "float64"
    errors: list[float] = []
    for index, got in enumerate(slots):
        errors += slot_errors(got, [point[index] for point in points], dtype, scaled)
    tolerance = oracle.tolerances[call.function] if scaled else oracle.ulps.get(call.function, ULPS)
    detail = "relative to the largest term" if scaled else "ulp of the largest term"
    return check(name, group, family, dtype, max(errors), tolerance, detail, errors)


def backward_error(family: Coordinates, natural: Sequence[float], mu: Sequence[float]) -> float:
    """The smallest relative change of mu that makes the result exact, to first order; infinite outside the domain."""
    inside = all(math.isfinite(x) and (x > 0 or d == "real") for x, d in zip(natural, family.domains, strict=True))
    if not inside:
        return math.inf
    image = [mpmath.fsum(terms) for terms in family.expectation_from_natural(exact(natural))]
    wanted = exact(mu)
    scales = family.inverse_scale(wanted)
    return float(max(abs(x - y) / s for x, y, s in zip(image, wanted, scales, strict=True)))


def inverse_check(namespace: Any, name: str, dtype: str, count: int = 1500) -> Check:
    """natural_from_expectation of a family that has no closed form for it."""
    family = coordinates(name)
    tolerance = INVERSE_TOLERANCE if dtype == "float64" else 2.0 * epsilon(dtype)
    with mpmath.workdps(DIGITS):
        mu = family.inverse_points(dtype, count)
        natural = namespace.natural_from_expectation(*mu, **family.fixed)
        rows = zip(*(slot.tolist() for slot in (*natural, *mu)), strict=True)
        errors = [backward_error(family, row[: len(natural)], row[len(natural) :]) for row in rows]
    label, detail = "natural_from_expectation: over its range", "relative change of the input"
    return check(label, "backward error", name, dtype, max(errors), tolerance, detail, errors)


def checks(namespace: Any, family: str, dtype: str, count: int = 400, map_count: int = 8001) -> list[Check]:
    """Every elementwise kernel of one elementwise family and one type; maps, which round more often, at more points."""
    oracle = coordinates(family)
    with mpmath.workdps(DIGITS):
        found = [linear_check(namespace, family, dtype, call) for call in lines.calls(oracle, dtype, count)]
        found += [map_check(namespace, family, dtype, call) for call in oracle.calls(dtype, map_count)]
    return found if oracle.has_inverse else [*found, inverse_check(namespace, family, dtype, min(map_count, 1500))]
