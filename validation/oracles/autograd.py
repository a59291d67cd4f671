"""Float64 automatic differentiation (torch) as an oracle: every gradient is taken of a log-partition or of a loss.

A family's file states A(lambda) and the maps between parametrisations needed to write a loss as a function of the
parameter that it is differentiated by; what is differentiated here is the same for all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .family import FamilyOracle

Array = NDArray[np.float64]
Tensor = torch.Tensor


def tensors(arrays: tuple[Any, ...], track: bool = False) -> tuple[Tensor, ...]:
    """NumPy arrays as float64 tensors, copies, with or without gradients."""
    return tuple(torch.tensor(np.asarray(a, dtype=np.float64), requires_grad=track) for a in arrays)


def arrays(values: tuple[Tensor, ...]) -> tuple[Array, ...]:
    """Tensors as NumPy arrays."""
    return tuple(value.detach().numpy() for value in values)


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part: derivatives by a symmetric matrix are taken along symmetric directions."""
    return 0.5 * (matrix + matrix.mT)


def log_gamma(shape: Tensor) -> Tensor:
    """lgamma by recurrence from 40 above, because torch's trigamma, its second derivative, is good to 1e-10 near 6."""
    steps = torch.arange(40, dtype=torch.float64)
    return torch.lgamma(shape + 40.0) - torch.log(shape[..., None] + steps).sum(-1)


def gradient(value: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Array, ...]:
    """The derivatives of a number by every leaf; 0 by one that it does not depend on."""
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return arrays(tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)))


def expectation(family: FamilyOracle, natural: tuple[Any, ...]) -> tuple[Array, ...]:
    """mu = dA/dlambda."""
    leaves = tensors(natural, track=True)
    return gradient(family.log_partition_tensor(leaves), leaves)


def gradient_by_natural(family: FamilyOracle, natural: tuple[Any, ...]) -> tuple[Array, ...]:
    """dL/dlambda of the family's loss, through the change of parameters lambda -> standard."""
    leaves = tensors(natural, track=True)
    return gradient(family.loss(*family.standard_tensors(leaves)), leaves)


def fisher_times(family: FamilyOracle, natural: tuple[Any, ...], direction: tuple[Any, ...]) -> tuple[Array, ...]:
    """F(lambda) v = d/dlambda <dA/dlambda, v>, a Hessian-vector product of A."""
    leaves, along = tensors(natural, track=True), tensors(direction)
    first = torch.autograd.grad(family.log_partition_tensor(leaves), leaves, create_graph=True)
    return gradient(torch.stack([(a * b).sum() for a, b in zip(first, along, strict=True)]).sum(), leaves)


class ExponentialLoss:
    """l(theta) = sum_j exp(a_j . theta) + cos(c . theta): under a Gaussian its expectation and derivatives are closed.

    E exp(a.theta) = exp(a.m + v/2) and E cos(c.theta) = cos(c.m) exp(-v/2), v the variance of the projection; E grad
    and E Hessian follow by differentiating under the integral sign, not by differentiating the expectation.
    """

    def __init__(self, directions: Array, wave: Array) -> None:
        self.directions = directions
        self.wave = wave

    def expected(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """E l, differentiable in mean and covariance (a vector is a diagonal)."""
        matrix = torch.diag(covariance) if covariance.ndim == 1 else covariance
        a, c = tensors((self.directions, self.wave))
        growth = torch.exp(a @ mean + 0.5 * ((a @ matrix) * a).sum(-1)).sum()
        return growth + torch.cos(c @ mean) * torch.exp(-0.5 * (c @ matrix @ c))

    def derivatives(self, mean: Array, covariance: Array) -> tuple[Array, Array]:
        """(E grad l, E Hessian l) as NumPy arrays, the Hessian full."""
        matrix = np.diag(covariance) if covariance.ndim == 1 else covariance
        a, c = self.directions, self.wave
        weights = np.exp(a @ mean + 0.5 * np.sum((a @ matrix) * a, axis=-1))
        damping = math.exp(-0.5 * float(c @ matrix @ c))
        phase = float(c @ mean)
        gradient = a.T @ weights - c * math.sin(phase) * damping
        return gradient, (a.T * weights) @ a - np.outer(c, c) * math.cos(phase) * damping
