"""Kernels against float64 automatic differentiation and torch's own distributions.

The natural gradient dL/dmu of a loss with closed expectations must equal autograd of L through mu, and F times it must
equal autograd of L through lambda; expectation parameters must equal autograd of the log-partition; entropy and KL must
equal torch.distributions'. Tolerances are relative to the largest entry: 1e-13 in float64 (what autograd and torch's
special functions are good for at these points), 5e-6 in float32, whose inputs and outputs are rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..calls import Array
from ..check import Check, check
from ..oracles import autograd as oracle
from ..points import generator

GROUP = "autograd"
TOLERANCES = {"float64": 1e-13, "float32": 5e-6}
SIZE = 6
PRECISION = 2.5


def keywords(family: str) -> dict[str, float]:
    """The fixed precision, for the family that has one."""
    return {"precision": PRECISION} if family == "isotropic_gaussian" else {}


def sample(family: str, dtype: str, salt: int = 0) -> tuple[Array, ...]:
    """A natural parameter with moderate numbers (autograd is the oracle here, not the subject)."""
    rng = generator("autograd", family, salt)
    mean, precision = rng.normal(size=SIZE), rng.uniform(0.5, 4.0, SIZE)
    if family == "isotropic_gaussian":
        natural: tuple[Array, ...] = (PRECISION * mean,)
    elif family == "diagonal_gaussian":
        natural = (precision * mean, precision)
    elif family == "gamma":
        natural = (rng.uniform(0.3, 9.0, SIZE), precision)
    else:
        factor = rng.normal(size=(SIZE, SIZE))
        matrix = factor @ factor.T / SIZE + np.eye(SIZE)
        natural = (matrix @ mean, 0.5 * (matrix + matrix.T))
    return tuple(np.ascontiguousarray(slot, dtype=dtype) for slot in natural)


def apart(got: tuple[Array, ...], expected: tuple[Array, ...]) -> float:
    """Largest difference relative to the largest expected entry of each slot."""
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        if np.shape(a) != np.shape(b) or not np.all(np.isfinite(a)):
            return float("inf")
        worst = max(worst, float(np.max(np.abs(a - b)) / np.max(np.abs(b))))
    return worst


def gaussian_loss(family: str) -> oracle.ExponentialLoss:
    """A loss that is neither quadratic nor separable."""
    rng = generator("loss", family)
    return oracle.ExponentialLoss(0.3 * rng.normal(size=(4, SIZE)), 0.5 * rng.normal(size=SIZE))


def gamma_loss(shape: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """E of log(theta)^2-free, smooth functions of (shape, rate): a stand-in for any expected loss."""
    return (torch.sin(shape) * rate + shape**2 / rate + torch.log1p(shape * rate)).sum()


def gaussian_gradient(namespace: Any, family: str, dtype: str) -> tuple[Any, tuple[Array, ...]]:
    """The kernel's natural gradient of the loss, and the natural parameter it was taken at."""
    natural = sample(family, dtype)
    wide = tuple(slot.astype(np.float64) for slot in natural)
    standard = oracle.arrays(oracle.standard_from_natural(family, oracle.tensors(wide), PRECISION))
    covariance = standard[1] if len(standard) > 1 else np.full(SIZE, 1.0 / PRECISION)
    gradient, hessian = gaussian_loss(family).derivatives(standard[0], covariance)
    if family != "full_gaussian":
        hessian = np.diag(hessian).copy()
    given = tuple(np.ascontiguousarray(slot, dtype=dtype) for slot in (standard[0], gradient, hessian))
    return namespace.natural_gradient(*given), wide


def gamma_gradient(namespace: Any, dtype: str) -> tuple[Any, tuple[Array, ...]]:
    """The kernel's natural gradient of the gamma loss, and the natural parameter it was taken at."""
    natural = sample("gamma", dtype)
    wide = tuple(slot.astype(np.float64) for slot in natural)
    by_standard = oracle.gradient_by_natural("gamma", wide, gamma_loss)
    given = natural + tuple(slot.astype(dtype) for slot in by_standard)
    return namespace.natural_gradient(*given), wide


def loss_of(family: str) -> oracle.LossOfStandard:
    """The loss as a function of (mean, covariance) or (shape, rate)."""
    if family == "gamma":
        return gamma_loss
    loss = gaussian_loss(family)
    if family == "isotropic_gaussian":
        return lambda mean: loss.expected(mean, torch.full((SIZE,), 1.0 / PRECISION, dtype=torch.float64))
    return loss.expected


def gradient_checks(namespace: Any, family: str, dtype: str) -> list[Check]:
    """dL/dmu through mu (Gaussians) and F dL/dmu = dL/dlambda (every family)."""
    if family == "gamma":
        got, natural = gamma_gradient(namespace, dtype)
    else:
        got, natural = gaussian_gradient(namespace, family, dtype)
    wide = tuple(np.asarray(slot, dtype=np.float64) for slot in got)
    found = []
    if family != "gamma":
        mu = oracle.expectation(family, natural, PRECISION)
        expected = oracle.gradient_by_expectation(family, mu, loss_of(family))
        found.append(named("natural_gradient: autograd of L through mu", family, dtype, apart(wide, expected)))
    product = oracle.fisher_times(family, natural, wide, PRECISION)
    by_natural = oracle.gradient_by_natural(family, natural, loss_of(family), PRECISION)
    found.append(named("natural_gradient: F times it is dL/dlambda", family, dtype, apart(product, by_natural)))
    return found


def map_checks(namespace: Any, family: str, dtype: str) -> list[Check]:
    """Expectation parameters and their inverse against autograd of the log-partition."""
    natural, kwargs = sample(family, dtype), keywords(family)
    expected = oracle.expectation(family, natural, PRECISION)
    got = namespace.expectation_from_natural(*natural, **kwargs)
    back = namespace.natural_from_expectation(*(slot.astype(dtype) for slot in expected), **kwargs)
    return [
        named("expectation_from_natural: autograd of A", family, dtype, apart(got, expected)),
        named("natural_from_expectation: inverse of autograd of A", family, dtype, apart(back, natural)),
    ]


def scalar_of(value: Any) -> tuple[Array, ...]:
    """A number as a one-slot result."""
    return (np.atleast_1d(np.asarray(value, dtype=np.float64)),)


def reduction_checks(namespace: Any, family: str, dtype: str) -> list[Check]:
    """Log-partition, entropy and KL against torch; they are float64 on exact inputs, whatever the arrays' type."""
    q, p, kwargs = sample(family, dtype), sample(family, dtype, salt=1), keywords(family)
    a, b = (oracle.distribution(family, natural, PRECISION) for natural in (q, p))
    partition = oracle.log_partition(family, oracle.tensors(q), PRECISION).item()
    expected = {
        "log_partition: torch": (namespace.log_partition(*q, **kwargs), partition),
        "entropy: torch.distributions": (namespace.entropy(*q, **kwargs), a.entropy().sum().item()),
        "kl: torch.distributions": (
            namespace.kl(q, p, **kwargs),
            torch.distributions.kl_divergence(a, b).sum().item(),
        ),
    }
    return [
        named(name, family, "float64", apart(scalar_of(got), scalar_of(value)), arrays_of=dtype)
        for name, (got, value) in expected.items()
    ]


def named(name: str, family: str, dtype: str, value: float, arrays_of: str = "") -> Check:
    """One check of this group."""
    return check(name, GROUP, family, arrays_of or dtype, value, TOLERANCES[dtype], "relative to the largest entry")


def checks(namespace: Any, family: str, dtype: str) -> list[Check]:
    """Every autograd check of one family and one type."""
    return [
        *gradient_checks(namespace, family, dtype),
        *map_checks(namespace, family, dtype),
        *reduction_checks(namespace, family, dtype),
    ]
