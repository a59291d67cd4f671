"""The IVON step and its normals: the C header, as each compiler builds it, gives the Numba kernels' bits."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import badmm_kernels
from badmm_kernels.cpu.sweep import SweepKernel
from badmm_kernels.face.arrays import address
from tests.kernels.header.test_header_mutations import Mutant, planted
from tests.kernels.header_backend import (
    CONTRACTED,
    INCLUDE,
    PLAIN,
    STRICT,
    TYPES,
    copied_headers,
    missing,
    shared_object,
)
from validation.points import generator, neighbours, spread

IVON = badmm_kernels.load("ivon")
SWEEPS = {k.name: k for k in vars(IVON).values() if isinstance(k, SweepKernel)}
COUNT = 4099
SUFFIX = {"float32": "f32", "float64": "f64"}
HYPER: dict[str, dict[str, Any]] = {
    "no clip": {"ess": 1e4, "lr": 0.1, "beta1": 0.9, "beta2": 0.99999, "debias": 0.1, "clip": None, "samples": 3},
    "clip": {"ess": 37.0, "lr": 1.0, "beta1": 0.3, "beta2": 0.9, "debias": 1.0, "clip": 1e-3, "samples": 7},
    "still": {"ess": 0.3, "lr": 0.0, "beta1": 1.0, "beta2": 1.0, "debias": 1.0, "clip": 5.0, "samples": 1},
}
BUILDS = [
    pytest.param(compiler, (*flags, *STRICT), id=f"{compiler} {' '.join(flags)}",
                 marks=pytest.mark.skipif(bool(missing(compiler)), reason=missing(compiler)))
    for compiler in ("gcc", "clang")
    for flags in (PLAIN, CONTRACTED)
]  # fmt: skip


def loop(sweep: SweepKernel, precision: str) -> str:
    """A loop over coordinates around one of the header's steps."""
    t, count = TYPES[precision], len(sweep.operands) + len(sweep.normals)
    scalars = [f"s{k}" for k in range(len(sweep.scalars))]
    outputs = range(len(sweep.results))
    parameters = [f"const {t} *x{k}" for k in range(count)] + [f"double {s}" for s in scalars]
    parameters += [f"{t} *y{k}" for k in outputs]
    given = [f"x{k}[i]" for k in range(count)] + scalars
    call = f"badmm_ivon_{sweep.name}_{precision}"
    one = len(sweep.results) == 1
    run = (
        f"y0[i] = {call}({', '.join(given)})" if one else f"{call}({', '.join(given + [f'&y{k}[i]' for k in outputs])})"
    )
    head = f"void loop_{sweep.name}_{precision}(long long n, {', '.join(parameters)})"
    return f"{head} {{ for (long long i = 0; i < n; ++i) {run}; }}\n"


def noise_loop(precision: str) -> str:
    """A loop over coordinates around the header's normals."""
    head = f"void noise_{precision}(unsigned long long n, unsigned long long seed, unsigned long long step"
    body = f"for (unsigned long long i = 0; i < n; ++i) out[i] = badmm_ivon_normal_{precision}(seed, step, i);"
    return f"{head}, {TYPES[precision]} *out) {{ {body} }}\n"


@cache
def compiled(compiler: str, flags: tuple[str, ...], include: Path = INCLUDE) -> ctypes.CDLL:
    """The loops of every step and of the normals as a shared object."""
    text = "".join(loop(s, p) for s in SWEEPS.values() for p in TYPES) + "".join(noise_loop(p) for p in TYPES)
    return shared_object((f'#include "badmm/ivon.h"\n{text}',), compiler, flags, include)


def pointer(array: Any) -> ctypes.c_void_p:
    """Where an array's memory begins."""
    return ctypes.c_void_p(address(array))


def inputs(sweep: SweepKernel, dtype: str, hyper: dict[str, Any]) -> list[Any]:
    """Operands and normals; in a third of the coordinates the curvature's estimate nearly is the precision."""
    rng = generator("ivon", sweep.name, dtype, str(hyper))
    found = {name: spread(rng, COUNT, 3.0, domain != "positive", dtype) for name, domain, _ in sweep.operands}
    found |= {name: rng.normal(size=COUNT).astype(dtype) for name, _, _ in sweep.normals}
    if {"gradient", "noise", "precision", "cavity.precision"} <= found.keys():
        third, s = COUNT // 3, found["precision"].astype("float64")
        price = found["gradient"] * found["noise"] * np.sqrt(s * hyper["ess"])
        found["cavity.precision"][:third] = neighbours((s - price).astype(dtype), rng, 3)[:third]
    return list(found.values())


def numba(sweep: SweepKernel, arrays: list[Any], hyper: dict[str, Any]) -> tuple[Any, ...]:
    """The Numba kernel's results."""
    operands = dict(zip([name for name, _, _ in sweep.operands], arrays, strict=False))
    arguments: dict[str, Any] = {name: a for name, a in operands.items() if not name.startswith("cavity.")}
    if "cavity.precision" in operands:
        arguments["cavity"] = (operands["cavity.precision_mean"], operands["cavity.precision"])
    arguments |= {name: hyper[name] for name, _ in sweep.scalars}
    arguments |= dict(zip([name for name, _, _ in sweep.normals], arrays[len(operands) :], strict=True))
    result: tuple[Any, ...] = getattr(IVON, sweep.name)(**arguments)
    return result


def differing_steps(library: ctypes.CDLL, dtype: str) -> list[str]:
    """The steps of which some result differs from the Numba kernel's in a bit."""
    found = []
    for sweep in SWEEPS.values():
        for label, hyper in HYPER.items():
            arrays = inputs(sweep, dtype, hyper)
            out = [np.full(COUNT, np.nan, dtype) for _ in sweep.results]
            numbers = [np.inf if hyper[name] is None else hyper[name] for name, _ in sweep.scalars]
            run = library[f"loop_{sweep.name}_{SUFFIX[dtype]}"]
            run(ctypes.c_longlong(COUNT), *map(pointer, arrays), *map(ctypes.c_double, numbers), *map(pointer, out))
            pairs = zip(out, numba(sweep, arrays, hyper), strict=True)
            found += [f"{sweep.name}, {label}"] if any(a.tobytes() != b.tobytes() for a, b in pairs) else []
    return found


def same_normals(library: ctypes.CDLL, dtype: str, seed: int, step: int) -> bool:
    """Whether the header and the Numba generator draw the same bits at one address."""
    got, expected = np.empty(COUNT, dtype), np.empty(COUNT, dtype)
    library[f"noise_{SUFFIX[dtype]}"](*(ctypes.c_ulonglong(n) for n in (COUNT, seed, step)), pointer(got))
    IVON.noise(seed, step, out=expected)
    return got.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("compiler", "flags"), BUILDS)
@pytest.mark.parametrize("dtype", SUFFIX)
def test_the_steps_have_the_same_bits(compiler: str, flags: tuple[str, ...], dtype: str) -> None:
    assert len(SWEEPS) >= 7
    assert differing_steps(compiled(compiler, flags), dtype) == []


@pytest.mark.parametrize(("compiler", "flags"), BUILDS)
@pytest.mark.parametrize("dtype", SUFFIX)
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**64 - 1, 2**63 + 5), (1234567, 2**32)])
def test_the_normals_have_the_same_bits(
    compiler: str, flags: tuple[str, ...], dtype: str, seed: int, step: int
) -> None:
    assert same_normals(compiled(compiler, flags), dtype, seed, step)


MUTANTS = (
    Mutant("curvature without the cavity", "ivon", "badmm_ivon_update_f64", "sqrt(precision), cavity_precision",
           "sqrt(precision), 0.0"),
    Mutant("retraction of first order", "ivon", "badmm_ivon_update_sample_f64", "((0.5 * w) / precision) + 1.0", "1.0"),
    Mutant("one clip only", "ivon", "badmm_ivon_update_averaged_f64", "((capped < -radius) ? -radius : capped)",
           "capped"),
    Mutant("sample with the precision's square", "ivon", "badmm_ivon_sample_f64", "sqrt(precision)", "precision"),
    Mutant("nine rounds of Philox", "ivon", "badmm_ivon_normals_f64", "((c0_9 & 0xFFFFFFFFull) << 32ull)",
           "((c0_8 & 0xFFFFFFFFull) << 32ull)"),
    Mutant("normals of another block", "ivon", "badmm_ivon_normal_f64", "* 32u + coordinate", "* 16u + coordinate"),
)  # fmt: skip


@pytest.mark.skipif(bool(missing("gcc")), reason=missing("gcc"))
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_errors_are_caught(mutant: Mutant, tmp_path: Path) -> None:
    include = copied_headers(tmp_path)
    path = include / mutant.header
    path.write_text(planted(path.read_text(encoding="utf-8"), mutant), encoding="utf-8")
    library = compiled("gcc", ("-std=c99", "-O1"), include)
    assert differing_steps(library, "float64") != [] or not same_normals(library, "float64", 3, 5)
