"""The diagonal Gaussian: T = (theta, -theta^2/2), lambda = (xi, S), xi = S m, mu = (m, -(1/S + m^2)/2)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import torch

from ...calls import Array, Call
from ...points import SQUARE_DECADES, edges, generator, grown, neighbours, spread
from ...ulps import Terms, epsilon
from ..family import NOT_FINITE, FactorisingOracle, Fault, Pair, Point, Slots, SlotTerms, cast
from ..gaussian import Gaussian


class DiagonalGaussian(Gaussian, FactorisingOracle):
    """Base measure (2 pi)^(-1/2) per coordinate."""

    domains = ("real", "positive")
    standard_domains = ("real", "positive")
    ratios = (0.0, 1.0, 1e2, 1e4)
    real_line = True
    tolerances = {"log_density": 1e-14}
    ulps = {"whiten": 3.0}

    def log_partition(self, natural: Point) -> Terms:
        """xi^2 / (2 S) - log(S) / 2."""
        return [natural[0] ** 2 / (2 * natural[1]), -mpmath.log(natural[1]) / 2]

    def entropy(self, natural: Point) -> Terms:
        """log(2 pi e) / 2 - log(S) / 2."""
        return [mpmath.log(2 * mpmath.pi * mpmath.e) / 2, -mpmath.log(natural[1]) / 2]

    def log_density(self, point: Point) -> SlotTerms:
        """log(S)/2 - log(2 pi)/2 - S (theta - m)^2 / 2."""
        theta, xi, precision = point
        distance = theta - xi / precision
        return [[mpmath.log(precision) / 2, -mpmath.log(2 * mpmath.pi) / 2, -precision * distance**2 / 2]]

    def kl(self, q: Point, p: Point) -> Any:
        """(S_p/S_q - 1 - log(S_p/S_q) + S_p (m_q - m_p)^2) / 2."""
        ratio = p[1] / q[1]
        return (ratio - 1 - mpmath.log(ratio) + p[1] * (q[0] / q[1] - p[0] / p[1]) ** 2) / 2

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """(S m, S)."""
        mean, precision = standard
        return [[precision * mean], [precision]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """(xi / S, S)."""
        xi, precision = natural
        return [[xi / precision], [precision]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """(m, -(1/S + m^2)/2), m = xi / S."""
        xi, precision = natural
        mean = xi / precision
        return [[mean], [-1 / (2 * precision), -mean * mean / 2]]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """(S m, S) with 1/S = -2 mu_2 - mu_1^2, itself exact here."""
        mean, second = mu
        precision = 1 / (-2 * second - mean * mean)
        return [[precision * mean], [precision]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """(g - H m, -H)."""
        mean, gradient, hessian = point
        return [[gradient, -hessian * mean], [-hessian]]

    def map_calls(self, dtype: str, count: int) -> list[Call]:
        """Edges, a gradient at H m, and a second moment at the squared mean included."""
        rng = generator("diagonal", dtype, count)
        mean, precision = spread(rng, count, 2.0, True, dtype), spread(rng, count, 3.0, False, dtype)
        edge_mean, edge_precision = edges(SQUARE_DECADES[dtype], (True, False), dtype)
        gradient, hessian = spread(rng, count, 2.0, True, dtype), spread(rng, count, 2.0, True, dtype)
        balanced = neighbours((hessian * mean).astype(dtype), rng, 3)
        edge_triple = edges(SQUARE_DECADES[dtype], (True, True, True), dtype)
        inverse = "natural_from_expectation"
        calls = [
            Call("natural_gradient", (mean, gradient, hessian)),
            Call("natural_gradient", (mean, balanced, hessian), "gradient at Hessian times mean"),
            Call("natural_gradient", tuple(edge_triple), "edges"),
            Call(inverse, expectation_points(mean, precision, dtype)),
            Call(inverse, expectation_points(edge_mean, edge_precision, dtype), "edges"),
            Call(inverse, cancelling_expectations(mean, rng, dtype), "second moment at the squared mean"),
        ]
        for label, pair in (("generic", (mean, precision)), ("edges", (edge_mean, edge_precision))):
            natural = (np.asarray(pair[0] * pair[1], dtype=dtype), pair[1])
            calls += [
                Call("natural_from_standard", pair, label),
                Call("standard_from_natural", natural, label),
                Call("expectation_from_natural", natural, label),
            ]
        return calls

    def ordinary(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Slots:
        """Means of about three, precisions over six decades."""
        mean, precision = rng.normal(size=size) * 3.0, 10.0 ** rng.uniform(-3.0, 3.0, size)
        return cast((mean * precision, precision), dtype)

    def near(self, rng: np.random.Generator, step: Array, ratio: float, dtype: str) -> Pair:
        """Means `ratio` standard deviations from zero."""
        size = step.shape[1:]
        precision = 10.0 ** rng.uniform(-3.0, 3.0, size)
        mean = ratio / np.sqrt(precision) * rng.normal(size=size)
        other = precision * grown(step[1])
        moved = (other * (mean + step[0] / np.sqrt(precision)), other)
        return Pair(cast(moved, dtype), cast((mean * precision, precision), dtype), f", mean {ratio:.0e} sd")

    def moderate_pair(self, rng: np.random.Generator, step: Array, dtype: str) -> Pair:
        """Means a step apart, precisions a factor exp(step)."""
        size = step.shape[1:]
        base, scale = rng.normal(size=size), 10.0 ** rng.uniform(-2.0, 2.0, size)
        other = scale * np.exp(step[1])
        return Pair(
            cast(((base + step[0]) * other, other), dtype), cast((base * scale, scale), dtype), "moderately apart"
        )

    def far(self, rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Pair:
        """Precisions apart by up to 24 decades."""
        precisions = [10.0 ** rng.uniform(-12.0, 12.0, size) for _ in range(2)]
        q, p = [(np.sqrt(precision) * rng.normal(size=size), precision) for precision in precisions]
        return Pair(cast(q, dtype), cast(p, dtype), "far apart")

    def expectation_faults(self, natural: Slots, place: int) -> tuple[Slots, list[Fault]]:
        """Second moments below the squared mean, too."""
        mu = (natural[0], -0.5 * (1 + natural[0] ** 2))
        boundary = float(-0.5 * natural[0][place] ** 2)
        faults = [(1, value) for value in (0.0, 0.5, boundary / 2, *NOT_FINITE)]
        return mu, [*faults, (0, np.nan), (0, 1e4)]

    def moderate(self, rng: np.random.Generator, size: int) -> Slots:
        """A mean of about one, precisions from 0.5 to 4."""
        mean, precision = rng.normal(size=size), rng.uniform(0.5, 4.0, size)
        return precision * mean, precision

    def log_partition_tensor(self, natural: tuple[Any, ...]) -> Any:
        """A(lambda)."""
        xi, precision = natural
        return 0.5 * (xi**2 / precision - torch.log(precision)).sum()

    def standard_tensors(self, natural: tuple[Any, ...]) -> tuple[Any, ...]:
        """(mean, variance)."""
        return natural[0] / natural[1], 1.0 / natural[1]

    def standard_from_expectation(self, mu: tuple[Any, ...]) -> tuple[Any, ...]:
        """(mu_1, -2 mu_2 - mu_1^2)."""
        return mu[0], -2.0 * mu[1] - mu[0] ** 2

    def distribution(self, natural: tuple[Any, ...]) -> Any:
        """Normals."""
        return torch.distributions.Normal(natural[0] / natural[1], natural[1] ** -0.5)


def inside(mean: float, second: float) -> bool:
    """Whether the variance -2 second - mean**2 is positive, decided without rounding."""
    return -2 * Fraction(second) - Fraction(mean) ** 2 > 0


def kept(mean: Array, second: Array) -> Slots:
    """The expectation parameters that rounding left in the domain."""
    keep = np.array([inside(m, s) for m, s in zip(mean.tolist(), second.tolist(), strict=True)])
    return mean[keep], second[keep]


def expectation_points(mean: Array, precision: Array, dtype: str) -> Slots:
    """(mean, -(1/precision + mean**2)/2) rounded to ``dtype``."""
    wide = mean.astype("float64")
    return kept(mean, (-0.5 * (1.0 / precision.astype("float64") + wide * wide)).astype(dtype))


def cancelling_expectations(mean: Array, rng: np.random.Generator, dtype: str) -> Slots:
    """Second moments a few ulps from the boundary -2 second = mean**2, where the variance loses its leading digits."""
    wide = mean.astype("float64")
    inflated = wide * wide * (1.0 + rng.integers(1, 9, mean.shape) * epsilon(dtype))
    return kept(mean, (-0.5 * inflated).astype(dtype))


ORACLE = DiagonalGaussian()
