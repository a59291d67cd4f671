"""Checks of the special functions that a family's kernels export, against mpmath (`validation.oracles.special`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import mpmath
import numpy as np

from ..check import Check, check
from ..kept import kept
from ..oracles.special import SPECIAL, Arguments, Special
from ..ulps import DIGITS, References, references


def exported(namespace: Any) -> dict[str, Callable[..., float]]:
    """Return the special functions of a namespace by name."""
    return {name: getattr(namespace, name) for name in SPECIAL if hasattr(namespace, name)}


def references_at(special: Special, points: Sequence[Arguments]) -> References:
    """Return the exact values of a function; where they pass through zero, an error is relative to 1."""
    low, high = special.absolute
    values = [special.value(*map(mpmath.mpf, point)) for point in points]
    floors = (1.0 if low <= point[0] <= high else 0.0 for point in points)
    return references(values, (max(abs(value), mpmath.mpf(floor)) for value, floor in zip(values, floors, strict=True)))


def scalar_checks(functions: Mapping[str, Callable[..., float]], family: str, count: int) -> Iterator[Check]:
    """Check functions of float64 numbers in all regions of their oracle."""
    for name, function in functions.items():
        special = SPECIAL[name]
        for region, points in special.regions(count).items():
            expected = kept(partial(references_at, special, points), [np.array(points)], name)
            errors = expected.errors(np.array([float(function(*point)) for point in points]))
            label, detail = f"{name}: {region}", "relative; absolute near a zero"
            yield check(label, "special", family, "float64", max(errors), special.tolerance, detail, errors)


def checks(namespace: Any, family: str, dtype: str, count: int = 1500) -> list[Check]:
    """Return the checks of a family's special functions, which are float64 whatever the dtype."""
    if dtype != "float64":
        return []
    with mpmath.workdps(DIGITS):
        return list(scalar_checks(exported(namespace), family, count))
