"""The IVON step and its normals: the C header, as each compiler builds it, gives the Numba kernels' bits."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import kernels
from kernels.arrays import address
from kernels.cpu.sweep import SweepKernel
from tests.header_backend import CONTRACTED, INCLUDE, PLAIN, STRICT, TYPES, missing
from validation.points import generator, neighbours, spread

IVON = kernels.load("ivon")
SWEEPS = {k.name: k for k in vars(IVON).values() if isinstance(k, SweepKernel)}
COUNT = 4099
SUFFIX = {"float32": "f32", "float64": "f64"}
HYPER: dict[str, dict[str, Any]] = {
    "no clip": {"ess": 1e4, "lr": 0.1, "beta1": 0.9, "beta2": 0.99999, "debias": 0.1, "clip": None, "samples": 3},
    "clip": {"ess": 37.0, "lr": 1.0, "beta1": 0.3, "beta2": 0.9, "debias": 1.0, "clip": 1e-3, "samples": 7},
    "still": {"ess": 0.3, "lr": 0.0, "beta1": 1.0, "beta2": 1.0, "debias": 1.0, "clip": 5.0, "samples": 1},
}
BUILDS = [
    pytest.param(compiler, flags, id=f"{compiler} {' '.join(flags)}",
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
def compiled(compiler: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    """The loops of every step and of the normals as a shared object."""
    text = "".join(loop(s, p) for s in SWEEPS.values() for p in TYPES) + "".join(noise_loop(p) for p in TYPES)
    with TemporaryDirectory() as folder:
        source, library = Path(folder) / "ivon.c", Path(folder) / "ivon.so"
        source.write_text(f'#include "badmm/ivon.h"\n{text}', encoding="utf-8")
        command = [
            compiler,
            *flags,
            *STRICT,
            "-fPIC",
            "-shared",
            f"-I{INCLUDE}",
            "-o",
            str(library),
            str(source),
            "-lm",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))


def pointer(array: Any) -> ctypes.c_void_p:
    """Where an array's memory begins."""
    return ctypes.c_void_p(address(array))


def inputs(sweep: SweepKernel, dtype: str, hyper: dict[str, Any]) -> list[Any]:
    """Operands and normals; in a third of the coordinates the curvature's estimate nearly is the precision."""
    rng = generator("ivon", sweep.name, dtype, str(hyper))
    found = {name: spread(rng, COUNT, 3.0, domain != "positive", dtype) for name, domain, _ in sweep.operands}
    found |= {name: rng.normal(size=COUNT).astype(dtype) for name, _, _ in sweep.normals}
    if {"gradient", "noise", "precision", "tilt.precision"} <= found.keys():
        third, s = COUNT // 3, found["precision"].astype("float64")
        price = found["gradient"] * found["noise"] * np.sqrt(s * hyper["ess"])
        found["tilt.precision"][:third] = neighbours((s - price).astype(dtype), rng, 3)[:third]
    return list(found.values())


def numba(sweep: SweepKernel, arrays: list[Any], hyper: dict[str, Any]) -> tuple[Any, ...]:
    """The Numba kernel's results."""
    operands = dict(zip([name for name, _, _ in sweep.operands], arrays, strict=False))
    arguments: dict[str, Any] = {name: a for name, a in operands.items() if not name.startswith("tilt.")}
    if "tilt.precision" in operands:
        arguments["tilt"] = (operands["tilt.precision_mean"], operands["tilt.precision"])
    arguments |= {name: hyper[name] for name, _ in sweep.scalars}
    arguments |= dict(zip([name for name, _, _ in sweep.normals], arrays[len(operands) :], strict=True))
    result: tuple[Any, ...] = getattr(IVON, sweep.name)(**arguments)
    return result


@pytest.mark.parametrize(("compiler", "flags"), BUILDS)
@pytest.mark.parametrize("dtype", SUFFIX)
def test_the_steps_have_the_same_bits(compiler: str, flags: tuple[str, ...], dtype: str) -> None:
    library = compiled(compiler, flags)
    assert len(SWEEPS) >= 7
    for sweep in SWEEPS.values():
        for label, hyper in HYPER.items():
            arrays = inputs(sweep, dtype, hyper)
            out = [np.full(COUNT, np.nan, dtype) for _ in sweep.results]
            numbers = [np.inf if hyper[name] is None else hyper[name] for name, _ in sweep.scalars]
            run = library[f"loop_{sweep.name}_{SUFFIX[dtype]}"]
            run(ctypes.c_longlong(COUNT), *map(pointer, arrays), *map(ctypes.c_double, numbers), *map(pointer, out))
            for got, expected in zip(out, numba(sweep, arrays, hyper), strict=True):
                assert got.tobytes() == expected.tobytes(), f"{sweep.name}, {label}"


@pytest.mark.parametrize(("compiler", "flags"), BUILDS)
@pytest.mark.parametrize("dtype", SUFFIX)
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**64 - 1, 2**63 + 5), (1234567, 2**32)])
def test_the_normals_have_the_same_bits(
    compiler: str, flags: tuple[str, ...], dtype: str, seed: int, step: int
) -> None:
    got, expected = np.empty(COUNT, dtype), np.empty(COUNT, dtype)
    words = [ctypes.c_ulonglong(n) for n in (COUNT, seed, step)]
    compiled(compiler, flags)[f"noise_{SUFFIX[dtype]}"](*words, pointer(got))
    IVON.noise(seed, step, out=expected)
    assert got.tobytes() == expected.tobytes()
