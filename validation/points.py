"""Seeded test points: ordinary ones, edges of the number range, and the points where a formula cancels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calls import Call
from .ulps import epsilon

Array = NDArray[Any]

ELEMENTWISE = ("isotropic_gaussian", "diagonal_gaussian", "gamma")
FAMILIES = ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian", "gamma")
OPTIMIZERS = ("ivon",)
DTYPES = ("float32", "float64")

# Fixed precisions that both types hold exactly, so that the oracle and the kernel start from one number.
ISOTROPIC_PRECISIONS = (1.0, float(np.float32(0.3)), 2.0**-20, 1e4)

# Decades that linear formulas, and formulas with squares and products of three factors, can span without overflow.
LINEAR_DECADES = {"float32": 30.0, "float64": 280.0}
SQUARE_DECADES = {"float32": 9.0, "float64": 70.0}


def generator(*key: object) -> np.random.Generator:
    """A generator seeded by the words of ``key``: the same points on every run and machine."""
    return np.random.default_rng(list("/".join(str(part) for part in key).encode()))


def spread(rng: np.random.Generator, count: int, decades: float, signed: bool, dtype: str) -> Array:
    """Numbers whose magnitudes are log-uniform over ``10**-decades .. 10**decades``."""
    values = 10.0 ** rng.uniform(-decades, decades, count)
    if signed:
        values *= rng.choice((-1.0, 1.0), count)
    return values.astype(dtype)


def edges(decades: float, signed: Sequence[bool], dtype: str) -> list[Array]:
    """Every combination of tiny, small, one, large and huge (with both signs where signed) over the given slots."""
    magnitudes = [10.0**power for power in (-decades, -decades / 3, 0.0, decades / 3, decades)]
    choices = [[-value for value in magnitudes] + magnitudes if sign else magnitudes for sign in signed]
    grid = np.array(list(itertools.product(*choices)))
    if len(grid) > 1000:
        grid = grid[:: len(grid) // 1000 + 1]
    return [np.ascontiguousarray(column).astype(dtype) for column in grid.T]


def neighbours(values: Array, rng: np.random.Generator, steps: int) -> Array:
    """Numbers within ``steps`` units of relative spacing of ``values``."""
    shifts = rng.integers(-steps, steps + 1, values.shape) * epsilon(str(values.dtype))
    return np.asarray(values * (1.0 + shifts), dtype=values.dtype)


def slot_signs(family: str) -> tuple[bool, ...]:
    """Whether a natural parameter's slots may be negative."""
    return {"isotropic_gaussian": (True,), "gamma": (False, False)}.get(family, (True, False))


def naturals(family: str, rng: np.random.Generator, count: int, decades: float, dtype: str) -> tuple[Array, ...]:
    """A natural parameter in the domain of an elementwise family."""
    return tuple(spread(rng, count, decades, signed, dtype) for signed in slot_signs(family))


def duals(family: str, rng: np.random.Generator, count: int, decades: float, dtype: str) -> tuple[Array, ...]:
    """A dual of an elementwise family: any real number in every slot."""
    return tuple(spread(rng, count, decades, True, dtype) for _ in slot_signs(family))


def linear_calls(family: str, dtype: str, count: int) -> list[Call]:
    """The ADMM lines, and the two that are fused, at ordinary, cancelling and extreme points."""
    calls: list[Call] = []
    wide = LINEAR_DECADES[dtype] / 2
    for label, decades, scalars in (
        ("generic", 2.0, (0.3, 0.7)),
        ("edges", wide, (1.0, 0.5)),
        ("wide", wide, (7.0, 0.9)),
    ):
        rng = generator(family, dtype, label, count)
        rho, damping = scalars
        prior = naturals(family, rng, count, decades, dtype)
        client = naturals(family, rng, count, decades, dtype)
        dual = duals(family, rng, count, decades, dtype)
        other = duals(family, rng, count, decades, dtype)
        calls += [
            Call("dual_update", (dual, prior, client, rho, damping), label),
            Call("server_contribution", (client, dual, 1.0 / (1.0 + 5.0 * rho), 5), label),
            Call("client_map", (prior, dual, other, rho), label),
            Call("cavity", (prior, dual, rho), label),
            Call("bregman_dual_update", (dual, other, client, rho, damping), label),
            Call("contribution_change", (client, dual, prior, other, 1.0 / (1.0 + 5.0 * rho), 5), label),
            Call("primal_residual", (client, prior), label),
            Call("dual_residual", (client, prior, dual), label),
            Call("server_update", (prior, other, 1.0 / (1.0 + 5.0 * rho)), label),
            Call("round_update", (dual, prior, client, rho, damping, 1.0 / (1.0 + 5.0 * rho), 5), label),
        ]
    return calls + cancelling_linear_calls(family, dtype, count)


def cancelling_linear_calls(family: str, dtype: str, count: int) -> list[Call]:
    """The ADMM lines where their terms nearly annihilate: at convergence, all of them do."""
    rng = generator(family, dtype, "cancelling", count)
    rho, damping, alpha, clients = 0.3, 0.7, 0.4, 5
    prior = naturals(family, rng, count, 3.0, dtype)
    client = tuple(neighbours(slot, rng, 3) for slot in prior)
    dual = duals(family, rng, count, 3.0, dtype)
    apart = naturals(family, rng, count, 3.0, dtype)
    coefficient = (1.0 - alpha) / clients / alpha
    opposite = tuple(
        neighbours((-damping * rho * (a - b)).astype(dtype), rng, 3) for a, b in zip(prior, apart, strict=True)
    )
    balanced = tuple(neighbours((coefficient * slot).astype(dtype), rng, 3) for slot in client)
    gradient = tuple(neighbours(slot, rng, 3) for slot in dual)
    beyond = tuple(neighbours((a + rho * b).astype(dtype), rng, 3) for a, b in zip(dual, prior, strict=True))
    pulled = tuple(neighbours((-rho * slot).astype(dtype), rng, 3) for slot in prior)
    total = tuple(neighbours((-alpha * slot).astype(dtype), rng, 3) for slot in prior)
    return [
        Call("dual_update", (dual, prior, client, rho, damping), "client at the server"),
        Call("dual_update", (opposite, prior, apart, rho, damping), "dual cancels the step"),
        Call("server_contribution", (client, balanced, alpha, clients), "dual cancels the client"),
        Call("client_map", (prior, dual, gradient, rho), "gradient at the dual"),
        Call("cavity", (prior, pulled, rho), "dual cancels the server"),
        Call("bregman_dual_update", (opposite, prior, apart, rho, damping), "dual cancels the step"),
        Call("contribution_change", (client, dual, prior, gradient, alpha, clients), "nothing moved"),
        Call("primal_residual", (client, prior), "client at the server"),
        Call("dual_residual", (client, prior, dual), "server at the prior"),
        Call("client_map", (prior, dual, beyond, rho), "step cancels the server"),
        Call("server_update", (prior, total, alpha), "total cancels the prior"),
        Call("round_update", (dual, prior, client, rho, damping, alpha, clients), "client at the server"),
        Call("round_update", (opposite, prior, apart, rho, damping, alpha, clients), "dual cancels the step"),
        Call("round_update", (balanced, prior, client, rho, damping, alpha, clients), "dual cancels the client"),
    ]


def map_calls(family: str, dtype: str, count: int) -> list[Call]:
    """The parameter maps and the natural gradient of an elementwise family at ordinary and extreme points."""
    builders = {"isotropic_gaussian": isotropic_calls, "diagonal_gaussian": diagonal_calls, "gamma": gamma_calls}
    return builders[family](dtype, count)


def isotropic_calls(dtype: str, count: int) -> list[Call]:
    """The isotropic maps at several fixed precisions, and its natural gradient with and without a Hessian."""
    calls: list[Call] = []
    for precision in ISOTROPIC_PRECISIONS:
        rng = generator("isotropic", dtype, precision)
        values = spread(rng, max(count // 4, 8), LINEAR_DECADES[dtype] / 2, True, dtype)
        for function in (
            "natural_from_standard",
            "standard_from_natural",
            "expectation_from_natural",
            "natural_from_expectation",
        ):
            calls.append(Call(function, (values,), f"precision {precision:.3g}", {"precision": precision}))
    rng = generator("isotropic", dtype, "gradient")
    mean, gradient, hessian = (spread(rng, count, 2.0, True, dtype) for _ in range(3))
    return [
        *calls,
        Call("natural_gradient", (mean, gradient, hessian)),
        Call("natural_gradient", (mean, gradient, None), "no Hessian"),
    ]


def diagonal_calls(dtype: str, count: int) -> list[Call]:
    """The diagonal maps; edges, a gradient at H m, and a second moment at the squared mean included."""
    rng = generator("diagonal", dtype, count)
    mean, precision = spread(rng, count, 2.0, True, dtype), spread(rng, count, 3.0, False, dtype)
    edge_mean, edge_precision = edges(SQUARE_DECADES[dtype], (True, False), dtype)
    gradient, hessian = spread(rng, count, 2.0, True, dtype), spread(rng, count, 2.0, True, dtype)
    balanced = neighbours((hessian * mean).astype(dtype), rng, 3)
    edge_triple = edges(SQUARE_DECADES[dtype], (True, True, True), dtype)
    calls = [
        Call("natural_gradient", (mean, gradient, hessian)),
        Call("natural_gradient", (mean, balanced, hessian), "gradient at Hessian times mean"),
        Call("natural_gradient", tuple(edge_triple), "edges"),
        Call("natural_from_expectation", expectation_points(mean, precision, dtype)),
        Call("natural_from_expectation", expectation_points(edge_mean, edge_precision, dtype), "edges"),
        Call(
            "natural_from_expectation", cancelling_expectations(mean, rng, dtype), "second moment at the squared mean"
        ),
    ]
    for label, pair in (("generic", (mean, precision)), ("edges", (edge_mean, edge_precision))):
        natural = (np.asarray(pair[0] * pair[1], dtype=dtype), pair[1])
        calls += [
            Call("natural_from_standard", pair, label),
            Call("standard_from_natural", natural, label),
            Call("expectation_from_natural", natural, label),
        ]
    return calls


def gamma_calls(dtype: str, count: int) -> list[Call]:
    """The gamma maps over shapes 1e-4 .. 1e8, and gradients whose terms cancel."""
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


def inside(mean: float, second: float) -> bool:
    """Whether the variance -2 second - mean**2 is positive, decided without rounding."""
    return -2 * Fraction(second) - Fraction(mean) ** 2 > 0


def expectation_points(mean: Array, precision: Array, dtype: str) -> tuple[Array, ...]:
    """(mean, -(1/precision + mean**2)/2) rounded to ``dtype``, kept where still in the domain."""
    wide = mean.astype("float64")
    second = (-0.5 * (1.0 / precision.astype("float64") + wide * wide)).astype(dtype)
    keep = np.array([inside(m, s) for m, s in zip(mean.tolist(), second.tolist(), strict=True)])
    return mean[keep], second[keep]


def cancelling_expectations(mean: Array, rng: np.random.Generator, dtype: str) -> tuple[Array, ...]:
    """Second moments a few ulps from the boundary -2 second = mean**2, where the variance loses its leading digits."""
    wide = mean.astype("float64")
    inflated = wide * wide * (1.0 + rng.integers(1, 9, mean.shape) * epsilon(dtype))
    second = (-0.5 * inflated).astype(dtype)
    keep = np.array([inside(m, s) for m, s in zip(mean.tolist(), second.tolist(), strict=True)])
    return mean[keep], second[keep]
