"""Errors in units in the last place (ulp) of a formula's largest term.

The ulp of a sum that cancels is not meaningful, so an oracle gives every result as a list of terms: the exact value is
their sum, and the unit is the spacing of floating-point numbers at the largest term.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from mpmath.libmp import from_float, mpf_shift, mpf_sub, mpf_sum, to_float
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class References:
    """Exact values as float64 arrays, each with the size that its error is relative to: what kernels are judged by.

    Value k is (high + low) 2**exponent to 106 bits, its size unit 2**exponent; a power of two near the size keeps all
    three in range. Differences from results that are nearly right are then as exact as in mpmath.
    """

    exponent: NDArray[np.int64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    unit: NDArray[np.float64]

    def errors(self, results: NDArray[Any]) -> list[float]:
        """Return |result − value| / size of every result; infinite for one that is not finite."""
        got = np.asarray(results, dtype=np.float64).ravel()
        with np.errstate(all="ignore"):
            difference = np.abs((np.ldexp(got, -self.exponent) - self.high) - self.low)
            errors = np.where(difference == 0, 0.0, difference / self.unit)
        found: list[float] = np.where(np.isfinite(got), errors, np.inf).tolist()
        return found


Rows = Iterable[tuple[int, float, float, float]]


def references(values: Iterable[Any], sizes: Iterable[Any]) -> References:
    """Return the references of mpmath numbers; the error of a wrong value of size 0 is infinite."""
    rows = []
    for value, size in zip(values, sizes, strict=True):
        exponent = max(int(mpmath.frexp(size)[1]), -1000)
        rows.append((exponent, *_parts([value], exponent), float(mpmath.ldexp(size, -exponent))))
    return _assembled(rows)


def in_ulps(terms: Iterable[Terms], dtype: str) -> References:
    """Return the references of sums whose errors are in ulps of the largest term."""
    rows = []
    for term in terms:
        ulp = _ulp_exponent(term, dtype)
        exponent = max(ulp + UNIT_BITS[dtype], -1000)
        rows.append((exponent, *_parts(term, exponent), math.ldexp(1.0, ulp - exponent)))
    return _assembled(rows)


def scaled(terms: Iterable[Terms], floor: float = 0.0) -> References:
    """Return the references of sums whose errors are relative to the largest term, at least `floor`."""
    listed = list(terms)
    return references(map(mpmath.fsum, listed), (max(largest(term), mpmath.mpf(floor)) for term in listed))


def largest(terms: Terms) -> Any:
    """Return the magnitude of the largest term."""
    return max(abs(term) for term in terms)


def _parts(terms: Terms, exponent: int) -> tuple[float, float]:
    """Σ terms / 2**exponent as the sum of two numbers, without temporary objects: mpmath's own operators take four
    times as long, and these functions see every coordinate of every check."""
    total = mpf_shift(mpf_sum([term._mpf_ for term in terms], SUM_BITS, "n"), -exponent)
    high: float = to_float(total)
    low: float = to_float(mpf_sub(total, from_float(high), SUM_BITS, "n"))
    return high, low


def _assembled(rows: Rows) -> References:
    exponents, high, low, units = zip(*rows, strict=True)
    return References(np.array(exponents), np.array(high), np.array(low), np.array(units))


def _ulp_exponent(terms: Terms, dtype: str) -> int:
    """The power of two that is one ulp at the largest term."""
    least = LEAST_EXPONENT[dtype]
    tops = [exponent + bits for _, mantissa, exponent, bits in (term._mpf_ for term in terms) if mantissa]
    return max([least, *(top - UNIT_BITS[dtype] for top in tops)])
