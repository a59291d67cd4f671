"""Checks of the reductions of elementwise families along both axes: log-partition, entropy, KL.

Reductions accumulate in float64 whatever the dtype of the arrays, so tolerances do not depend on it. Log-partition and
entropy: 2e-14 of the sum of the coordinates' largest terms for a row of 25 coordinates, 1e-13 for a sum over everything
(the entropy of a gamma, whose terms cancel at a large shape, relative to the larger of its value and 1). KL, relative
to its value: 1e-6 if it is about 1e-12, 1e-10 if it is at least 1e-4, 1e-13 between parameters that differ moderately
or by many decades. KL is 0 between equal arguments and never negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mpmath
import numpy as np

from ..calls import Array
from ..check import Check, check
from ..kept import kept
from ..oracles import lookup
from ..oracles.family import FactorisingOracle, Pair, Slots
from ..points import generator, neighbours
from ..ulps import DIGITS, References, exact, references
from .elementwise import coordinates

WIDTH = 25
LARGE_ROWS = 12_001  # of WIDTH coordinates: above the size at which kernels start to run in parallel
ROW_TOLERANCE = 2e-14
TOTAL_TOLERANCE = 1e-13
KL_TOLERANCES = {1e-12: 1e-6, 1e-8: 1e-8, 1e-4: 1e-10, 1.0: 1e-10, 1e4: 1e-10}
FAR_TOLERANCE = 1e-13
OWN_FAR_TOLERANCES = {"beta": 1e-12}
"""Beta's KL is B(a) + B(b) - B(a + b) and more, B Stirling's divergence: with a small, hardly changed b and an a that
changes much, B(a) and B(a + b) are near equal. A KL that is small against B(a) loses digits in their difference, by
1e-15 times the quotient; 3.2e-13 is the worst of 8000 pairs drawn far apart."""
MODERATE = tuple(0.05 * step for step in range(1, 21))
MODERATE_TOLERANCE = 1e-13


def keywords(family: str) -> dict[str, float]:
    """Return the fixed numbers of a family, which are keywords of its functions."""
    return lookup.family(family).fixed


def sums_of(family: str) -> tuple[str, ...]:
    """The sums of one parameter that a family has."""
    return ("log_partition", "entropy") if coordinates(family).has_entropy else ("log_partition",)


def rows(family: str, dtype: str, count: int) -> Slots:
    """Ordinary natural parameters with ``count`` rows of `WIDTH` coordinates."""
    return coordinates(family).ordinary(generator("reductions", family, dtype, count), (count, WIDTH), dtype)


def near(family: str, dtype: str, target: float, ratio: float, count: int) -> Pair:
    """Return pairs whose KL is about `target`: they differ by sqrt(target) standard deviations, and the mean of a
    Gaussian is `ratio` standard deviations."""
    rng, oracle = generator("near", family, dtype, target, ratio), coordinates(family)
    size = (len(oracle.domains), count, WIDTH)
    step = rng.choice((-1.0, 1.0), size) * rng.uniform(0.5, 1.0, size) * np.sqrt(target)
    step *= rng.random(size) < 0.8  # in some coordinates only one parameter moves, in a few none
    q, p, detail = oracle.near(rng, step, ratio, dtype)
    return Pair(q, p, f"KL about {target:.0e}{detail}")


def moderate(family: str, dtype: str, size: float) -> Pair:
    """Return pairs that differ by about `size` standard deviations or factors exp(size), where series end."""
    rng, oracle = generator("moderate", family, dtype, size), coordinates(family)
    shape = (len(oracle.domains), 1, WIDTH)
    step = size * rng.uniform(0.8, 1.2, shape) * rng.choice((-1.0, 1.0), shape)
    return oracle.moderate_pair(rng, step, dtype)


def with_total(values: list[Any], sizes: list[Any]) -> tuple[References, References]:
    """Return the references of every row and of the sum over everything."""
    return references(values, sizes), references([mpmath.fsum(values)], [mpmath.fsum(sizes)])


def references_of_sums(formula: Callable[[Any], Any], natural: Slots, floor: float) -> tuple[References, References]:
    """Return the exact sums over rows and over everything, relative to Σ over coordinates of the largest term, at least
    `floor`."""
    values, scales = [], []
    for row in zip(*natural, strict=True):
        points = zip(*(exact(slot.tolist()) for slot in row), strict=True)
        terms = [formula(point) for point in points]
        values.append(mpmath.fsum(mpmath.fsum(term) for term in terms))
        scales.append(mpmath.fsum(max(floor, *(abs(part) for part in term)) for term in terms))
    return with_total(values, scales)


def exact_kl(oracle: FactorisingOracle, pair: Pair) -> list[Any]:
    """Return the exact KL of every coordinate, row after row."""
    columns_q = zip(*(exact(slot.ravel().tolist()) for slot in pair.q), strict=True)
    columns_p = zip(*(exact(slot.ravel().tolist()) for slot in pair.p), strict=True)
    return [oracle.kl(q, p) for q, p in zip(columns_q, columns_p, strict=True)]


def references_of_kl(oracle: FactorisingOracle, pair: Pair, family: str) -> tuple[References, References]:
    """Return the exact KL of every row and of everything, relative to itself."""
    arrays = [slot.ravel() for slot in (*pair.q, *pair.p)]
    single = kept(partial(exact_kl, oracle, pair), arrays, family, "kl of coordinates")
    width = pair.p[0].shape[1]
    values = [mpmath.fsum(single[k : k + width]) for k in range(0, len(single), width)]
    return with_total(values, values)


def errors_of(got: Array, expected: References) -> list[float]:
    """Return the error of every row; infinite for a wrong shape or dtype and for NaN."""
    numbers = np.asarray(got)
    if numbers.shape != expected.high.shape or numbers.dtype != np.float64 or not np.all(np.isfinite(numbers)):
        return [float("inf")]
    return expected.errors(numbers)


def sum_checks(namespace: Any, family: str, dtype: str, function: str, count: int) -> Iterator[Check]:
    """Check `log_partition` or `entropy`: one value per row, and the sum over everything."""
    oracle = coordinates(family)
    natural, kwargs = rows(family, dtype, count), oracle.fixed
    formula = oracle.entropy if function == "entropy" else oracle.log_partition
    floor = 1.0 if function == "entropy" else 0.0
    one_row, everything = kept(partial(references_of_sums, formula, natural, floor), natural, family, function)
    reduce = getattr(namespace, function)
    errors = errors_of(reduce(*natural, axis=-1, **kwargs), one_row)
    detail = "relative to the coordinates' largest terms"
    yield check(
        f"{function}: one value per row", "reduction", family, dtype, max(errors), ROW_TOLERANCE, detail, errors
    )
    error = errors_of(np.array([reduce(*natural, **kwargs)], dtype=np.float64), everything)[0]
    yield check(f"{function}: summed", "reduction", family, dtype, error, TOTAL_TOLERANCE, detail)


def kl_errors(namespace: Any, family: str, pair: Pair) -> tuple[list[float], float]:
    """Relative error of every row's KL, and of the sum over everything."""
    oracle = coordinates(family)
    kwargs = oracle.fixed
    one_row, everything = kept(partial(references_of_kl, oracle, pair, family), (*pair.q, *pair.p), family, "kl")
    try:
        errors = errors_of(namespace.kl(pair.q, pair.p, axis=-1, **kwargs), one_row)
        total = np.array([namespace.kl(pair.q, pair.p, **kwargs)], dtype=np.float64)
    except ValueError:  # a finite KL was refused: an infinite error, and the other pairs are still checked
        return [math.inf], math.inf
    return errors, errors_of(total, everything)[0]


def coordinate_pair(pair: Pair) -> Pair:
    """Return the pairs with one coordinate per row, so that no coordinate is hidden by a larger one."""
    return Pair(tuple(s.reshape(-1, 1) for s in pair.q), tuple(s.reshape(-1, 1) for s in pair.p), pair.label)


def kl_checks(namespace: Any, family: str, dtype: str, count: int) -> Iterator[Check]:
    """Check KL from 1e-12 to 1e4, coordinate by coordinate and summed."""
    oracle = coordinates(family)
    for target, tolerance in KL_TOLERANCES.items():
        for ratio in oracle.ratios:
            pair = near(family, dtype, target, ratio, count)
            errors, total = kl_errors(namespace, family, coordinate_pair(pair))
            name = f"kl: {pair.label}"
            yield check(name, "kl", family, dtype, max(errors), tolerance, "relative", errors)
            rowwise, total = kl_errors(namespace, family, pair)
            worst = max(*rowwise, total)
            yield check(f"{name}, summed", "kl", family, dtype, worst, tolerance, "relative", rowwise)
    apart: list[float] = []
    for size in MODERATE:
        apart += kl_errors(namespace, family, coordinate_pair(moderate(family, dtype, size)))[0]
    yield check("kl: moderately apart", "kl", family, dtype, max(apart), MODERATE_TOLERANCE, "relative", apart)
    distant = oracle.far(generator("far", family, dtype, 4 * count), (4 * count, WIDTH), dtype)
    errors, _ = kl_errors(namespace, family, coordinate_pair(distant))
    tolerance = OWN_FAR_TOLERANCES.get(family, FAR_TOLERANCE)
    yield check("kl: far apart", "kl", family, dtype, max(errors), tolerance, "relative", errors)


def sign_check(namespace: Any, family: str, dtype: str, count: int) -> Check:
    """Check that KL is 0 between equal arguments and not negative between arguments that differ by a few ulps."""
    rng = generator("sign", family, dtype, count)
    kwargs = keywords(family)
    p = tuple(slot.reshape(-1, 1) for slot in rows(family, dtype, count))
    same = np.abs(namespace.kl(p, p, axis=-1, **kwargs))
    lowest = [-float(np.max(same))]
    for steps in (1, 4, 64):
        q = tuple(neighbours(slot, rng, steps) for slot in p)
        lowest.append(float(np.min(namespace.kl(q, p, axis=-1, **kwargs))))
    value = -min(lowest) if np.all(np.isfinite(lowest)) else float("nan")
    return check("kl: never negative, 0 at equality", "kl", family, dtype, max(0.0, value), 0.0, "most negative value")


def large_check(namespace: Any, family: str, dtype: str) -> Check:
    """Check that a parallel sum equals the exactly rounded sum of the coordinates' values."""
    natural, kwargs = rows(family, dtype, LARGE_ROWS), keywords(family)
    flat = tuple(slot.ravel() for slot in natural)
    other = tuple(np.ascontiguousarray(np.roll(slot, 1)) for slot in flat)
    single, neighbour = (tuple(slot.reshape(-1, 1) for slot in slots) for slots in (flat, other))
    worst = 0.0
    calls = [(getattr(namespace, name), flat, single) for name in sums_of(family)]
    pairs = [(f(*a, **kwargs), f(*b, axis=-1, **kwargs)) for f, a, b in calls]
    pairs.append((namespace.kl(flat, other, **kwargs), namespace.kl(single, neighbour, axis=-1, **kwargs)))
    for total, parts in pairs:
        worst = max(worst, abs(total - math.fsum(parts)) / math.fsum(np.abs(parts)))
    detail = "relative to the sum of magnitudes"
    return check("reductions: above the parallel size", "reduction", family, dtype, worst, TOTAL_TOLERANCE, detail)


def checks(namespace: Any, family: str, dtype: str, count: int = 8, large: bool = True) -> list[Check]:
    """Return all reduction checks of one elementwise family and dtype."""
    with mpmath.workdps(DIGITS):
        found = [c for name in sums_of(family) for c in sum_checks(namespace, family, dtype, name, count)]
        found += kl_checks(namespace, family, dtype, max(count // 4, 1))
    found.append(sign_check(namespace, family, dtype, count))
    if large:
        found.append(large_check(namespace, family, dtype))
    return found
