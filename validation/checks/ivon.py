"""Checks of the IVON kernels: the generator's known answers, accuracy of every sweep against mpmath, and independence
of layout, rows, threads, and of whether normals are stored or drawn again.

Accuracy: at most `NORMAL_ULPS` for a normal, relative to the exact Box-Muller transform of its words, and `ULPS` of the
largest term for a sweep. All other checks are equalities bit for bit: their value is the number of coordinates that
differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import mpmath
import numpy as np

from ..check import Check, check
from ..kept import kept
from ..oracles.optimizers import ivon as oracle
from ..points import Array, generator
from ..ulps import DIGITS, References, exact, in_ulps
from .layout import different

FAMILY = "ivon"
NORMAL_ULPS = 4.0
ULPS = 4.0
LARGE = 300_001  # odd, and above the size at which kernels start to run in parallel
SIZES = (1, 2, 31, 33, 127, 129, 255, 257, 1023)
ADDRESSES = ((0, 0), (2**64 - 1, 2**64 - 1), (0x0123456789ABCDEF, 7), (42, 2**40 + 1))
HYPER = {"ess": 3e3, "lr": 0.03, "beta1": 0.9, "beta2": 0.97, "debias": 0.4}
DIFFER = "coordinates that differ"


def bitwise(name: str, dtype: str, left: Iterable[Array], right: Iterable[Array]) -> Check:
    """Check that two results are equal bit for bit."""
    return check(name, "layout", FAMILY, dtype, different(tuple(left), tuple(right)), 0.0, DIFFER)


def points(dtype: str, shape: tuple[int, ...], key: str = "points") -> dict[str, Array]:
    """A state, a gradient, normals and a cavity, over a few decades."""
    rng = generator("ivon", key, dtype, shape)
    size = int(np.prod(shape))

    def spread(low: float, high: float, signed: bool) -> Array:
        values = 10.0 ** rng.uniform(low, high, size)
        return (values * rng.choice((-1.0, 1.0), size) if signed else values).astype(dtype).reshape(shape)

    found = {"g": spread(-5, 0, True), "m": spread(-3, 1, True), "s": spread(-3, 1, False), "v": spread(-5, 0, True)}
    found["c_xi"], found["c_S"] = spread(-4, 0, True), spread(-4, 0, True)
    found["eps"], found["eps_next"] = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    return found


def state(p: Mapping[str, Array]) -> tuple[Any, ...]:
    """The arguments of an update after the gradient."""
    return p["m"], p["s"], p["v"], (p["c_xi"], p["c_S"])


# ---- the generator ---------------------------------------------------------------------------------------------------


def known_answers() -> Check:
    """Check that the oracle's generator returns the published words."""
    wrong = sum(oracle.philox(counter, key) != words for counter, key, words in oracle.KNOWN_ANSWERS)
    return check("Philox 4x32-10: known answers", "normals", FAMILY, "-", wrong, 0.0, "blocks that differ")


def normal_check(namespace: Any, dtype: str, count: int) -> Check:
    """Check normals at extreme seeds and steps, at coordinates on both sides of tile boundaries."""
    errors: list[float] = []
    chosen = np.array(sorted({*range(0, count, 7), *(i for i in (127, 128, 129, 255, 256, count - 1) if i < count)}))

    def expected(seed: int, step: int) -> References:
        return in_ulps(([oracle.normal(seed, step, int(i), dtype)] for i in chosen), dtype)

    for seed, step in ADDRESSES:
        drawn = namespace.noise(seed, step, out=np.empty(count, dtype))
        errors += kept(partial(expected, seed, step), [chosen], "normal", seed, step, dtype).errors(drawn[chosen])
    name, detail = "noise: normals", "ulp of exact Box-Muller"
    return check(name, "normals", FAMILY, dtype, max(errors), NORMAL_ULPS, detail, errors)


def normal_layout(namespace: Any, dtype: str) -> Iterator[Check]:
    """Check that a normal depends on seed, step and coordinate alone."""
    whole = namespace.noise(5, 9, out=np.empty(LARGE, dtype))
    parts = [namespace.noise(5, 9, out=np.empty(n, dtype)) for n in SIZES]
    yield bitwise("noise: odd sizes", dtype, parts, [whole[:n] for n in SIZES])
    seeds, steps = np.array([5, 2**63, 7], np.uint64), [9, 9, 2**64 - 1]
    rows = namespace.noise(seeds, steps, out=np.empty((3, 1000), dtype))
    alone = [namespace.noise(int(a), int(b), out=np.empty(1000, dtype)) for a, b in zip(seeds, steps, strict=True)]
    yield bitwise("noise: rows", dtype, rows, alone)


# ---- accuracy --------------------------------------------------------------------------------------------------------


def sweep_results(namespace: Any, p: Mapping[str, Array], hyper: Mapping[str, Any]) -> dict[str, tuple[Array, ...]]:
    """Every sweep at the points, with stored normals."""
    ess = {"ess": hyper["ess"]}
    rest = {k: v for k, v in hyper.items() if k != "ess"}
    of_precision = {k: hyper[k] for k in ("ess", "beta2")}
    member = p["m"], p["s"], (p["c_xi"], p["c_S"])
    totals = namespace.accumulate(p["g"], p["c_xi"], p["c_S"], noise=p["eps"])
    squares = namespace.accumulate_squares(p["g"], p["c_xi"], p["s"])
    return {
        "sample": namespace.sample(p["m"], p["s"], **ess, noise=p["eps"]),
        "update": namespace.update(p["g"], *state(p), **hyper, noise=p["eps"]),
        "update_sample": namespace.update_sample(p["g"], *state(p), **hyper, noise=p["eps"], next_noise=p["eps_next"]),
        "update_precision": namespace.update_precision(p["g"], *member, **of_precision, noise=p["eps"]),
        "accumulate": totals,
        "accumulate_squares": squares,
        "update_averaged": namespace.update_averaged(p["g"], p["eps"], *state(p), 3, **hyper),
        "update_precision_averaged": namespace.update_precision_averaged(p["g"], p["eps"], *member, 3, **of_precision),
        "update_averaged_squares": namespace.update_averaged_squares(p["g"], p["s"], *state(p), 3, **rest),
    }


def expected_terms(name: str, x: Mapping[str, Any], c: Mapping[str, Any]) -> list[list[Any]]:
    """Return the terms of every result of a sweep at one point."""
    if name == "sample":
        return [[x["m"], c["inverse"] * x["eps"] / mpmath.sqrt(x["s"])]]
    if name == "accumulate":
        return [[x["c_xi"], x["g"]], [x["c_S"], x["g"] * x["eps"]]]
    if name == "accumulate_squares":
        return [[x["c_xi"], x["g"]], [x["s"], x["g"] ** 2]]
    if "averaged" in name:
        shared = {**x, "g": c["share"] * x["g"]}
        squared = name.endswith("squares")
        terms = oracle.step_terms(shared, c, c["share"] * (x["s"] if squared else x["eps"]), squared)
    else:
        shared = x
        terms = oracle.step_terms(x, c, x["g"] * x["eps"])
    if name.startswith("update_precision"):
        return [terms["precision"], [shared["g"], x["c_S"] * x["m"], -x["c_xi"]]]
    found = [terms["mean"], terms["precision"], terms["momentum"]]
    if name == "update_sample":
        step = c["inverse"] * x["eps_next"] / mpmath.sqrt(mpmath.fsum(terms["precision"]))
        largest = terms["precision"][1] / mpmath.fsum(terms["precision"])
        top = max(abs(terms["mean"][1]), abs(step) * largest)
        found.append(oracle.with_scales(mpmath.fsum(terms["mean"]) + step, [top]))
    return found


def sweep_references(name: str, p: Mapping[str, Array], c: Mapping[str, Any], dtype: str) -> list[References]:
    """Return the exact results of a sweep at all points."""
    points = [dict(zip(p, x, strict=True)) for x in zip(*(exact(a.tolist()) for a in p.values()), strict=True)]
    return [in_ulps(slot, dtype) for slot in zip(*(expected_terms(name, x, c) for x in points), strict=True)]


def accuracy_checks(namespace: Any, dtype: str, count: int) -> Iterator[Check]:
    """Every sweep against mpmath, with and without a clip."""
    for label, clip in (("", None), (", clipped", 0.5)):
        hyper = {**HYPER, "clip": clip}
        p = points(dtype, (count,), f"accuracy{label}")
        c = oracle.coefficients({**HYPER, "samples": 3.0}, dtype) | {"clip": None if clip is None else mpmath.mpf(clip)}
        given = {name: array.copy() for name, array in p.items()}
        for name, results in sweep_results(namespace, p, hyper).items():
            if clip is not None and not name.startswith("update"):
                continue
            expected = kept(partial(sweep_references, name, given, c, dtype), given.values(), FAMILY, name, clip, dtype)
            errors = [e for found, slot in zip(results, expected, strict=True) for e in slot.errors(found)]
            detail = "ulp of the largest term"
            yield check(f"{name}{label}", "ulp", FAMILY, dtype, max(errors), ULPS, detail, errors)


# ---- layout ----------------------------------------------------------------------------------------------------------


def drawn_checks(namespace: Any, dtype: str) -> Iterator[Check]:
    """Check that stored and redrawn normals, the fused pass and its parts, in place and not, give equal results."""
    p = points(dtype, (LARGE,), "drawn")
    m, s, v, cavity = state(p)
    old, new = (namespace.noise(3, t, out=np.empty(LARGE, dtype)) for t in (10, 11))
    stored = namespace.update(p["g"], m, s, v, cavity, **HYPER, noise=old)
    again = namespace.update(p["g"], m, s, v, cavity, **HYPER, seed=3, step=10)
    yield bitwise("update: normals drawn again", dtype, again, stored)
    kept = np.empty(LARGE, dtype)
    sample = namespace.sample(stored[0], stored[1], HYPER["ess"], seed=3, step=11, noise=kept)
    yield bitwise("sample: keeps its normals", dtype, [kept], [new])
    fused = namespace.update_sample(p["g"], m, s, v, cavity, **HYPER, seed=3, step=10, next_step=11)
    yield bitwise("update_sample: update, then sample", dtype, fused, (*stored, *sample))
    here, out = old.copy(), (m.copy(), s.copy(), v.copy(), np.empty(LARGE, dtype))
    moved = namespace.update_sample(
        p["g"], *out[:3], cavity, **HYPER, seed=3, next_step=11, noise=here, next_noise=here, out=out
    )
    yield bitwise("update_sample: in place", dtype, (*moved, here), (*fused, new))
    for threads in (1, 2, 3):
        with use_threads(threads):
            parts = namespace.update_sample(p["g"], m, s, v, cavity, **HYPER, seed=3, step=10, next_step=11)
        yield bitwise(f"update_sample: {threads} threads", dtype, parts, fused)
    totals = [namespace.accumulate(p["g"], m, v, noise=old), namespace.accumulate(p["g"], m, v, seed=3, step=10)]
    yield bitwise("accumulate: normals drawn again", dtype, *totals)
    of_precision = HYPER["ess"], HYPER["beta2"]
    alone = namespace.update_precision(p["g"], m, s, cavity, *of_precision, noise=old)
    yield bitwise("update_precision: the update's precision", dtype, alone[:1], stored[1:2])
    here = s.copy(), p["g"].copy()
    namespace.update_precision(here[1], m, here[0], cavity, *of_precision, seed=3, step=10, out=here)
    yield bitwise("update_precision: in place", dtype, here, alone)


class use_threads:
    """Context in which kernels use a given number of threads."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        import badmm_kernels

        self.before = badmm_kernels.get_num_threads()
        badmm_kernels.set_num_threads(self.count)

    def __exit__(self, *_: object) -> None:
        import badmm_kernels

        badmm_kernels.set_num_threads(self.before)


def size_checks(namespace: Any, dtype: str, sizes: Sequence[int] = SIZES) -> Iterator[Check]:
    """Check that the first coordinates of a sweep do not depend on how many follow."""
    p = points(dtype, (max(sizes),), "sizes")
    whole = sweep_results(namespace, p, HYPER)
    small = {n: sweep_results(namespace, {k: a[:n].copy() for k, a in p.items()}, HYPER) for n in sizes}
    for name, results in whole.items():
        parts = [a for n in sizes for a in small[n][name]]
        yield bitwise(f"{name}: odd sizes", dtype, parts, [a[:n] for n in sizes for a in results])


def row_checks(namespace: Any, dtype: str, width: int) -> Iterator[Check]:
    """Check that clients as rows, with scalars, seed and steps per row, equal single clients, and that shared arrays
    equal repeated ones."""
    clients = 3
    p = points(dtype, (clients, width), "rows")
    scalars = {k: np.array([x, x * 0.9, x * 0.5]) for k, x in {**HYPER, "clip": 0.7}.items()}
    seeds, steps = [4, 5, 2**63 + 1], np.array([1, 2, 3])

    def run(k: Any, choose: Callable[[Any], Any], cavity: Any) -> tuple[Any, ...]:
        given = {name: choose(x) for name, x in scalars.items()}
        address = {"seed": choose(seeds), "step": choose(steps), "next_step": choose(steps + 7)}
        return tuple(namespace.update_sample(p["g"][k], p["m"][k], p["s"][k], p["v"][k], cavity, **given, **address))

    whole = slice(None)

    def every(x: Any) -> Any:
        return x

    def one(k: int) -> Callable[[Any], Any]:
        return lambda x: int(x[k]) if isinstance(x, list) else x[k].item()

    together = run(whole, every, (p["c_xi"], p["c_S"]))
    alone = [run(k, one(k), (p["c_xi"][k], p["c_S"][k])) for k in range(clients)]
    yield bitwise("update_sample: clients as rows", dtype, together, [np.stack(a) for a in zip(*alone, strict=True)])
    column = np.ascontiguousarray(p["c_S"][:, :1])
    spread = np.ascontiguousarray(np.broadcast_to(column, (clients, width)))
    zeros = np.zeros((clients, width), dtype)
    numbers = run(whole, every, (0.0, column))
    yield bitwise("update_sample: numbers for the cavity", dtype, numbers, run(whole, every, (zeros, spread)))
    shared = p["c_S"][1].copy()
    repeated = np.ascontiguousarray(np.broadcast_to(shared, (clients, width)))
    left = run(whole, every, (shared, shared))
    yield bitwise("update_sample: a shared cavity", dtype, left, run(whole, every, (repeated, repeated)))


def checks(namespace: Any, family: str, dtype: str, count: int = 400, large: bool = True) -> list[Check]:
    """Return all checks of the IVON kernels in one dtype; `large` includes those at sizes that run in parallel."""
    with mpmath.workdps(DIGITS):
        found = [
            known_answers(),
            normal_check(namespace, dtype, max(3 * count + 1, 130)),
            *accuracy_checks(namespace, dtype, count),
        ]
    if large:
        found += [*normal_layout(namespace, dtype), *drawn_checks(namespace, dtype)]
    found += size_checks(namespace, dtype, SIZES if large else (1, 33, 130))
    return [*found, *row_checks(namespace, dtype, width=333 if large else 130)]
