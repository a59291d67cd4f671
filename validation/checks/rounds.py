"""Checks of a whole round of kernels, and of the sum over clients.

With losses linear in mu (gradients G_k) one round of the four lines has a closed form: the client lands on lambda_g +
(eta_k - G_k)/rho, the dual on G_k at damping 1, and the server at

    lambda_g - lambda* = (rho K - gamma)/(rho K + 1) * sum_k (G_k - eta_k),     alpha = 1/(1 + rho K),

from a start with lambda_g = lambda_0 - sum_k eta_k (one-round theorem). The sum over clients is compared with mpmath in
ulps of the sum of its terms' magnitudes: max(2, sqrt(K)) in float64, whose rounding errors grow like a random walk, and
2 in float32, whose accumulators are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import mpmath
import numpy as np

from ..calls import Array
from ..check import Check, check
from ..kept import kept
from ..oracles import lookup
from ..points import generator
from ..ulps import DIGITS, References, epsilon, exact, references, rounded, unit

CLIENTS = (1, 5, 100)
SETTINGS = ((1.0, 1.0), (0.2, 1.0), (0.7, 0.5), (3.0, 0.25))
Slots = tuple[Array, ...]


def total_check(namespace: Any, family: str, dtype: str, clients: int, size: int) -> Check:
    """Check `server_total` against mpmath."""
    rng = generator("total", family, dtype, clients)
    oracle = lookup.family(family)
    client = oracle.naturals(rng, size, clients, dtype)
    dual = tuple(slot.astype(dtype) for slot in oracle.gradients(rng, size, clients))
    alpha = 1.0 / (1.0 + 0.3 * clients)
    got = namespace.server_total(client, dual, alpha)
    errors: list[float] = []
    for sums, own, other in zip(got, client, dual, strict=True):
        compute = partial(total_references, own, other, alpha, dtype)
        errors += kept(compute, (own, other), "server_total", alpha, dtype).errors(sums)
    tolerance = max(2.0, math.sqrt(clients)) if dtype == "float64" else 2.0
    detail = "ulp of the sum of the terms' magnitudes"
    return check(f"server_total: {clients} clients", "ulp", family, dtype, max(errors), tolerance, detail, errors)


def total_references(naturals: Array, duals: Array, alpha: float, dtype: str) -> References:
    """Return the exact sums over clients, with errors in ulps of the sum of the terms' magnitudes."""
    mean, minus = rounded((1.0 - alpha) / len(naturals), dtype), -rounded(alpha, dtype)
    columns = zip(naturals.reshape(len(naturals), -1).T, duals.reshape(len(duals), -1).T, strict=True)
    terms = [[*(mean * x for x in exact(own)), *(minus * x for x in exact(dual))] for own, dual in columns]
    sizes = (unit(mpmath.fsum(abs(term) for term in column), dtype) for column in terms)
    return references(map(mpmath.fsum, terms), sizes)


def contribution_check(namespace: Any, family: str, dtype: str, size: int) -> Check:
    """Check that `server_total` equals the sum of `server_contribution` over clients."""
    rng, clients = generator("contribution", family, dtype), 6
    oracle = lookup.family(family)
    client = oracle.naturals(rng, size, clients, dtype)
    dual = tuple(slot.astype(dtype) for slot in oracle.gradients(rng, size, clients))
    total = namespace.server_total(client, dual, 0.4)
    parts = namespace.server_contribution(client, dual, 0.4, clients)
    worst = 0.0
    for sums, terms in zip(total, parts, strict=True):
        wide = terms.astype("float64")
        difference = np.abs(sums.astype("float64") - wide.sum(axis=0)) / np.abs(wide).sum(axis=0)
        worst = max(worst, float(np.max(difference)) / epsilon(dtype))
    detail = "relative spacings of the sum of magnitudes"
    return check("server_total: sum of contributions", "ulp", family, dtype, worst, 4.0, detail)


def round_values(namespace: Any, family: str, dtype: str, clients: int, rho: float, damping: float) -> dict[str, float]:
    """Return errors of client, dual and server after one round with linear losses, in relative spacings."""
    rng, size, oracle = generator("round", family, dtype, clients, rho, damping), 4, lookup.family(family)
    gradient = tuple(slot.astype(dtype) for slot in oracle.gradients(rng, size, clients))
    dual = tuple((0.25 * slot).astype(dtype) for slot in gradient)
    prior = tuple(slot.astype(dtype) for slot in oracle.prior(rng, size))
    server = tuple((a - b.astype("float64").sum(axis=0)).astype(dtype) for a, b in zip(prior, dual, strict=True))
    alpha = 1.0 / (1.0 + rho * clients)

    client = namespace.client_map(server, dual, gradient, rho)
    moved = namespace.dual_update(dual, server, client, rho, damping)
    new = namespace.server_update(prior, namespace.server_total(client, moved, alpha), alpha)

    factor = (rho * clients - damping) / (rho * clients + 1.0)
    values = {"client": 0.0, "dual": 0.0, "server": 0.0}
    for s, g, e, p, k, m, n in zip(server, gradient, dual, prior, client, moved, new, strict=True):
        s, g, e, p = (array.astype("float64") for array in (s, g, e, p))
        size_of = np.abs(g).sum(axis=0) + np.abs(e).sum(axis=0) + np.abs(p) + np.abs(s)
        wanted = p - g.sum(axis=0) + factor * (g - e).sum(axis=0)
        values["client"] = max(values["client"], gap(k, s + (e - g) / rho, (size_of + size_of / rho) * epsilon(dtype)))
        values["dual"] = max(values["dual"], gap(m, e + damping * (g - e), (1.0 + rho) * size_of * epsilon(dtype)))
        values["server"] = max(values["server"], gap(n, wanted, (1.0 + 1.0 / rho) * size_of * epsilon(dtype)))
    return values


def gap(got: Array, wanted: Array, scale: Array) -> float:
    """Largest difference in units of ``scale``."""
    return float(np.max(np.abs(got.astype("float64") - wanted) / scale))


def round_checks(namespace: Any, family: str, dtype: str) -> Iterator[Check]:
    """Check one round at every penalty and damping, with 1 and with 7 clients."""
    for rho, damping in SETTINGS:
        worst: dict[str, list[float]] = {}
        for clients in (1, 7):
            for name, value in round_values(namespace, family, dtype, clients, rho, damping).items():
                worst.setdefault(name, []).append(value)
        for name, values in worst.items():
            label = f"round with linear losses, {name}: penalty {rho}, damping {damping}"
            detail = "relative spacings of the sum of magnitudes"
            yield check(label, "closed form", family, dtype, np.max(values), 4.0, detail, values)


def path_checks(namespace: Any, family: str, dtype: str, rounds: int = 12, clients: int = 4) -> Iterator[Check]:
    """Check twelve rounds at damping 1: the first leaves the theorem's error, later ones multiply it by 1 - alpha."""
    rng, oracle = generator("path", family, dtype), lookup.family(family)
    gradient = tuple(slot.astype(dtype) for slot in oracle.gradients(rng, 4, clients))
    prior = tuple(slot.astype(dtype) for slot in oracle.prior(rng, 4))
    total = tuple(slot.astype("float64").sum(axis=0) for slot in gradient)
    for penalty in (0.3, 1.0, 3.0):
        rho, alpha = penalty / clients, 1.0 / (1.0 + penalty)
        server, dual, curve, worst = prior, tuple(np.zeros_like(slot) for slot in gradient), [], 0.0
        for step in range(rounds):
            client = namespace.client_map(server, dual, gradient, rho)
            dual = namespace.dual_update(dual, server, client, rho, 1.0)
            server = namespace.server_update(prior, namespace.server_total(client, dual, alpha), alpha)
            left = (penalty - 1.0) / (penalty + 1.0) * (1.0 - alpha) ** step
            sizes = [np.linalg.norm(p) + np.linalg.norm(t) for p, t in zip(prior, total, strict=True)]
            away = [s - (p.astype("float64") - t) for s, p, t in zip(server, prior, total, strict=True)]
            curve.append(max(float(np.linalg.norm(a) / n) for a, n in zip(away, sizes, strict=True)))
            gaps = [np.linalg.norm(a - left * t) / n for a, t, n in zip(away, total, sizes, strict=True)]
            worst = max(worst, float(np.max(gaps)) / epsilon(dtype))
        name, detail = f"rounds with linear losses: rho K = {penalty}", "relative spacings of prior and gradients"
        yield check(name, "closed form", family, dtype, worst, 4.0, detail, curve=curve)


def checks(namespace: Any, family: str, dtype: str, size: int = 9) -> list[Check]:
    """Return the checks of sums over clients and whole rounds of one family and dtype."""
    with mpmath.workdps(DIGITS):
        found = [total_check(namespace, family, dtype, clients, size) for clients in CLIENTS]
    found.append(contribution_check(namespace, family, dtype, size))
    found += path_checks(namespace, family, dtype)
    return found + list(round_checks(namespace, family, dtype))
