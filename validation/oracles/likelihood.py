"""What a likelihood's file states: clients, and beside each the loss that it stands for, written plainly.

Expectations follow from the loss alone. Under a ~ N(p, v) the derivatives of E f are moments of f (Stein):
E f' = E[f z]/sd and E f'' = E[f (z^2 - 1)]/v with z = (a - p)/sd, so that no derivative of a loss is stated. Under
any other family grad_lambda E l = Cov(T, l) and F = Cov(T, T).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
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
    """A loss that is a sum over independent theta_p, under a posterior of the family that it is conjugate to."""

    label: str
    client: Any
    losses: Sequence[Callable[[Any], Any]]
    family: str = "gamma"

    def moments(self, first: Array, second: Array) -> Iterator[tuple[Any, list[Any]]]:
        """(E l, dL/dmu) of every theta_p, by quadrature and F^-1 Cov(T, l)."""
        for loss, a, b in zip(self.losses, first.tolist(), second.tolist(), strict=True):
            with mpmath.workdps(QUADRATURE_DIGITS):
                nodes = POSTERIORS[self.family](mpmath.mpf(a), mpmath.mpf(b))
                yield covariance_moments(loss, STATISTICS[self.family], nodes)


@dataclass(frozen=True)
class NoiseRegression:
    """A loss of theta (2,) and the noise precision tau > 0, quadratic in theta, under a Gaussian-gamma posterior."""

    label: str
    client: Any
    loss: Callable[[Sequence[Any], Any], Any]

    def moments(self, mean: Array, precision: Array, shape: float, rate: float) -> tuple[Any, list[Any]]:
        """(E l, dL/dmu), the latter as (xi_1, xi_2, S_11, S_21, S_22, a, b)."""
        with mpmath.workdps(QUADRATURE_DIGITS):
            factor = mpmath.cholesky(mpmath.inverse(mpmath.matrix(precision.tolist())))
            center = mpmath.matrix(mean.tolist())
            root = mpmath.sqrt(3)  # nodes of Hermite's rule with three points, exact for the statistics' products
            rule = [(-root, mpmath.mpf(1) / 6), (mpmath.mpf(0), mpmath.mpf(2) / 3), (root, mpmath.mpf(1) / 6)]
            nodes = []
            for tau, weight in gamma_nodes(mpmath.mpf(shape), mpmath.mpf(rate)):
                for (x, wx), (y, wy) in product(rule, rule):
                    theta = center + factor * mpmath.matrix([x, y]) / mpmath.sqrt(tau)
                    nodes.append(((theta[0], theta[1], tau), weight * wx * wy))
            return covariance_moments(lambda at: self.loss(at[:2], at[2]), NOISE_STATISTICS, nodes)


Nodes = list[tuple[Any, Any]]


def trapezoid(log_height: Callable[[Any], Any], middle: Any) -> Nodes:
    """(u, weight) of the trapezoidal rule in u, analytic within pi/2 of the real line, around about its mode: the error
    is exp(-8 pi^2) of the height, and tails are cut 75 nats down."""
    step, top, found = mpmath.mpf(1) / 8, log_height(middle), []
    for side in (1, -1):
        u = middle if side == 1 else middle - step
        while log_height(u) > top - 75:
            found.append((u, step * mpmath.exp(log_height(u))))
            u += side * step
    return found


def gamma_nodes(a: Any, b: Any) -> Nodes:
    """theta and the weights of expectations under Gamma(a, b), in log theta."""
    constant = a * mpmath.log(b) - mpmath.loggamma(a)
    nodes = trapezoid(lambda u: constant + a * u - b * mpmath.exp(u), mpmath.log(a / b))
    return [(mpmath.exp(u), weight) for u, weight in nodes]


def inverse_gamma_nodes(a: Any, b: Any) -> Nodes:
    """The same under InverseGamma(a, b), whose reciprocal is a Gamma(a, b)."""
    return [(1 / theta, weight) for theta, weight in gamma_nodes(a, b)]


def beta_nodes(a: Any, b: Any) -> Nodes:
    """The same under Beta(a, b), in the log-odds of theta."""
    constant = mpmath.loggamma(a + b) - mpmath.loggamma(a) - mpmath.loggamma(b)
    nodes = trapezoid(lambda u: constant + a * u - (a + b) * mpmath.log1p(mpmath.exp(u)), mpmath.log(a / b))
    return [(1 / (1 + mpmath.exp(-u)), weight) for u, weight in nodes]


Statistics = Sequence[Callable[[Any], Any]]
POSTERIORS: dict[str, Callable[[Any, Any], Nodes]] = {
    "gamma": gamma_nodes,
    "inverse_gamma": inverse_gamma_nodes,
    "beta": beta_nodes,
}
STATISTICS: dict[str, Statistics] = {
    "gamma": (mpmath.log, lambda t: -t),
    "inverse_gamma": (lambda t: -mpmath.log(t), lambda t: -1 / t),
    "beta": (mpmath.log, lambda t: mpmath.log1p(-t)),
}
NOISE_STATISTICS: Statistics = (
    lambda at: at[2] * at[0],
    lambda at: at[2] * at[1],
    lambda at: -at[2] * at[0] ** 2 / 2,
    lambda at: -at[2] * at[0] * at[1],  # the matrix has it twice
    lambda at: -at[2] * at[1] ** 2 / 2,
    lambda at: mpmath.log(at[2]),
    lambda at: -at[2],
)


def covariance_moments(loss: Callable[[Any], Any], statistics: Statistics, nodes: Nodes) -> tuple[Any, list[Any]]:
    """(E l, F^-1 Cov(T, l)) under a posterior given by nodes and weights."""
    weights = [weight for _, weight in nodes]
    rows = [[f(at) for at, _ in nodes] for f in (*statistics, loss)]
    means = [mpmath.fdot(weights, row) for row in rows]
    centred = [[x - mean for x in row] for row, mean in zip(rows, means, strict=True)]
    weighted = [[w * x for w, x in zip(weights, row, strict=True)] for row in centred]
    size = len(statistics)
    fisher = mpmath.matrix([[mpmath.fdot(weighted[i], centred[j]) for j in range(size)] for i in range(size)])
    by_natural = mpmath.matrix([mpmath.fdot(weighted[i], centred[size]) for i in range(size)])
    return means[size], list(mpmath.lu_solve(fisher, by_natural))
