"""What the Gaussian families' oracles share: the loss whose expectation is differentiated, and duals of precisions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..points import generator
from . import autograd
from .family import FamilyOracle, Slots

LOSS_TERMS = 4


class Gaussian(FamilyOracle):
    """A Gaussian family with tensors; its loss is neither quadratic nor separable."""

    differentiable = True

    def exponential_loss(self, size: int) -> autograd.ExponentialLoss:
        """The loss of `size` coordinates."""
        rng = generator("loss", self.name)
        return autograd.ExponentialLoss(0.3 * rng.normal(size=(LOSS_TERMS, size)), 0.5 * rng.normal(size=size))

    def covariance(self, natural: Slots) -> Any:
        """The covariance as a NumPy array, a vector for a diagonal one."""
        return autograd.arrays(self.standard_tensors(autograd.tensors(natural)))[1]

    def loss(self, *standard: Any) -> Any:
        """The expected loss of (mean, covariance)."""
        return self.exponential_loss(len(standard[0])).expected(*standard)

    def hessian_slot(self, hessian: Any) -> Any:
        """The expected Hessian as the kernel takes it: its diagonal."""
        return np.diag(hessian).copy()

    def gradient_arguments(self, natural: Slots) -> Slots:
        """(mean, expected gradient, expected Hessian)."""
        mean = autograd.arrays(self.standard_tensors(autograd.tensors(natural)))[0]
        gradient, hessian = self.exponential_loss(len(mean)).derivatives(mean, self.covariance(natural))
        return mean, gradient, self.hessian_slot(hessian)

    def standard_from_expectation(self, mu: tuple[Any, ...]) -> tuple[Any, ...]:
        """(mean, covariance) as tensors of mu."""
        raise NotImplementedError

    def gradient_by_expectation(self, natural: Slots) -> Slots | None:
        """dL/dmu through the change of parameters mu -> (mean, covariance)."""
        leaves = autograd.tensors(autograd.expectation(self, natural), track=True)
        return autograd.gradient(self.loss(*self.standard_from_expectation(leaves)), leaves)
