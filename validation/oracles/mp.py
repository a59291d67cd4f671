"""Closed forms of every elementwise kernel, stated by hand and evaluated with mpmath at 50 digits on the exact inputs.

Each oracle returns, for every slot of the result, the list of its terms (see `validation.ulps`). The formulas are those
of the exponential families with T = (theta, -theta^2/2) for Gaussians and (log theta, -theta) for the gamma; they are
written here a second time on purpose, and nothing is taken from the derivation.

The terms that set the scale of an error:

    dual_update           eta,  c (lambda_g - lambda_k)           c = damping * rho
    server_contribution   c lambda_k,  -alpha eta                 c = (1 - alpha) / K
    client_map            lambda_g,  (eta - gradient) / rho
    cavity                lambda_g,  eta / rho
    bregman_dual_update   eta,  c (mu_g - mu_k)               c = damping * rho
    contribution_change   c (lambda_k - old),  -alpha (eta - old)  c = (1 - alpha) / K
    primal_residual       lambda_k,  -lambda_g
    dual_residual         lambda_g,  -lambda_0,  sum of eta
    server_update         alpha lambda_0,  total
    round_update          those of dual_update;  c lambda_k,  -alpha eta,  -alpha damping rho (lambda_g - lambda_k)
    expectation (diag.)   mean;  -1/(2 S),  -mean^2/2
    natural_gradient      g, -H m;  -H                            gamma: each product over shape*trigamma(shape) - 1
    all other maps        the result itself (a product or a quotient)

The scalars c, 1/rho and alpha are formed in float64 and rounded once to the type of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath

from ..ulps import Terms, rounded

Point = Sequence[Any]  # the mpmath inputs at one coordinate, slots in order
SlotTerms = list[Terms]


def dual_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """eta + damping rho (lambda_g - lambda_k) in one slot."""
    dual, natural_global, natural_client = slot
    rho, damping = scalars
    return [dual, rounded(damping * rho, dtype) * (natural_global - natural_client)]


def contribution_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """(1 - alpha)/K lambda_k - alpha eta_k in one slot."""
    natural_client, dual = slot
    alpha, clients = scalars
    return [rounded((1.0 - alpha) / clients, dtype) * natural_client, -rounded(alpha, dtype) * dual]


def client_map_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """lambda_g + (eta - gradient)/rho in one slot."""
    natural_global, dual, gradient = slot
    return [natural_global, rounded(1.0 / scalars[0], dtype) * (dual - gradient)]


def cavity_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """lambda_g + eta/rho in one slot."""
    natural_global, dual = slot
    return [natural_global, rounded(1.0 / scalars[0], dtype) * dual]


def change_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """(1 - alpha)/K (lambda_k - old) - alpha (eta_k - old) in one slot."""
    natural_client, dual, natural_old, dual_old = slot
    return contribution_terms((natural_client - natural_old, dual - dual_old), scalars, dtype)


def primal_terms(slot: Point, _scalars: Sequence[float], _dtype: str) -> Terms:
    """lambda_k - lambda_g in one slot."""
    natural_client, natural_global = slot
    return [natural_client, -natural_global]


def residual_terms(slot: Point, _scalars: Sequence[float], _dtype: str) -> Terms:
    """lambda_g - lambda_0 + sum of eta_k in one slot."""
    natural_global, prior, dual_total = slot
    return [natural_global, -prior, dual_total]


def server_update_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """alpha lambda_0 + total in one slot."""
    prior, total = slot
    return [rounded(scalars[0], dtype) * prior, total]


def new_dual_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """The dual of `round_update`: that of `dual_update`."""
    return dual_terms(slot, scalars[:2], dtype)


def new_contribution_terms(slot: Point, scalars: Sequence[float], dtype: str) -> Terms:
    """(1 - alpha)/K lambda_k - alpha (eta + damping rho (lambda_g - lambda_k)) in one slot."""
    client_term, _ = contribution_terms((slot[2], slot[0]), scalars[2:], dtype)
    alpha = rounded(scalars[2], dtype)
    return [client_term, *(-alpha * term for term in new_dual_terms(slot, scalars, dtype))]


# One formula (a result) serves every slot of every family: the ADMM lines are linear in the natural parameter.
LINEAR: Mapping[str, Sequence[Callable[[Point, Sequence[float], str], Terms]]] = {
    "dual_update": (dual_terms,),
    "server_contribution": (contribution_terms,),
    "client_map": (client_map_terms,),
    "cavity": (cavity_terms,),
    "bregman_dual_update": (dual_terms,),
    "contribution_change": (change_terms,),
    "primal_residual": (primal_terms,),
    "dual_residual": (residual_terms,),
    "server_update": (server_update_terms,),
    "round_update": (new_dual_terms, new_contribution_terms),
}


# Lines whose terms are differences that are rounded themselves: each may add ulps as a line of its own does.
DIFFERENCES: Mapping[str, int] = {"contribution_change": 2}


def diagonal_natural_from_standard(point: Point) -> SlotTerms:
    """(S m, S)."""
    mean, precision = point
    return [[precision * mean], [precision]]


def diagonal_standard_from_natural(point: Point) -> SlotTerms:
    """(xi / S, S)."""
    xi, precision = point
    return [[xi / precision], [precision]]


def diagonal_expectation(point: Point) -> SlotTerms:
    """(m, -(1/S + m^2)/2), m = xi / S."""
    xi, precision = point
    mean = xi / precision
    return [[mean], [-1 / (2 * precision), -mean * mean / 2]]


def diagonal_natural_from_expectation(point: Point) -> SlotTerms:
    """(m / V, 1 / V), V = -2 mu_2 - m^2."""
    mean, second = point
    variance = -2 * second - mean * mean
    return [[mean / variance], [1 / variance]]


def diagonal_natural_gradient(point: Point) -> SlotTerms:
    """(g - H m, -H): Bonnet and Price."""
    mean, gradient, hessian = point
    return [[gradient, -hessian * mean], [-hessian]]


def gamma_identity(point: Point) -> SlotTerms:
    """The natural parameter is (shape, rate) itself."""
    return [[point[0]], [point[1]]]


def gamma_expectation(point: Point) -> SlotTerms:
    """(digamma(a) - log b, -a/b)."""
    shape, rate = point
    return [[mpmath.digamma(shape), -mpmath.log(rate)], [-shape / rate]]


def gamma_natural_gradient(point: Point) -> SlotTerms:
    """F^-1 (dL/da, dL/db) with F = ((trigamma(a), -1/b), (-1/b, a/b^2))."""
    shape, rate, by_shape, by_rate = point
    trigamma = mpmath.psi(1, shape)
    determinant = shape * trigamma - 1
    first = [shape * by_shape / determinant, rate * by_rate / determinant]
    second = [rate * by_shape / determinant, rate * rate * trigamma * by_rate / determinant]
    return [first, second]


def isotropic_maps(precision: float) -> Mapping[str, Callable[[Point], SlotTerms]]:
    """The isotropic family at its fixed precision; natural parameter precision * mean, expectation parameter mean."""
    fixed = mpmath.mpf(precision)

    def times(point: Point) -> SlotTerms:
        return [[fixed * point[0]]]

    def over(point: Point) -> SlotTerms:
        return [[point[0] / fixed]]

    def gradient(point: Point) -> SlotTerms:
        return [[point[1]]]

    return {
        "natural_from_standard": times,
        "standard_from_natural": over,
        "expectation_from_natural": over,
        "natural_from_expectation": times,
        "natural_gradient": gradient,
    }


MAPS: Mapping[str, Mapping[str, Callable[[Point], SlotTerms]]] = {
    "diagonal_gaussian": {
        "natural_from_standard": diagonal_natural_from_standard,
        "standard_from_natural": diagonal_standard_from_natural,
        "expectation_from_natural": diagonal_expectation,
        "natural_from_expectation": diagonal_natural_from_expectation,
        "natural_gradient": diagonal_natural_gradient,
    },
    "gamma": {
        "natural_from_standard": gamma_identity,
        "standard_from_natural": gamma_identity,
        "expectation_from_natural": gamma_expectation,
        "natural_gradient": gamma_natural_gradient,
    },
}


def map_oracle(family: str, function: str, kwargs: Mapping[str, Any]) -> Callable[[Point], SlotTerms]:
    """The oracle of one map of an elementwise family."""
    if family == "isotropic_gaussian":
        return isotropic_maps(kwargs.get("precision", 1.0))[function]
    return MAPS[family][function]
