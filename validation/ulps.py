"""Errors in units in the last place (ulp) of a formula's largest term.

The ulp of a sum that cancels is not meaningful, so an oracle gives every result as a list of terms: the exact value is
their sum, and the unit is the spacing of floating-point numbers at the largest term.
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
    """Return the spacing of the numbers of a dtype just above 1."""
    return 2.0 ** (1 - UNIT_BITS[dtype])


def rounded(value: float, dtype: str) -> Any:
    """Return a coefficient rounded once to `dtype`, as kernels round their scalars, as an mpmath number."""
    return mpmath.mpf(float(np.dtype(dtype).type(value)))


def exact(values: Iterable[float]) -> list[Any]:
    """Return floating-point numbers as mpmath numbers, without rounding."""
    return [mpmath.mpf(float(value)) for value in values]


def unit(scale: Any, dtype: str) -> Any:
    """Return one ulp of `dtype` at the magnitude `scale`."""
    magnitude = abs(scale)
    exponent = LEAST_EXPONENT[dtype]
    if magnitude != 0:
        exponent = max(exponent, int(mpmath.frexp(magnitude)[1]) - UNIT_BITS[dtype])
    return mpmath.ldexp(mpmath.mpf(1), exponent)


def ulp_error(got: float, terms: Terms, dtype: str) -> float:
    """Return |got − Σ terms| in ulps of the largest term; infinite if `got` is not finite."""
    if not math.isfinite(got):
        return math.inf
    value = mpmath.fsum(terms)
    scale = max(abs(term) for term in terms)
    return float(abs(mpmath.mpf(float(got)) - value) / unit(scale, dtype))


def scaled_error(got: float, terms: Terms, floor: float = 0.0) -> float:
    """Return |got − Σ terms| relative to max(largest |term|, `floor`); infinite if `got` is not finite."""
    if not math.isfinite(got):
        return math.inf
    value = mpmath.fsum(terms)
    scale = max(max(abs(term) for term in terms), mpmath.mpf(floor))
    difference = abs(mpmath.mpf(float(got)) - value)
    if difference == 0:
        return 0.0
    return float(difference / scale) if scale != 0 else math.inf
