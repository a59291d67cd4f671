"""Errors in units in the last place of a formula's largest term.

A sum that cancels has no meaningful ulp of its own, so an oracle gives every result as its list of terms: the exact
value is their sum and the unit is the spacing of floating-point numbers at the largest of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import mpmath
import numpy as np

DIGITS = 50
UNIT_BITS = {"float32": 24, "float64": 53}
LEAST_EXPONENT = {"float32": -149, "float64": -1074}

Terms = Sequence[Any]  # mpmath numbers


def epsilon(dtype: str) -> float:
    """Spacing of the numbers just above 1."""
    return 2.0 ** (1 - UNIT_BITS[dtype])


def rounded(value: float, dtype: str) -> Any:
    """The coefficient ``value`` rounded once to ``dtype``, as an mpmath number: the kernels' convention for scalars."""
    return mpmath.mpf(float(np.dtype(dtype).type(value)))


def exact(values: Iterable[float]) -> list[Any]:
    """Binary floating-point numbers as mpmath numbers, without rounding."""
    return [mpmath.mpf(float(value)) for value in values]


def unit(scale: Any, dtype: str) -> Any:
    """One ulp of ``dtype`` at the magnitude ``scale``."""
    magnitude = abs(scale)
    exponent = LEAST_EXPONENT[dtype]
    if magnitude != 0:
        exponent = max(exponent, int(mpmath.frexp(magnitude)[1]) - UNIT_BITS[dtype])
    return mpmath.ldexp(mpmath.mpf(1), exponent)


def ulp_error(got: float, terms: Terms, dtype: str) -> float:
    """``|got - sum(terms)|`` in ulps of the largest term; infinite if ``got`` is not finite."""
    if not math.isfinite(got):
        return math.inf
    value = mpmath.fsum(terms)
    scale = max(abs(term) for term in terms)
    return float(abs(mpmath.mpf(float(got)) - value) / unit(scale, dtype))


def scaled_error(got: float, terms: Terms, floor: float = 0.0) -> float:
    """``|got - sum(terms)|`` relative to the largest term, or to ``floor`` where that is larger."""
    if not math.isfinite(got):
        return math.inf
    value = mpmath.fsum(terms)
    scale = max(max(abs(term) for term in terms), mpmath.mpf(floor))
    difference = abs(mpmath.mpf(float(got)) - value)
    if difference == 0:
        return 0.0
    return float(difference / scale) if scale != 0 else math.inf


def relative_error(got: float, value: Any) -> float:
    """``|got - value| / |value|`` for an mpmath ``value``; 0 when both are zero."""
    return scaled_error(got, [value])
