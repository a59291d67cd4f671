"""Float64 automatic differentiation (torch) as an oracle: every gradient is taken of a log-partition or of a loss.

The only formulas written here are A(lambda) of each family and the maps between parametrisations needed to write a loss
as a function of the parameter that it is differentiated by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tensor = torch.Tensor
LossOfStandard = Callable[..., Tensor]


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


def log_partition(family: str, natural: tuple[Tensor, ...], precision: float = 1.0) -> Tensor:
    """A(lambda), summed over coordinates."""
    if family == "isotropic_gaussian":
        return (natural[0] ** 2).sum() / (2.0 * precision)
    if family == "diagonal_gaussian":
        xi, diagonal = natural
        return 0.5 * (xi**2 / diagonal - torch.log(diagonal)).sum()
    if family == "gamma":
        shape, rate = natural
        return (log_gamma(shape) - shape * torch.log(rate)).sum()
    xi, matrix = natural[0], symmetric(natural[1])
    return 0.5 * (xi @ torch.linalg.solve(matrix, xi) - torch.logdet(matrix))


def expectation(family: str, natural: tuple[Any, ...], precision: float = 1.0) -> tuple[Array, ...]:
    """mu = dA/dlambda."""
    leaves = tensors(natural, track=True)
    return arrays(torch.autograd.grad(log_partition(family, leaves, precision), leaves))


def standard_from_natural(family: str, natural: tuple[Tensor, ...], precision: float = 1.0) -> tuple[Tensor, ...]:
    """(mean,), (mean, covariance) or (shape, rate) as functions of the natural parameter."""
    if family == "isotropic_gaussian":
        return (natural[0] / precision,)
    if family == "diagonal_gaussian":
        return natural[0] / natural[1], 1.0 / natural[1]
    if family == "gamma":
        return natural
    matrix = symmetric(natural[1])
    return torch.linalg.solve(matrix, natural[0]), torch.linalg.inv(matrix)


def standard_from_expectation(family: str, mu: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(mean,) or (mean, covariance) as functions of a Gaussian's expectation parameter."""
    if family == "isotropic_gaussian":
        return mu
    if family == "diagonal_gaussian":
        return mu[0], -2.0 * mu[1] - mu[0] ** 2
    return mu[0], -2.0 * symmetric(mu[1]) - torch.outer(mu[0], mu[0])


def gradient_by_expectation(family: str, mu: tuple[Any, ...], loss: LossOfStandard) -> tuple[Array, ...]:
    """dL/dmu of a Gaussian, through the change of parameters mu -> (mean, covariance)."""
    leaves = tensors(mu, track=True)
    return arrays(torch.autograd.grad(loss(*standard_from_expectation(family, leaves)), leaves))


def gradient_by_natural(
    family: str, natural: tuple[Any, ...], loss: LossOfStandard, precision: float = 1.0
) -> tuple[Array, ...]:
    """dL/dlambda, through the change of parameters lambda -> standard."""
    leaves = tensors(natural, track=True)
    value = loss(*standard_from_natural(family, leaves, precision))
    return arrays(torch.autograd.grad(value, leaves))


def fisher_times(
    family: str, natural: tuple[Any, ...], direction: tuple[Any, ...], precision: float = 1.0
) -> tuple[Array, ...]:
    """F(lambda) v = d/dlambda <dA/dlambda, v>, a Hessian-vector product of A."""
    leaves, along = tensors(natural, track=True), tensors(direction)
    first = torch.autograd.grad(log_partition(family, leaves, precision), leaves, create_graph=True)
    inner = torch.stack([(a * b).sum() for a, b in zip(first, along, strict=True)]).sum()
    products = torch.autograd.grad(inner, leaves, allow_unused=True)
    return arrays(tuple(torch.zeros_like(x) if g is None else g for g, x in zip(products, leaves, strict=True)))


def distribution(family: str, natural: tuple[Any, ...], precision: float = 1.0) -> Any:
    """The distribution as one of torch's own."""
    values = tensors(natural)
    if family == "isotropic_gaussian":
        return torch.distributions.Normal(values[0] / precision, torch.full_like(values[0], precision**-0.5))
    if family == "diagonal_gaussian":
        return torch.distributions.Normal(values[0] / values[1], values[1] ** -0.5)
    if family == "gamma":
        return torch.distributions.Gamma(values[0], values[1])
    mean = torch.linalg.solve(values[1], values[0])
    return torch.distributions.MultivariateNormal(mean, precision_matrix=values[1])


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
