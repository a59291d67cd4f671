"""Checks of the likelihoods' expectations against the losses of their oracles (`validation.oracles.likelihood`).

Under full, diagonal and isotropic Gaussians: E l, E grad l and E Hessian l to 1e-11 of the size of their terms. Under a
family that a loss is conjugate to: E l and the natural gradient to 1e-12 of the larger of 1 and the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

import badmm
from badmm.families import registry

from ..calls import Array
from ..check import Check, check
from ..oracles.likelihood import GaussianCase, Moments, NoiseRegression, Rate
from ..points import generator

GROUP = "likelihood"
TOLERANCE = 1e-11
RATE_TOLERANCE = 1e-12
DETAIL = "relative to the size of the terms"


def posteriors(dimension: int) -> Iterator[tuple[str, Array, Array, Array]]:
    """Yield (kind, mean, precision, covariance) with a precision matrix, vector and number."""
    rng = generator("likelihood posteriors", dimension)
    factor, mean = rng.normal(size=(dimension, dimension)), rng.normal(size=dimension)
    matrix, vector = factor @ factor.T + np.eye(dimension), rng.uniform(0.5, 3.0, dimension)
    yield "full", mean, matrix, np.linalg.inv(matrix)
    yield "diagonal", mean, vector, np.diag(1.0 / vector)
    yield "isotropic", mean, np.asarray(1.75), np.eye(dimension) / 1.75


def differences(got: tuple[Any, Any, Any], expected: Moments) -> list[float]:
    """Return the errors of (E l, E grad l, E Hessian l) relative to their terms; infinite for a wrong shape."""
    value, gradient, hessian = got
    wanted = expected.hessian if hessian is None or np.ndim(hessian) == 2 else np.diag(expected.hessian)
    pairs: list[tuple[Any, Any]] = [(value, expected.value), (gradient, expected.gradient)]
    pairs.append((wanted if hessian is None else hessian, wanted))
    found = []
    for (a, b), scale in zip(pairs, expected.scales, strict=True):
        same = np.shape(a) == np.shape(b) and bool(np.all(np.isfinite(a)))
        found.append(float(np.max(np.abs(np.asarray(a) - b))) / scale if same else np.inf)
    return found


def gaussian_checks(name: str, case: GaussianCase) -> Iterator[Check]:
    """Check the expectations per posterior, the whole Hessian of clients that have it, and the delta method."""
    for kind, mean, precision, covariance in posteriors(case.dimension):
        posterior = badmm.Gaussian(mean, precision)
        expected = case.moments(mean, covariance, False)
        delta = case.moments(mean, covariance, True)
        results = {"": (case.client.expectations(posterior), expected)}
        if kind == "diagonal" and hasattr(case.client, "curvature"):
            results[", whole Hessian"] = case.client.curvature(posterior), expected
        if hasattr(case.client, "configured"):
            results[", delta"] = case.client.configured("delta").expectations(posterior), delta
        for detail, (got, wanted) in results.items():
            label = f"{name}: {case.label}, {kind}{detail}"
            yield check(label, GROUP, name, "float64", np.max(differences(got, wanted)), TOLERANCE, DETAIL)


def rate_checks(name: str, case: Rate) -> Iterator[Check]:
    """Check E l and the natural gradient under the family that the loss is conjugate to."""
    rng, count = generator("likelihood rates", name), len(case.losses)
    first, second = rng.uniform(0.6, 9.0, count), rng.uniform(0.4, 3.0, count)
    values, gradients = zip(*case.moments(first, second), strict=True)
    gradient = np.array([[float(x) for x in row] for row in gradients]).T
    kind: Any = registry.distribution(case.family)
    posterior = kind(first, second)
    yield from conjugate_checks(name, case, posterior, float(sum(values)), gradient)


def noise_checks(name: str, case: NoiseRegression) -> Iterator[Check]:
    """Check E l and the natural gradient under a Gaussian-gamma."""
    mean, precision, shape, rate = np.array([0.4, -0.9]), np.array([[2.5, 0.7], [0.7, 1.5]]), 3.5, 1.25
    value, gradient = case.moments(mean, precision, shape, rate)
    posterior = badmm.GaussianGamma(mean, precision, shape, rate)
    yield from conjugate_checks(name, case, posterior, float(value), np.array([float(x) for x in gradient]))


def lower_triangles(slots: Any) -> Array:
    """The slots in one array: of matrices the lower triangle; as they are where all are of one shape."""
    if len({np.shape(slot) for slot in slots}) == 1:
        return np.array(slots)
    return np.concatenate([slot[np.tril_indices(len(slot))] if np.ndim(slot) == 2 else slot for slot in slots])


def conjugate_checks(
    name: str, case: Rate | NoiseRegression, posterior: Any, value: float, gradient: Array
) -> Iterator[Check]:
    """Check E l and the natural gradient against what an oracle found."""
    pairs = {
        "natural gradient": (lower_triangles(case.client.natural_gradient(posterior)), gradient),
        "expected loss": (np.array(case.client.expected_loss(posterior)), np.array(value)),
    }
    for label, (got, wanted) in pairs.items():
        error = (
            np.max(np.abs(got - wanted)) / max(1.0, float(np.max(np.abs(wanted))))
            if got.shape == wanted.shape
            else np.inf
        )
        yield check(f"{name}: {case.label}, {label}", GROUP, name, "float64", error, RATE_TOLERANCE, "relative")


def checks(name: str, cases: Callable[[], Iterable[Any]]) -> list[Check]:
    """Return the checks of all cases of one likelihood."""
    found: list[Check] = []
    for case in cases():
        if isinstance(case, Rate):
            found += rate_checks(name, case)
        elif isinstance(case, NoiseRegression):
            found += noise_checks(name, case)
        else:
            found += gaussian_checks(name, case)
    return found
