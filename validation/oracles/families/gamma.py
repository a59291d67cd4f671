"""The gamma family: T = (log theta, -theta), lambda = (shape, rate), base measure 1/theta."""

from __future__ import annotations

from functools import cache
from typing import Any

import mpmath
import numpy as np
import torch

from ...calls import Array, Call
from ...points import edges, generator, grown, neighbours, spread
from ...ulps import Terms, exact
from .. import autograd
from ..family import NOT_FINITE, FactorisingOracle, Fault, Pair, Point, Slots, SlotTerms, cast


@cache
def trigamma(shape: Any, digits: int) -> Any:
    """psi_1: a third of a millisecond, and two sets of points share their shapes."""
    with mpmath.workdps(digits):
        return mpmath.psi(1, shape)


class Gamma(FactorisingOracle):
    """Shapes run over 1e-4 .. 1e8."""

    domains = ("positive", "positive")
    standard_domains = ("positive", "positive")
    tolerances = {"expectation_from_natural": 1e-14, "natural_gradient": 1e-13, "log_density": 1e-14, "whiten": 1e-14}
    differentiable = True

    def log_partition(self, natural: Point) -> Terms:
        """log Gamma(a) - a log b."""
        return [mpmath.loggamma(natural[0]), -natural[0] * mpmath.log(natural[1])]

    def entropy(self, natural: Point) -> Terms:
        """a - log b + log Gamma(a) + (1 - a) digamma(a): kernels must not lose it to a large shape's cancellation."""
        shape, rate = natural
        without_rate = shape + mpmath.loggamma(shape) + (1 - shape) * mpmath.digamma(shape)
        return [without_rate, -mpmath.log(rate)]

    def log_density(self, point: Point) -> SlotTerms:
        """(a - 1) log theta - b theta + a log b - log Gamma(a)."""
        theta, shape, rate = point
        logs = [-mpmath.log(theta), shape * mpmath.log(theta), shape * mpmath.log(rate), -mpmath.loggamma(shape)]
        return [[*logs, -rate * theta]]

    def kl(self, q: Point, p: Point) -> Any:
        """(a_q - a_p) digamma(a_q) - log Gamma(a_q) + log Gamma(a_p) + a_p log(b_q/b_p) + a_q (b_p - b_q)/b_q."""
        (aq, bq), (ap, bp) = q, p
        shapes = (aq - ap) * mpmath.digamma(aq) - mpmath.loggamma(aq) + mpmath.loggamma(ap)
        return shapes + ap * mpmath.log(bq / bp) + aq * (bp - bq) / bq

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """The natural parameter is (shape, rate) itself."""
        return [[standard[0]], [standard[1]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """(shape, rate)."""
        return self.natural_from_standard(natural)

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """(digamma(a) - log b, -a/b)."""
        shape, rate = natural
        return [[mpmath.digamma(shape), -mpmath.log(rate)], [-shape / rate]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """F^-1 (dL/da, dL/db) with F = ((trigamma(a), -1/b), (-1/b, a/b^2))."""
        shape, rate, by_shape, by_rate = point
        curvature = trigamma(shape, mpmath.mp.dps)
        determinant = shape * curvature - 1
        first = [shape * by_shape / determinant, rate * by_rate / determinant]
        second = [rate * by_shape / determinant, rate * rate * curvature * by_rate / determinant]
        return [first, second]

    def inverse_scale(self, mu: Point) -> list[Any]:
        """|mu_1| + 1, since E log theta passes through zero, and |mu_2|."""
        return [abs(mu[0]) + 1, abs(mu[1])]

    def map_calls(self, dtype: str, count: int) -> list[Call]:
        """Shapes over 1e-4 .. 1e8, and gradients whose terms cancel."""
        rng = generator("gamma", dtype, count)
        shape = (10.0 ** rng.uniform(-4.0, 8.0, count)).astype(dtype)
        rate = spread(rng, count, 4.0, False, dtype)
        by_shape, by_rate = spread(rng, count, 2.0, True, dtype), spread(rng, count, 2.0, True, dtype)
        balanced = neighbours((-shape.astype("float64") * by_shape / rate).astype(dtype), rng, 3)
        edge_shape, edge_rate = edges(8.0, (False, False), dtype)
        keep = edge_shape >= 1e-4
        return [
            Call("natural_from_standard", (shape, rate)),
            Call("standard_from_natural", (shape, rate)),
            Call("expectation_from_natural", (shape, rate)),
            Call("expectation_from_natural", (edge_shape[keep], edge_rate[keep]), "edges"),
            Call("natural_gradient", (shape, rate, by_shape, by_rate)),
            Call("natural_gradient", (shape, rate, by_shape, balanced), "gradients that cancel"),
        ]

    def inverse_points(self, dtype: str, count: int) -> Slots:
        """Expectation parameters of shapes log-uniform over 1e-4 .. 1e8, kept where in the domain."""
        rng = generator("gamma inverse", dtype, count)
        shape, rate = 10.0 ** rng.uniform(-4.0, 8.0, count), 10.0 ** rng.uniform(-4.0, 4.0, count)
        decades = 10.0 ** np.arange(-4.0, 9.0)
        shape[: len(decades)] = decades[:count]
        first = [float(mpmath.digamma(a) - mpmath.log(b)) for a, b in zip(exact(shape), exact(rate), strict=True)]
        pair = np.array(first).astype(dtype), (-shape / rate).astype(dtype)
        keep = [mpmath.log(-s) - f > 1e-9 for f, s in zip(exact(pair[0]), exact(pair[1]), strict=True)]
        return pair[0][keep], pair[1][keep]

    def ordinary(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Slots:
        """Shapes over 1e-4 .. 1e8."""
        return cast((10.0 ** rng.uniform(-4.0, 8.0, size), 10.0 ** rng.uniform(-3.0, 3.0, size)), dtype)

    def near(self, rng: np.random.Generator, step: Array, ratio: float, dtype: str) -> Pair:
        """Steps in units of the logarithms' standard deviations, about 1/sqrt(shape)."""
        shape, rate = self.ordinary(rng, step.shape[1:], "float64")
        shape[:, 0] = 1e8
        deviation = np.minimum(1.0, 1.0 / np.sqrt(shape))
        moved = shape * grown(step[0] * deviation), rate * grown(step[1] * deviation)
        return Pair(cast(moved, dtype), cast((shape, rate), dtype), "")

    def moderate_pair(self, rng: np.random.Generator, step: Array, dtype: str) -> Pair:
        """Shapes and rates a factor exp(step) apart."""
        size = step.shape[1:]
        shape, rate = 10.0 ** rng.uniform(-3.0, 3.0, size), 10.0 ** rng.uniform(-2.0, 2.0, size)
        moved = shape * np.exp(step[0]), rate * np.exp(step[1])
        return Pair(cast(moved, dtype), cast((shape, rate), dtype), "moderately apart")

    def far(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Pair:
        """Shapes and rates that have nothing to do with each other."""
        q, p = [(10.0 ** rng.uniform(-4.0, 8.0, size), 10.0 ** rng.uniform(-6.0, 6.0, size)) for _ in range(2)]
        return Pair(cast(q, dtype), cast(p, dtype), "far apart")

    def expectation_faults(self, natural: Slots, place: int) -> tuple[Slots, list[Fault]]:
        """E log theta above log E theta, too."""
        mu = (np.log(natural[0]) - np.asarray(1.0, natural[0].dtype), -natural[0])
        return mu, [(1, value) for value in (0.0, 0.5, *NOT_FINITE)] + [(0, np.nan), (0, 5.0)]

    def moderate(self, rng: np.random.Generator, size: int) -> Slots:
        """Shapes from 0.3 to 9, rates from 0.5 to 4."""
        return rng.uniform(0.3, 9.0, size), rng.uniform(0.5, 4.0, size)

    def log_partition_tensor(self, natural: tuple[Any, ...]) -> Any:
        """A(lambda)."""
        shape, rate = natural
        return (autograd.log_gamma(shape) - shape * torch.log(rate)).sum()

    def standard_tensors(self, natural: tuple[Any, ...]) -> tuple[Any, ...]:
        """(shape, rate)."""
        return natural

    def distribution(self, natural: tuple[Any, ...]) -> Any:
        """torch's gamma."""
        return torch.distributions.Gamma(natural[0], natural[1])

    def loss(self, *standard: Any) -> Any:
        """Smooth functions of (shape, rate): a stand-in for any expected loss."""
        shape, rate = standard
        return (torch.sin(shape) * rate + shape**2 / rate + torch.log1p(shape * rate)).sum()

    def gradient_arguments(self, natural: Slots) -> Slots:
        """(shape, rate, dL/da, dL/db)."""
        return natural + autograd.gradient_by_natural(self, natural)


ORACLE = Gamma()
