"""Kernels against float64 automatic differentiation and torch's own distributions.

The natural gradient dL/dmu of a loss with closed-form expectations equals autograd of L through mu, and F times it
equals autograd of L through lambda. Expectation parameters equal autograd of the log-partition; entropy and KL equal
those of torch.distributions. Tolerances are relative to the largest entry: 1e-13 in float64, the accuracy of autograd
and of torch's special functions at these points, and 5e-6 in float32, whose inputs and outputs are rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..calls import Array
from ..check import Check, check
from ..oracles import autograd as oracle, lookup
from ..oracles.family import FamilyOracle, cast
from ..points import generator

GROUP = "autograd"
TOLERANCES = {"float64": 1e-13, "float32": 5e-6}
SIZE = 6


def sample(family: FamilyOracle, dtype: str, salt: int = 0) -> tuple[Array, ...]:
    """Return a natural parameter of moderate size, at which autograd is accurate."""
    return cast(family.moderate(generator("autograd", family.name, salt), SIZE), dtype)


def difference(got: tuple[Array, ...], expected: tuple[Array, ...]) -> float:
    """Largest difference relative to the largest expected entry of each slot."""
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        if np.shape(a) != np.shape(b) or not np.all(np.isfinite(a)):
            return float("inf")
        worst = max(worst, float(np.max(np.abs(a - b)) / np.max(np.abs(b))))
    return worst


def gradient_checks(namespace: Any, family: FamilyOracle, dtype: str) -> list[Check]:
    """Check dL/dmu through mu if the loss is a function of mu, and F dL/dmu = dL/dlambda for every family."""
    natural = cast(sample(family, dtype), "float64")
    got = namespace.natural_gradient(*cast(family.gradient_arguments(natural), dtype))
    wide = tuple(np.asarray(slot, dtype=np.float64) for slot in got)
    found = []
    through_mu = family.gradient_by_expectation(natural)
    if through_mu is not None:
        label = "natural_gradient: autograd of L through mu"
        found.append(named(label, family, dtype, difference(wide, through_mu)))
    product, by_natural = oracle.fisher_times(family, natural, wide), oracle.gradient_by_natural(family, natural)
    label = "natural_gradient: F times it is dL/dlambda"
    return [*found, named(label, family, dtype, difference(product, by_natural))]


def map_checks(namespace: Any, family: FamilyOracle, dtype: str) -> list[Check]:
    """Expectation parameters and their inverse against autograd of the log-partition."""
    natural, kwargs = sample(family, dtype), family.fixed
    expected = oracle.expectation(family, natural)
    got = namespace.expectation_from_natural(*natural, **kwargs)
    back = namespace.natural_from_expectation(*(slot.astype(dtype) for slot in expected), **kwargs)
    return [
        named("expectation_from_natural: autograd of A", family, dtype, difference(got, expected)),
        named("natural_from_expectation: inverse of autograd of A", family, dtype, difference(back, natural)),
    ]


def scalar_of(value: Any) -> tuple[Array, ...]:
    """Return a number as a result with one slot."""
    return (np.atleast_1d(np.asarray(value, dtype=np.float64)),)


def reduction_checks(namespace: Any, family: FamilyOracle, dtype: str) -> list[Check]:
    """Check log-partition, entropy and KL against torch; they are float64 on exact inputs, whatever the dtype."""
    q, p, kwargs = sample(family, dtype), sample(family, dtype, salt=1), family.fixed
    partition = family.log_partition_tensor(oracle.tensors(q)).item()
    expected = {"log_partition: torch": (namespace.log_partition(*q, **kwargs), partition)}
    a, b = (family.distribution(oracle.tensors(natural)) for natural in (q, p))
    if a is not None:
        entropy, kl = a.entropy().sum().item(), torch.distributions.kl_divergence(a, b).sum().item()
        expected["entropy: torch.distributions"] = namespace.entropy(*q, **kwargs), entropy
        expected["kl: torch.distributions"] = namespace.kl(q, p, **kwargs), kl
    return [
        named(name, family, "float64", difference(scalar_of(got), scalar_of(value)), arrays_of=dtype)
        for name, (got, value) in expected.items()
    ]


def named(name: str, family: FamilyOracle, dtype: str, value: float, arrays_of: str = "") -> Check:
    """One check of this group."""
    return check(
        name, GROUP, family.name, arrays_of or dtype, value, TOLERANCES[dtype], "relative to the largest entry"
    )


def checks(namespace: Any, family: str, dtype: str) -> list[Check]:
    """Return all autograd checks of one family and dtype; none if the family's oracle has no tensor form."""
    found = lookup.family(family)
    if not found.differentiable:
        return []
    return [
        *gradient_checks(namespace, found, dtype),
        *map_checks(namespace, found, dtype),
        *reduction_checks(namespace, found, dtype),
    ]
