"""Checks of the special functions that a family's kernels export, against mpmath (`validation.oracles.special`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mpmath

from ..check import Check, check
from ..oracles.special import SPECIAL
from ..ulps import DIGITS, scaled_error


def exported(namespace: Any) -> dict[str, Callable[..., float]]:
    """Return the special functions of a namespace by name."""
    return {name: getattr(namespace, name) for name in SPECIAL if hasattr(namespace, name)}


def scalar_checks(functions: Mapping[str, Callable[..., float]], family: str, count: int) -> Iterator[Check]:
    """Check functions of float64 numbers in all regions of their oracle."""
    for name, function in functions.items():
        special = SPECIAL[name]
        for region, points in special.regions(count).items():
            errors = []
            for point in points:
                floor = 1.0 if special.absolute[0] <= point[0] <= special.absolute[1] else 0.0
                value = special.value(*map(mpmath.mpf, point))
                errors.append(scaled_error(float(function(*point)), [value], floor=floor))
            label, detail = f"{name}: {region}", "relative; absolute near a zero"
            yield check(label, "special", family, "float64", max(errors), special.tolerance, detail, errors)


def checks(namespace: Any, family: str, dtype: str, count: int = 1500) -> list[Check]:
    """Return the checks of a family's special functions, which are float64 whatever the dtype."""
    if dtype != "float64":
        return []
    with mpmath.workdps(DIGITS):
        return list(scalar_checks(exported(namespace), family, count))
