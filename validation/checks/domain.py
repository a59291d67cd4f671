"""Checks that a value outside its domain raises ValueError with the index of the first one, and no silent NaN.

A check plants one bad number in valid arguments and counts the calls that raise no ValueError with its index; the
tolerance is 0. Positive slots get 0, a negative number, NaN and infinity; real slots get NaN and infinity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calls import Call, invoke
from ..check import Check, check
from ..oracles import lookup
from ..oracles.families import full_gaussian
from ..oracles.family import NOT_FINITE, FactorisingOracle, Slots
from ..points import generator
from .elementwise import coordinates
from .reductions import sums_of

GROUP = "domain"
SIZE = 13
PLACE = 4
NOT_POSITIVE = (0.0, -0.5, np.nan, np.inf)


@dataclass(frozen=True)
class Fault:
    """A bad value for one array of a call."""

    array: int
    value: float


def planted(call: Call, fault: Fault) -> Call:
    """Return the call with the fault at index `PLACE` of one of its arrays."""
    copies = [array.copy() for array in call.arrays()]
    copies[fault.array][PLACE] = fault.value
    remaining = iter(copies)
    return call.mapped(lambda _array: next(remaining))


def complaint(namespace: Any, call: Call, index: str) -> str:
    """Return how a call fails to raise ValueError with the given index, or an empty string."""
    try:
        invoke(namespace, call)
    except ValueError as error:
        return "" if index in str(error) else f"does not name {index}: {error}"
    except Exception as error:  # any other type is a failure of the check
        return f"{type(error).__name__}: {error}"
    return "was accepted"


def faults_of_natural(oracle: FactorisingOracle, first: int = 0) -> Iterator[Fault]:
    """Yield the bad values for the slots of a natural parameter, those that only all slots show among them."""
    yield from faults_of(oracle.domains, first)
    yield from (Fault(first + slot, value) for slot, value in oracle.joint_faults)


def faults_of(domains: Sequence[str], first: int = 0) -> Iterator[Fault]:
    """Yield the bad values for the slots of one parameter, which start at array `first`."""
    for slot, domain in enumerate(domains):
        for value in NOT_POSITIVE if domain == "positive" else NOT_FINITE:
            yield Fault(first + slot, value)


def good(family: str, domains: Sequence[str], dtype: str) -> Slots:
    """Return a standard parameter inside the domain."""
    rng = generator("domain", family, dtype, 0)
    return tuple(rng.uniform(0.5, 2.0, SIZE).astype(dtype) for _ in domains)


def cases(family: str, dtype: str) -> Iterator[tuple[Call, list[Fault]]]:
    """Yield calls inside the domain and the faults to plant in them."""
    oracle = coordinates(family)
    kwargs, faults = oracle.fixed, list(faults_of_natural(oracle))
    natural, other = (oracle.well_inside(generator("domain", family, dtype, salt), SIZE, dtype) for salt in range(2))
    standard = good(family, oracle.standard_domains, dtype)
    yield Call("natural_from_standard", standard, kwargs=kwargs), list(faults_of(oracle.standard_domains))
    for function in ("standard_from_natural", "expectation_from_natural", *sums_of(family)):
        yield Call(function, natural, kwargs=kwargs), faults
    both = faults + list(faults_of_natural(oracle, len(natural)))
    yield Call("kl", (natural, other), kwargs=kwargs), both
    # the metric may be independent of a slot whose domain is the whole line
    told = oracle.joint_faults
    half_lines = [f for f in faults if oracle.domains[f.array] == "positive" or (f.array, f.value) in told]
    along = ("whiten", "margin") if told else ("whiten",)
    for function in along:
        yield Call(function, (natural, other), kwargs=kwargs), half_lines
    theta = oracle.theta_slots(generator("domain", family, dtype, "theta"), SIZE, dtype)
    for function, first in (("log_density", 0), ("log_marginal", 1), ("conditional", 1))[: 3 if len(theta) > 1 else 1]:
        own, count = theta[first:], len(theta) - first
        planted_theta = list(faults_of(oracle.domains_of_theta[first:]))
        of_slots = half_lines if function == "conditional" else list(faults_of_natural(oracle))
        rest = [Fault(count + fault.array, fault.value) for fault in of_slots]
        yield Call(function, (*own, *natural), kwargs=kwargs), [*planted_theta, *rest]
    mu, planted = oracle.expectation_faults(natural, PLACE)
    yield Call("natural_from_expectation", mu, kwargs=kwargs), [Fault(*fault) for fault in planted]


def elementwise(namespace: Any, family: str, dtype: str) -> Iterator[Check]:
    """Check the faults in the arrays of an elementwise family."""
    for call, faults in cases(family, dtype):
        found = []
        for fault in faults:
            wrong = complaint(namespace, planted(call, fault), f"index {PLACE}")
            if wrong:
                found.append(f"{fault.value} in array {fault.array} {wrong}")
        detail = "; ".join(found) or f"{len(faults)} faults refused"
        yield check(f"{call.function}: refuses faults", GROUP, family, dtype, len(found), 0.0, detail)


def full_cases(dtype: str) -> Iterator[tuple[str, Call, str]]:
    """Yield stacks of three matrices, the second outside the domain, and the index that the error must name."""
    xi, matrix = full_gaussian.natural(5, 10.0, dtype, "domain")
    matrices = np.stack([matrix] * 3)
    vectors = np.stack([xi] * 3)
    indefinite, asymmetric, missing = matrices.copy(), matrices.copy(), matrices.copy()
    indefinite[1, 2, 2] = -0.5
    asymmetric[1, 0, 3] += np.asarray(0.5, dtype)
    missing[1, 2, 2] = np.nan
    for label, bad in (("indefinite", indefinite), ("asymmetric", asymmetric), ("NaN", missing)):
        for function in ("standard_from_natural", "expectation_from_natural", "log_partition", "entropy"):
            yield label, Call(function, (vectors, bad)), "1"
        yield label, Call("kl", ((vectors, matrices), (vectors, bad))), "1"
        yield label, Call("kl", ((vectors, bad), (vectors, matrices))), "1"
    mean = vectors.copy()
    outer = mean[:, :, None] * mean[:, None, :]
    inside = (-0.5 * (outer + np.eye(5))).astype(dtype)
    inside[1] = (-0.5 * (outer[1] - np.eye(5))).astype(dtype)
    yield "indefinite covariance", Call("natural_from_expectation", (mean, inside)), "1"


def full(namespace: Any, family: str, dtype: str) -> Iterator[Check]:
    """Check matrices outside the domain, function by function."""
    found: dict[str, list[str]] = {}
    for label, call, index in full_cases(dtype):
        wrong = complaint(namespace, call, index)
        found.setdefault(call.function, []).extend([f"{label} {wrong}"] if wrong else [])
    for function, wrongs in found.items():
        detail = "; ".join(wrongs) or "faults refused"
        yield check(f"{function}: refuses faults", GROUP, family, dtype, len(wrongs), 0.0, detail)


def checks(namespace: Any, family: str, dtype: str) -> list[Check]:
    """Return all domain checks of one family and dtype."""
    return list((elementwise if lookup.family(family).structure == "coordinates" else full)(namespace, family, dtype))
