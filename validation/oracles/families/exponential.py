"""The exponential family: T = -theta, lambda = rate, base measure 1."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import torch

from ...ulps import Terms
from .. import autograd
from ..family import FactorisingOracle, Point, Slots, SlotTerms


class Exponential(FactorisingOracle):
    """Rates over eight decades."""

    domains = ("positive",)
    standard_domains = ("positive",)
    tolerances = {"log_density": 1e-14}
    differentiable = True

    def log_partition(self, natural: Point) -> Terms:
        """-log r."""
        return [-mpmath.log(natural[0])]

    def entropy(self, natural: Point) -> Terms:
        """1 - log r."""
        return [mpmath.mpf(1), -mpmath.log(natural[0])]

    def log_density(self, point: Point) -> SlotTerms:
        """log r - r theta."""
        theta, rate = point
        return [[mpmath.log(rate), -rate * theta]]

    def natural_from_standard(self, standard: Point) -> SlotTerms:
        """The natural parameter is the rate itself."""
        return [[standard[0]]]

    def standard_from_natural(self, natural: Point) -> SlotTerms:
        """The rate."""
        return [[natural[0]]]

    def expectation_from_natural(self, natural: Point) -> SlotTerms:
        """-1/r."""
        return [[-1 / natural[0]]]

    def natural_from_expectation(self, mu: Point) -> SlotTerms:
        """-1/mu."""
        return [[-1 / mu[0]]]

    def natural_gradient(self, point: Point) -> SlotTerms:
        """r^2 dL/dr."""
        rate, by_rate = point
        return [[rate * rate * by_rate]]

    def moderate(self, rng: np.random.Generator, size: int) -> Slots:
        """Rates from 0.5 to 4."""
        return (rng.uniform(0.5, 4.0, size),)

    def log_partition_tensor(self, natural: tuple[Any, ...]) -> Any:
        """A(lambda)."""
        return -torch.log(natural[0]).sum()

    def standard_tensors(self, natural: tuple[Any, ...]) -> tuple[Any, ...]:
        """The rate."""
        return natural

    def distribution(self, natural: tuple[Any, ...]) -> Any:
        """torch's exponential."""
        return torch.distributions.Exponential(natural[0])

    def loss(self, *standard: Any) -> Any:
        """A smooth function of the rate: a stand-in for any expected loss."""
        (rate,) = standard
        return (torch.sin(rate) + torch.log1p(rate) / rate).sum()

    def gradient_arguments(self, natural: Slots) -> Slots:
        """(rate, dL/dr)."""
        return natural + autograd.gradient_by_natural(self, natural)


ORACLE = Exponential()
