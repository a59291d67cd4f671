"""Expectations of a scalar loss and its first two derivatives under a ~ N(p, v), to about 1e-14 at any v.

Gauss–Hermite nodes, however many, miss a sigmoid that is narrow beside the Gaussian. The trapezoidal rule does not:
for an integrand analytic in a strip its error falls as exp(−2π·width/step) (Trefethen & Weideman, SIAM Review 2014).

* sd ≤ 1.1: nodes on z, a = p + sd z, step 0.45, |z| ≤ 9.
* sd > 1.1: nodes on a itself, |a| ≤ 38, step 0.5, weighted by the density of a. What is integrated must decay there,
  so Φ(a/c) is taken from the sigmoid and its integral from the softplus; their expectations are closed forms.

Either way the number of nodes is fixed, so that all data are handled in two passes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr

from badmm.checks import Array

_SPLIT = 1.1
_Z_STEP = 0.45
_Z: Array = np.arange(-20, 21, dtype=np.float64) * _Z_STEP
_Z_WEIGHT = np.exp(-0.5 * _Z**2) * (_Z_STEP / np.sqrt(2 * np.pi))
_A_STEP = 0.5
_A: Array = np.arange(-76, 77, dtype=np.float64) * _A_STEP
_SMOOTH = 1.7
"""c: Φ(a/1.7) is near the sigmoid, so that little is left to integrate."""


class Moments(NamedTuple):
    """E[f(a)], E[f′(a)], E[f″(a)], each (n,)."""

    value: Array
    slope: Array
    curvature: Array


def softplus(a: Array) -> Array:
    """log(1 + eᵃ) without overflow."""
    return np.asarray(np.logaddexp(0.0, a))


def _density(x: Array, scale: Array | float) -> Array:
    return np.exp(-0.5 * (x / scale) ** 2) / (np.sqrt(2 * np.pi) * scale)


def _probit_integral(a: Array, scale: Array | float) -> Array:
    """∫ Φ(t/c) dt up to a = a Φ(a/c) + c² N(a; 0, c²)."""
    return a * ndtr(a / scale) + np.square(scale) * _density(a, scale)


_WIDE_TABLE = np.stack(
    [softplus(_A) - _probit_integral(_A, _SMOOTH), expit(_A) - ndtr(_A / _SMOOTH), expit(_A) * expit(-_A)], axis=1
)


def softplus_moments(center: Array, variance: Array) -> Moments:
    """E[log(1+eᵃ)], E[σ(a)], E[σ′(a)] for a ~ N(center, variance); all (n,), variance ≥ 0.

    Absolute error about 1e-14 of the largest of 1 and the value; relative in the tails for sd ≤ 1.1.
    """
    deviation = np.sqrt(variance)
    narrow = deviation <= _SPLIT
    if narrow.all():
        return _narrow(center, deviation)
    out = np.empty((3, len(center)))
    if narrow.any():
        out[:, narrow] = _narrow(center[narrow], deviation[narrow])
    wide = ~narrow
    out[:, wide] = _wide(center[wide], deviation[wide])
    return Moments(*out)


def _narrow(center: Array, deviation: Array) -> Moments:
    a = center[:, None] + deviation[:, None] * _Z
    tail = np.exp(-np.abs(a))
    # σ and 1 − σ share one exponential and neither cancels
    upper = 1.0 / (1.0 + tail)
    lower = tail * upper
    positive = a > 0
    return Moments(
        (np.maximum(a, 0.0) + np.log1p(tail)) @ _Z_WEIGHT,
        np.where(positive, upper, lower) @ _Z_WEIGHT,
        (upper * lower) @ _Z_WEIGHT,
    )


def _wide(center: Array, deviation: Array) -> Moments:
    weight = _density(_A - center[:, None], deviation[:, None]) * _A_STEP
    rest = weight @ _WIDE_TABLE
    total = np.sqrt(_SMOOTH**2 + deviation**2)
    return Moments(rest[:, 0] + _probit_integral(center, total), rest[:, 1] + ndtr(center / total), rest[:, 2])


def exponential_moments(center: Array, variance: Array) -> Moments:
    """E[eᵃ] = exp(p + v/2), three times: the exponential is its own derivative. Overflow gives inf, unreported."""
    with np.errstate(over="ignore"):
        value = np.exp(center + 0.5 * variance)
    return Moments(value, value, value)
