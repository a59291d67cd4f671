"""Bandwidth of the CUDA kernels against a device-to-device copy in the same run, and the same steps in array libraries.

    python -m benchmarks.gpu [--coordinates 100000000] [--repeats 20] [--out docs/gpu-performance.md]

Bytes: every array read or written counts once; a copy reads and writes its array. Times are medians of CUDA events on
one stream, after warming up. Ratios compare with torch eager operations, torch.compile and CuPy expressions of the same
step on the same memory; the column of a missing library is empty. Without a GPU nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import badmm_kernels
from benchmarks.machine import write

Call = Callable[[], Any]
RHO, DAMPING, ALPHA, CLIENTS = 0.5, 0.5, 0.25, 10
IVON = {"ess": 1e5, "lr": 0.1, "beta1": 0.9, "beta2": 0.99999, "debias": 0.1, "clip": 1e-3}
CAVITY = (0.0, 1e-4)


@dataclass(frozen=True)
class Case:
    """A kernel, the number of arrays that it reads and writes, and the same step in other libraries."""

    name: str
    reads: int
    writes: int
    call: Call
    arrays: tuple[Any, ...] = ()
    step: Callable[..., Any] | None = field(default=None, compare=False)

    def moved(self, count: int, itemsize: int) -> int:
        """Bytes."""
        return (self.reads + self.writes) * count * itemsize


def draw(xp: Any, count: int, dtype: Any) -> list[Any]:
    """Four arrays of positive numbers and four of any sign."""
    rng = np.random.default_rng(0)
    block = rng.uniform(0.5, 2.0, min(count, 1 << 20)).astype(dtype)
    positive = [xp.asarray(np.resize(np.roll(block, k), count)) for k in range(4)]
    return [*positive, *(a - 1.25 for a in positive)]


# ---- the same steps in array libraries: `lib` is torch or CuPy -------------------------------------------------------


def dual_step(_lib: Any, dual: Any, server: Any, client: Any) -> Any:
    """The dual line of one slot."""
    return (dual + DAMPING * RHO * (server - client),)


def round_step(_lib: Any, dual: Any, server: Any, client: Any) -> Any:
    """The dual line and the server contribution of one slot."""
    new = dual + DAMPING * RHO * (server - client)
    return new, (1.0 - ALPHA) / CLIENTS * client - ALPHA * new


def gradient_step(_lib: Any, mean: Any, gradient: Any, hessian: Any) -> Any:
    """The natural gradient of a diagonal Gaussian."""
    return gradient - hessian * mean, -hessian


def normals(lib: Any, like: Any) -> Any:
    """Fresh standard normals."""
    if hasattr(lib, "randn_like"):
        return lib.randn_like(like)
    return lib.random.standard_normal(like.shape, dtype=like.dtype)


def ivon_step(lib: Any, gradient: Any, mean: Any, precision: Any, momentum: Any, noise: Any) -> Any:
    """The IVON step and the next sample, normals drawn by the library."""
    ess, lr, beta1, beta2 = (IVON[n] for n in ("ess", "lr", "beta1", "beta2"))
    curvature = gradient * noise * lib.sqrt(ess * precision) + CAVITY[1]
    w = (1.0 - beta2) * (curvature - precision)
    new_precision = precision + w * (1.0 + 0.5 * w / precision)
    new_momentum = beta1 * momentum + (1.0 - beta1) * gradient
    direction = (new_momentum / IVON["debias"] + CAVITY[1] * mean - CAVITY[0]) / new_precision
    new_mean = mean - lr * direction.clip(-IVON["clip"], IVON["clip"])
    next_noise = normals(lib, mean)
    return new_mean, new_precision, new_momentum, new_mean + next_noise / lib.sqrt(ess * new_precision), next_noise


# ---- the kernels -----------------------------------------------------------------------------------------------------


def cases(xp: Any, count: int, dtype: Any) -> Iterator[Case]:
    """Every elementwise kernel, the IVON steps, and the sums, at `count` coordinates a slot or in all."""
    half = max(1, count // 2)  # two slots together have the coordinates asked for
    p, q, r, _, x, y, z, _ = draw(xp, half, dtype)
    out = (xp.empty_like(x), xp.empty_like(x))
    diagonal, isotropic, gamma = (
        badmm_kernels.load(n, "gpu") for n in ("diagonal_gaussian", "isotropic_gaussian", "gamma")
    )
    slots, both = ((x, p), (y, q), (z, r)), (out, (xp.empty_like(x), xp.empty_like(x)))
    second = -0.5 * (x * x + p)
    yield Case("natural_from_standard", 1, 1, lambda: diagonal.natural_from_standard(x, p, out=out))
    yield Case("standard_from_natural", 1, 1, lambda: diagonal.standard_from_natural(x, p, out=out))
    yield Case("expectation_from_natural", 1, 1, lambda: diagonal.expectation_from_natural(x, p, out=out))
    yield Case("natural_from_expectation", 1, 1, lambda: diagonal.natural_from_expectation(x, second, out=out))
    yield Case("client_map", 3, 1, lambda: diagonal.client_map(*slots, RHO, out=out))
    yield Case("dual_update", 3, 1, lambda: diagonal.dual_update(*slots, RHO, DAMPING, out=out), (x, y, z), dual_step)
    yield Case(
        "round_update", 3, 2, lambda: diagonal.round_update(*slots, RHO, DAMPING, ALPHA, CLIENTS, out=both), (x, y, z),
        round_step,
    )  # fmt: skip
    yield Case("server_contribution", 2, 1, lambda: diagonal.server_contribution(*slots[:2], ALPHA, CLIENTS, out=out))
    yield Case("server_update", 2, 1, lambda: diagonal.server_update(*slots[:2], ALPHA, out=out))
    yield Case("gamma expectation_from_natural", 1, 1, lambda: gamma.expectation_from_natural(p, q, out=out))
    whole = draw(xp, count, dtype)[:4]
    single = (xp.empty_like(whole[0]),)
    yield Case(
        "isotropic expectation", 1, 1, lambda: isotropic.expectation_from_natural(whole[0], precision=2.0, out=single)
    )
    two = (single[0], xp.empty_like(whole[0]))
    yield Case(
        "natural_gradient",
        3,
        2,
        lambda: diagonal.natural_gradient(*whole[:3], out=two),
        tuple(whole[:3]),
        gradient_step,
    )
    rows = [a[: half // CLIENTS * CLIENTS].reshape(CLIENTS, -1) for a in (x, p, y, q)]
    yield Case("server_total", 2, 0, lambda: diagonal.server_total(rows[:2], rows[2:], ALPHA))
    yield Case("log_partition", 1, 0, lambda: diagonal.log_partition(x, p))
    yield Case("kl", 2, 0, lambda: diagonal.kl((x, p), (y, q)))
    yield from ivon_cases(xp, whole)


def ivon_cases(xp: Any, whole: list[Any]) -> Iterator[Case]:
    """The steps of the optimizer: normals drawn again, or stored."""
    ivon, state = badmm_kernels.load("ivon", "gpu"), tuple(whole)
    out = (*state[1:], xp.empty_like(state[0]))
    noise = xp.zeros_like(state[0])
    drawn = {"seed": 1, "step": 2}
    yield Case("ivon noise", 0, 1, lambda: ivon.noise(1, 2, out=noise))
    yield Case("ivon sample", 2, 1, lambda: ivon.sample(*state[1:3], IVON["ess"], **drawn, out=out[3:]))
    yield Case("ivon update", 4, 3, lambda: ivon.update(*state, CAVITY, **IVON, **drawn, out=out[:3]))
    yield Case(
        "ivon update_sample, normals drawn twice", 4, 4,
        lambda: ivon.update_sample(*state, CAVITY, **IVON, **drawn, next_step=3, out=out),
    )  # fmt: skip
    yield Case(
        "ivon update_sample, normals stored", 5, 5,
        lambda: ivon.update_sample(*state, CAVITY, **IVON, seed=1, noise=noise, next_step=3, next_noise=noise, out=out),
        (*state, noise), ivon_step,
    )  # fmt: skip


# ---- the clock -------------------------------------------------------------------------------------------------------


def events(repeats: int) -> Callable[[Call], float]:
    """A clock of the current stream: the median milliseconds of a call."""
    import cupy

    def clock(call: Call) -> float:
        for _ in range(3):
            call()
        times = []
        for _ in range(repeats):
            start, stop = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            call()
            stop.record()
            stop.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, stop))
        return statistics.median(times)

    return clock


def peers(step: Callable[..., Any], arrays: Sequence[Any]) -> Iterator[tuple[str, Call]]:
    """The step in each array library that is here, on the same memory."""
    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            tensors = [torch.utils.dlpack.from_dlpack(a) for a in arrays]
            compiled = torch.compile(lambda *given: step(torch, *given))
            yield "torch", lambda: step(torch, *tensors)
            yield "torch.compile", lambda: compiled(*tensors)
    import cupy

    yield "CuPy", lambda: step(cupy, *arrays)


def measure(xp: Any, clock: Callable[[Call], float], count: int, dtype: str) -> Iterator[dict[str, Any]]:
    """One row a kernel: milliseconds, GB/s, share of the copy's, and the peers' times over the kernel's."""
    size = np.dtype(dtype).itemsize
    source = xp.ones(count, dtype)
    target = xp.empty_like(source)
    ceiling = 2 * count * size / clock(lambda: xp.copyto(target, source)) / 1e6
    yield {"kernel": "copy", "GB/s": ceiling, "share": 1.0}
    for case in cases(xp, count, dtype):
        time = clock(case.call)
        rate = case.moved(count, size) / time / 1e6
        row = {"kernel": case.name, "ms": time, "bytes": (case.reads + case.writes) * size, "GB/s": rate}
        row["share"] = rate / ceiling
        if case.step is not None:
            scale = count / case.arrays[0].size  # a step of one slot, for as many coordinates
            row |= {name: scale * clock(call) / time for name, call in peers(case.step, case.arrays)}
        yield row


COLUMNS = ("kernel", "ms", "bytes", "GB/s", "share", "torch", "torch.compile", "CuPy")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for row in rows:
        cells = [row.get(c, "") for c in COLUMNS]
        cells = [c if isinstance(c, (str, int)) else f"{c:.0%}" if k == 4 else f"{c:.3g}" for k, c in enumerate(cells)]
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(lines)


def versions(cupy: Any) -> str:
    """CuPy's, CUDA's, and those of the libraries compared with."""
    found = {"CUDA runtime": cupy.cuda.runtime.runtimeGetVersion(), "driver": cupy.cuda.runtime.driverGetVersion()}
    cuda = [f"{name} {number // 1000}.{number % 1000 // 10}" for name, number in found.items()]
    torch = f", torch {importlib.metadata.version('torch')}" if importlib.util.find_spec("torch") else ""
    return f"CuPy {cupy.__version__}, {', '.join(cuda)}{torch}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--coordinates", type=int, default=100_000_000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    try:
        badmm_kernels.load("diagonal_gaussian", device="gpu")
    except RuntimeError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    command = f"python -m benchmarks.gpu --coordinates {options.coordinates} --repeats {options.repeats}"
    parts = [f"# CUDA kernels on {name}\n\n`{command}`, {versions(cupy)}. Bytes are those of one coordinate."]
    for dtype in ("float32", "float64"):
        print(f"{dtype} ...", file=sys.stderr)
        rows = list(measure(cupy, events(options.repeats), options.coordinates, dtype))
        parts.append(f"## {dtype}\n\n{table(rows)}")
        cupy.get_default_memory_pool().free_all_blocks()
    badmm_kernels.synchronize()
    parts.append("Columns of libraries: their time over the kernel's, for the same step on the same memory.")
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.out:
        write(options.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
