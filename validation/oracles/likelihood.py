"""What a likelihood's file states: clients, and beside each the loss that it stands for, written plainly.

Expectations follow from the loss alone. Under a ~ N(p, v) the derivatives of E f are moments of f (Stein):
E f' = E[f z]/sd and E f'' = E[f (z^2 - 1)]/v with z = (a - p)/sd, so that no derivative of a loss is stated. Under a
gamma, grad_lambda E l = Cov(T, l) and F = Cov(T, T).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import mpmath
import numpy as np
import torch

from ..calls import Array
from . import autograd

QUADRATURE_DIGITS = 30


class Moments(NamedTuple):
    """E l, E grad l (d,), E Hessian l (d, d), and how large the terms are that each is the sum of."""

    value: float
    gradient: Array
    hessian: Array
    scales: tuple[float, float, float]


class GaussianCase(Protocol):
    """A client whose expectations are taken under a Gaussian."""

    label: str
    client: Any
    dimension: int

    def moments(self, mean: Array, covariance: Array, delta: bool) -> Moments:
        """The expectations; `delta`: the loss and its derivatives at the mean."""


def normal_moments(
    f: Callable[[Any], Any], center: float, variance: float, strip: float = math.pi
) -> tuple[float, float, float]:
    """E f, E f', E f'' under N(center, variance), from f alone: the trapezoidal rule, whose error for a function that
    is analytic within `strip` of the real line is exp(-2 pi strip / (step sd)), here below 1e-17."""
    sd = mpmath.sqrt(variance)
    step = min(mpmath.mpf(1) / 8, mpmath.mpf(strip) / (2 * mpmath.pi) / sd)
    last = int((12 + sd) / step)
    nodes = [step * k for k in range(-last, last + 1)]
    weighted = [f(center + sd * z) * mpmath.npdf(z) * step for z in nodes]
    first = mpmath.fsum(w * z for w, z in zip(weighted, nodes, strict=True))
    second = mpmath.fsum(w * (z * z - 1) for w, z in zip(weighted, nodes, strict=True))
    return float(mpmath.fsum(weighted)), float(first / sd), float(second / variance)


def piecewise_moments(
    f: Callable[[Any], Any], center: float, variance: float, kinks: Sequence[float]
) -> tuple[float, float, float]:
    """The same for a function that is smooth between kinks: Gauss-Legendre quadrature piece by piece."""
    sd = mpmath.sqrt(variance)
    weighted = cache(lambda z: f(center + sd * z) * mpmath.npdf(z))  # the three expectations share their nodes
    ends = sorted({-13, -6, -3, 0, 3, 6, 13, *((k - center) / sd for k in kinks if abs(k - center) < 13 * sd)})

    def expect(weight: Callable[[Any], Any]) -> Any:
        return mpmath.quad(lambda z: weight(z) * weighted(z), ends, method="gauss-legendre")

    first, second = expect(lambda z: z), expect(lambda z: z * z - 1)
    return float(expect(lambda z: 1)), float(first / sd), float(second / variance)


def derivatives(f: Callable[[Any], Any], center: float) -> tuple[float, float, float]:
    """f, f', f'' at a point, by differences."""
    return float(f(mpmath.mpf(center))), float(mpmath.diff(f, center)), float(mpmath.diff(f, center, 2))


@dataclass(frozen=True)
class Predictor:
    """l(theta) = sum_i f(a_i; i), a = X theta: one function of one number per row, analytic within `strip` of the real
    line, or smooth between the kinks of its row."""

    label: str
    client: Any
    design: Array
    f: Callable[[Any, int], Any]
    strip: float = math.pi
    kinks: Callable[[int], Sequence[float]] = lambda i: ()

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.design.shape[1])

    def _expected(self, i: int, center: float, variance: float) -> tuple[float, float, float]:
        kinks = self.kinks(i)
        if kinks:
            return piecewise_moments(lambda a: self.f(a, i), center, variance, kinks)
        return normal_moments(lambda a: self.f(a, i), center, variance, self.strip)

    def moments(self, mean: Array, covariance: Array, delta: bool) -> Moments:
        """Row by row."""
        X, rows = self.design, []
        with mpmath.workdps(QUADRATURE_DIGITS):
            for i, x in enumerate(X):
                f, center, variance = (lambda a, i=i: self.f(a, i)), float(x @ mean), float(x @ covariance @ x)
                rows.append(derivatives(f, center) if delta else self._expected(i, center, variance))
        value, slope, curvature = np.array(rows).T
        size = np.abs(X)
        gradients, hessians = size.T @ np.abs(slope), (size.T * np.abs(curvature)) @ size
        scales = float(np.abs(value).sum()), float(gradients.max()), float(hessians.max())
        return Moments(float(value.sum()), X.T @ slope, (X.T * curvature) @ X, scales)


@dataclass(frozen=True)
class Smooth:
    """A loss of theta in torch: its derivatives at the mean; where it is quadratic, its expectations exactly."""

    label: str
    client: Any
    dimension: int
    loss: Callable[[Any], Any]
    quadratic: bool = False

    def moments(self, mean: Array, covariance: Array, delta: bool) -> Moments:
        """l(m), grad l(m), Hessian l(m), and the trace of Hessian times covariance over 2 where it is due."""
        (point,) = autograd.tensors((mean,), track=True)
        value = self.loss(point)
        (gradient,) = torch.autograd.grad(value, point)
        hessian = torch.autograd.functional.hessian(self.loss, point.detach()).numpy()
        spread = 0.5 * float(np.sum(hessian * covariance)) if self.quadratic and not delta else 0.0
        scales = abs(value.item()) + abs(spread) + 1.0, float(abs(gradient).max()) + 1.0, float(abs(hessian).max())
        return Moments(value.item() + spread, gradient.numpy(), hessian, scales)


@dataclass(frozen=True)
class Rate:
    """A loss that is a sum over independent rates theta_p > 0, under a gamma posterior."""

    label: str
    client: Any
    losses: Sequence[Callable[[Any], Any]]

    def moments(self, shape: Array, rate: Array) -> Iterator[tuple[Any, list[Any]]]:
        """(E l, dL/dmu) of every rate, by quadrature over log theta and F^-1 Cov(T, l)."""
        for loss, a, b in zip(self.losses, shape.tolist(), rate.tolist(), strict=True):
            with mpmath.workdps(QUADRATURE_DIGITS):
                yield gamma_moments(loss, mpmath.mpf(a), mpmath.mpf(b))


def gamma_moments(loss: Callable[[Any], Any], a: Any, b: Any) -> tuple[Any, list[Any]]:
    """(E l, F^-1 Cov(T, l)) under Gamma(a, b), T = (log theta, -theta)."""
    constant = a * mpmath.log(b) - mpmath.loggamma(a)
    middle, width = mpmath.log(a / b), 1 / mpmath.sqrt(a)
    ends = [
        middle - 80 * width,
        middle - 8 * width,
        middle - 2 * width,
        middle,
        middle + 2 * width,
        middle + 12 * width,
    ]

    def expect(g: Callable[[Any], Any]) -> Any:
        return mpmath.quad(lambda u: g(mpmath.exp(u)) * mpmath.exp(constant + a * u - b * mpmath.exp(u)), ends)

    statistics: list[Callable[[Any], Any]] = [mpmath.log, lambda t: -t]
    mu = [expect(T) for T in statistics]

    def centred(k: int) -> Callable[[Any], Any]:
        return lambda t: statistics[k](t) - mu[k]

    def covariance(f: Callable[[Any], Any], g: Callable[[Any], Any]) -> Any:
        return expect(lambda t: f(t) * g(t))

    fisher = mpmath.matrix([[covariance(centred(i), centred(j)) for j in range(2)] for i in range(2)])
    by_natural = mpmath.matrix([covariance(centred(i), loss) for i in range(2)])
    return expect(loss), list(mpmath.lu_solve(fisher, by_natural))
