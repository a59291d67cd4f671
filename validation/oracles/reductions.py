"""Log-partition, entropy and KL of the elementwise families, one coordinate at a time, with mpmath at 50 digits.

Base measures: Gaussians (2 pi)^(-1/2) a coordinate, the isotropic one N(theta; 0, 1/s), the gamma 1/theta. A
log-partition and a Gaussian's entropy are given as their terms, as their sum can cancel; the gamma's entropy and every
KL are given as one number, because the kernels must not lose them to cancellation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath

from ..ulps import Terms

Point = Sequence[Any]


def isotropic_log_partition(point: Point, precision: Any) -> Terms:
    """lambda^2 / (2 s)."""
    return [point[0] ** 2 / (2 * precision)]


def isotropic_entropy(point: Point, precision: Any) -> Terms:
    """log(2 pi e) / 2 - log(s) / 2."""
    return [mpmath.log(2 * mpmath.pi * mpmath.e) / 2, -mpmath.log(precision) / 2]


def isotropic_kl(q: Point, p: Point, precision: Any) -> Any:
    """(lambda_q - lambda_p)^2 / (2 s)."""
    return (q[0] - p[0]) ** 2 / (2 * precision)


def diagonal_log_partition(point: Point, precision: Any) -> Terms:
    """xi^2 / (2 S) - log(S) / 2."""
    return [point[0] ** 2 / (2 * point[1]), -mpmath.log(point[1]) / 2]


def diagonal_entropy(point: Point, precision: Any) -> Terms:
    """log(2 pi e) / 2 - log(S) / 2."""
    return [mpmath.log(2 * mpmath.pi * mpmath.e) / 2, -mpmath.log(point[1]) / 2]


def diagonal_kl(q: Point, p: Point, precision: Any) -> Any:
    """(S_p/S_q - 1 - log(S_p/S_q) + S_p (m_q - m_p)^2) / 2."""
    ratio = p[1] / q[1]
    return (ratio - 1 - mpmath.log(ratio) + p[1] * (q[0] / q[1] - p[0] / p[1]) ** 2) / 2


def gamma_log_partition(point: Point, precision: Any) -> Terms:
    """log Gamma(a) - a log b."""
    return [mpmath.loggamma(point[0]), -point[0] * mpmath.log(point[1])]


def gamma_entropy(point: Point, precision: Any) -> Terms:
    """a - log b + log Gamma(a) + (1 - a) digamma(a)."""
    shape, rate = point
    without_rate = shape + mpmath.loggamma(shape) + (1 - shape) * mpmath.digamma(shape)
    return [without_rate, -mpmath.log(rate)]


def gamma_kl(q: Point, p: Point, precision: Any) -> Any:
    """(a_q - a_p) digamma(a_q) - log Gamma(a_q) + log Gamma(a_p) + a_p log(b_q/b_p) + a_q (b_p - b_q)/b_q."""
    (aq, bq), (ap, bp) = q, p
    shapes = (aq - ap) * mpmath.digamma(aq) - mpmath.loggamma(aq) + mpmath.loggamma(ap)
    return shapes + ap * mpmath.log(bq / bp) + aq * (bp - bq) / bq


LOG_PARTITION: Mapping[str, Callable[[Point, Any], Terms]] = {
    "isotropic_gaussian": isotropic_log_partition,
    "diagonal_gaussian": diagonal_log_partition,
    "gamma": gamma_log_partition,
}
ENTROPY: Mapping[str, Callable[[Point, Any], Terms]] = {
    "isotropic_gaussian": isotropic_entropy,
    "diagonal_gaussian": diagonal_entropy,
    "gamma": gamma_entropy,
}
KL: Mapping[str, Callable[[Point, Point, Any], Any]] = {
    "isotropic_gaussian": isotropic_kl,
    "diagonal_gaussian": diagonal_kl,
    "gamma": gamma_kl,
}
