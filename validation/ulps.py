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
from mpmath.libmp import from_float, mpf_sum

DIGITS = 50
UNIT_BITS = {"float32": 24, "float64": 53}
SUM_BITS = 128
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
    return mpmath.ldexp(mpmath.mpf(1), _ulp_exponent([scale], dtype))


def ulp_error(got: float, terms: Terms, dtype: str) -> float:
    """Return |got − Σ terms| in ulps of the largest term; infinite if `got` is not finite."""
    if not math.isfinite(got):
        return math.inf
    _, mantissa, exponent, _ = _difference(got, terms)
    return math.ldexp(mantissa, exponent - _ulp_exponent(terms, dtype))


def scaled_error(got: float, terms: Terms, floor: float = 0.0) -> float:
    """Return |got − Σ terms| relative to max(largest |term|, `floor`); infinite if `got` is not finite."""
    if not math.isfinite(got):
        return math.inf
    difference = abs(mpmath.mpf(_difference(got, terms)))
    if difference == 0:
        return 0.0
    scale = max(floor, *(abs(term) for term in terms))
    return float(difference / scale) if scale != 0 else math.inf


def _difference(got: float, terms: Terms) -> tuple[int, int, int, int]:
    """Σ terms − got as (sign, mantissa, exponent, bits), rounded once, without temporary numbers: mpmath's own
    operators take four times as long, and these functions see every coordinate of every check."""
    found: tuple[int, int, int, int] = mpf_sum([from_float(-got), *(term._mpf_ for term in terms)], SUM_BITS, "n")
    return found


def _ulp_exponent(terms: Terms, dtype: str) -> int:
    """The power of two that is one ulp at the largest term."""
    least = LEAST_EXPONENT[dtype]
    tops = [exponent + bits for _, mantissa, exponent, bits in (term._mpf_ for term in terms) if mantissa]
    return max([least, *(top - UNIT_BITS[dtype] for top in tops)])
