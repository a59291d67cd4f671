"""Bandwidth and time of the CPU kernels relative to the machine's limits in the same run.

    python -m benchmarks.kernels [--coordinates 10000000] [--repeats 7] [--section PART] [--out docs/performance.md]

Bytes: every array an elementwise kernel reads counts once; every array it writes counts twice (write-allocate: the
line is fetched before it is written). There are two ceilings, both Numba loops in place in the same run on the same
threads: the one-array loop a[i] = a[i] * s over a buffer of four arrays, and the same-reads loop that updates one array
from as many as the kernel reads per slot, such as a[i] = (b[i] - c[i]) * s + a[i]. The first fetches one line per line
that it writes back. A kernel that reads three arrays into a fourth fetches four, so it cannot reach the first loop's
bandwidth if fetches limit a core, not bytes. The second loop has the kernel's reads and none of its checks.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

import badmm_kernels
from benchmarks.machine import best, best_cpu, describe, read_bandwidth, same_reads, update_bandwidth, write

Array = np.ndarray[Any, Any]
CLIENTS = 100


@dataclass(frozen=True)
class Streamed:
    """A kernel without transcendental functions: arrays read, arrays written, and the call."""

    family: str
    name: str
    reads: int
    writes: int
    call: Callable[[], Any]


@dataclass(frozen=True)
class Computed:
    """A kernel with transcendental functions beside NumPy's and SciPy's expression for the same."""

    family: str
    name: str
    call: Callable[[], Any]
    peer: Callable[[], Any]


def draw(count: int, dtype: Any) -> list[Array]:
    """Three arrays of positive numbers and three of any sign."""
    rng = np.random.default_rng(0)
    return [
        *(rng.uniform(0.5, 2.0, count).astype(dtype) for _ in range(3)),
        *(rng.normal(size=count).astype(dtype) for _ in range(3)),
    ]


def streamed(count: int, dtype: Any) -> Iterator[Streamed]:
    """Every elementwise kernel without transcendental functions."""
    p, q, r, x, y, z = draw(count, dtype)
    out = (np.empty_like(x), np.empty_like(x))
    diagonal, gamma, isotropic = (badmm_kernels.load(n) for n in ("diagonal_gaussian", "gamma", "isotropic_gaussian"))
    second = (-0.5 * (x * x + p)).astype(dtype)
    d, i = "diagonal_gaussian", "isotropic_gaussian"
    yield Streamed(d, "natural_from_standard", 2, 2, lambda: diagonal.natural_from_standard(x, p, out=out))
    yield Streamed(d, "standard_from_natural", 2, 2, lambda: diagonal.standard_from_natural(x, p, out=out))
    yield Streamed(d, "expectation_from_natural", 2, 2, lambda: diagonal.expectation_from_natural(x, p, out=out))
    yield Streamed(d, "natural_from_expectation", 2, 2, lambda: diagonal.natural_from_expectation(x, second, out=out))
    yield Streamed(d, "natural_gradient", 3, 2, lambda: diagonal.natural_gradient(x, y, p, out=out))
    yield Streamed(d, "client_map", 6, 2, lambda: diagonal.client_map((x, p), (y, q), (z, r), 0.5, out=out))
    yield Streamed(d, "dual_update", 6, 2, lambda: diagonal.dual_update((x, p), (y, q), (z, r), 0.5, 0.5, out=out))
    yield Streamed(
        d, "dual_update in place", 6, 1, lambda: diagonal.dual_update(out, (y, q), (z, r), 0.5, 0.5, out=out)
    )
    yield Streamed(
        d, "server_contribution", 4, 2, lambda: diagonal.server_contribution((x, p), (y, q), 0.5, 10, out=out)
    )
    yield Streamed(d, "server_update", 4, 2, lambda: diagonal.server_update((x, p), (y, q), 0.5, out=out))
    both, slots = (out, (np.empty_like(x), np.empty_like(x))), ((x, p), (y, q), (z, r))
    yield Streamed(d, "round_update", 6, 4, lambda: diagonal.round_update(*slots, 0.5, 0.5, 0.5, 10, out=both))
    yield Streamed("gamma", "natural_from_standard", 2, 2, lambda: gamma.natural_from_standard(p, q, out=out))
    one = out[:1]
    yield Streamed(i, "natural_from_standard", 1, 1, lambda: isotropic.natural_from_standard(x, precision=2.0, out=one))
    yield Streamed(
        i, "expectation_from_natural", 1, 1, lambda: isotropic.expectation_from_natural(x, precision=2.0, out=one)
    )
    yield Streamed(i, "dual_update", 3, 1, lambda: isotropic.dual_update((x,), (y,), (z,), 0.5, 0.5, out=one))


def computed(count: int) -> Iterator[Computed]:
    """Kernels with transcendental functions, float64."""
    p, q, r, x, y, _ = draw(count, np.float64)
    s = r + 0.25
    diagonal, gamma = badmm_kernels.load("diagonal_gaussian"), badmm_kernels.load("gamma")
    d = "diagonal_gaussian"
    constant = 0.5 * (1.0 + math.log(2.0 * math.pi))
    yield Computed(
        d, "log_partition", lambda: diagonal.log_partition(x, p), lambda: (0.5 * x * x / p - 0.5 * np.log(p)).sum()
    )
    yield Computed(d, "entropy", lambda: diagonal.entropy(x, p), lambda: (constant - 0.5 * np.log(p)).sum())
    yield Computed(
        d,
        "kl",
        lambda: diagonal.kl((x, p), (y, q)),
        lambda: 0.5 * (q / p - 1.0 - np.log(q / p) + q * (x / p - y / q) ** 2).sum(),
    )
    yield Computed(
        "gamma",
        "expectation_from_natural",
        lambda: gamma.expectation_from_natural(p, q),
        lambda: (special.digamma(p) - np.log(q), -p / q),
    )
    mu = gamma.expectation_from_natural(p, q)
    yield Computed(
        "gamma", "natural_from_expectation", lambda: gamma.natural_from_expectation(*mu), lambda: _minka(*mu)
    )
    yield Computed(
        "gamma", "natural_gradient", lambda: gamma.natural_gradient(p, q, x, y), lambda: _gamma_gradient(p, q, x, y)
    )
    yield Computed(
        "gamma", "log_partition", lambda: gamma.log_partition(p, q), lambda: (special.gammaln(p) - p * np.log(q)).sum()
    )
    yield Computed(
        "gamma",
        "entropy",
        lambda: gamma.entropy(p, q),
        lambda: (p - np.log(q) + special.gammaln(p) + (1 - p) * special.digamma(p)).sum(),
    )
    yield Computed("gamma", "kl", lambda: gamma.kl((p, q), (r, s)), lambda: _gamma_kl(p, q, r, s))


def _minka(mean_log: Array, negative_mean: Array) -> tuple[Array, Array]:
    """Four Newton steps with SciPy's polygammas from Minka's start."""
    gap = np.log(-negative_mean) - mean_log
    a = (3 - gap + np.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(4):
        a = a - (np.log(a) - special.digamma(a) - gap) / (1 / a - special.polygamma(1, a))
    return a, -a / negative_mean


def _gamma_gradient(a: Array, b: Array, da: Array, db: Array) -> tuple[Array, Array]:
    trigamma = special.polygamma(1, a)
    scale = a * trigamma - 1
    return (a * da + b * db) / scale, (b * da + b * b * trigamma * db) / scale


def _gamma_kl(a: Array, b: Array, c: Array, d: Array) -> Any:
    psi = special.digamma(a)
    return ((a - c) * psi - special.gammaln(a) + special.gammaln(c) + c * np.log(b / d) + a * (d - b) / b).sum()


def bandwidth_rows(count: int, repeats: int) -> Iterator[str]:
    """One table row a kernel, dtype and thread count, beside two in-place loops measured in turn with it."""
    yield "| kernel | dtype | threads | ns a coordinate | GB/s | one-array loop | ratio | same-reads loop | ratio |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for dtype in (np.float32, np.float64):
        size = np.dtype(dtype).itemsize
        buffer = np.ones(4 * count, dtype)
        pieces = [np.ones(count, dtype) for _ in range(3)]
        for threads in (1, 2):
            badmm_kernels.set_num_threads(threads)
            for k in streamed(count, dtype):
                slots = 2 if k.reads > 3 else 1
                reads = k.reads // slots
                calls = (k.call, update_bandwidth(buffer), same_reads(pieces[:reads]))
                # In turn, so that a busy moment of the machine hits all alike.
                rounds = [[best(call, 1) for call in calls] for _ in range(repeats)]
                seconds, loop, like = (min(t) for t in zip(*rounds, strict=True))
                moved = count * size * (k.reads + 2 * k.writes) / seconds / 1e9
                ceiling, alike = 2 * buffer.nbytes / loop / 1e9, count * size * (reads + 1) / like / 1e9
                label = f"{k.family}.{k.name} | {np.dtype(dtype).name} | {threads}"
                yield (
                    f"| {label} | {seconds / count * 1e9:.2f} | {moved:.1f} "
                    f"| {ceiling:.1f} | {moved / ceiling:.2f} | {alike:.1f} | {moved / alike:.2f} |"
                )


def compute_rows(count: int, repeats: int) -> Iterator[str]:
    """Kernels with transcendental functions beside NumPy and SciPy: CPU time of one thread, and two threads."""
    yield "| kernel | CPU ns a coordinate, 1 thread | ns, 2 threads | CPU ns, NumPy/SciPy expression | times faster |"
    yield "| --- | --- | --- | --- | --- |"
    for k in computed(count):
        badmm_kernels.set_num_threads(2)
        both = best(k.call, repeats) / count * 1e9
        badmm_kernels.set_num_threads(1)
        one, peer = best_cpu(k.call, repeats) / count * 1e9, best_cpu(k.peer, max(2, repeats // 2)) / count * 1e9
        yield f"| {k.family}.{k.name} | {one:.1f} | {both:.1f} | {peer:.1f} | {peer / one:.1f} |"


def aggregation_rows(repeats: int, width: int = 1_000_000) -> Iterator[str]:
    """server_total over 100 clients, both slots, against a sum that reads as much."""
    diagonal = badmm_kernels.load("diagonal_gaussian")
    rng = np.random.default_rng(1)
    lam = tuple(np.tile(rng.normal(size=width).astype(np.float32), (CLIENTS, 1)) for _ in range(2))
    dual = tuple(np.tile(rng.normal(size=width).astype(np.float32), (CLIENTS, 1)) for _ in range(2))
    out = tuple(np.empty(width, np.float32) for _ in range(2))
    bytes_read = sum(a.nbytes for a in (*lam, *dual))
    yield "| threads | server_total ms | GB/s read | plain sum GB/s | ratio |"
    yield "| --- | --- | --- | --- | --- |"
    for threads in (1, 2):
        badmm_kernels.set_num_threads(threads)
        sums = [read_bandwidth(a.reshape(-1)) for a in (*lam, *dual)]
        pairs = [
            (best(lambda: diagonal.server_total(lam, dual, 0.5, out=out), 1), sum(best(call, 1) for call in sums))
            for _ in range(repeats)
        ]
        seconds, plain = (min(t) for t in zip(*pairs, strict=True))
        rate, ceiling = bytes_read / seconds / 1e9, bytes_read / plain / 1e9
        yield f"| {threads} | {seconds * 1e3:.0f} | {rate:.1f} | {ceiling:.1f} | {rate / ceiling:.2f} |"


STARTUP = """
import sys, time
t0 = time.perf_counter()
import badmm_kernels
t1 = time.perf_counter()
loaded = [m for m in ("sympy", "torch", "cupy", "numba") if m in sys.modules]
ns = badmm_kernels.load("diagonal_gaussian")
t2 = time.perf_counter()
import numpy as np
x = np.ones(1000)
t3 = time.perf_counter()
ns.natural_from_standard(x, x)
t4 = time.perf_counter()
print(t1 - t0, t2 - t1, t4 - t3, ",".join(loaded) or "none")
"""


def startup_rows(repeats: int = 5) -> Iterator[str]:
    """Seconds to import, load a family and make a first call from a warm cache, each in a fresh process."""
    root = Path(__file__).resolve().parent.parent
    rows = []
    for _ in range(repeats + 1):
        done = subprocess.run(
            [sys.executable, "-c", STARTUP], cwd=root, env=os.environ, capture_output=True, text=True, check=True
        )
        rows.append(done.stdout.split())
    imported, loaded, first = (min(float(r[k]) for r in rows[1:]) for k in range(3))
    yield "| step | seconds |"
    yield "| --- | --- |"
    yield f"| `import badmm_kernels` (of SymPy, torch, CuPy, Numba it loads: {rows[-1][3]}) | {imported:.3f} |"
    yield f'| `badmm_kernels.load("diagonal_gaussian")` (imports Numba) | {loaded:.3f} |'
    yield f"| first call, Numba's cache warm | {first:.3f} |"


def main(argv: list[str] | None = None) -> int:
    """Run all tables and print or write them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coordinates", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--section", help="what the titles of the sections to run contain, such as 'Kernels with'")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    sections = {
        "Elementwise kernels without transcendental functions": bandwidth_rows(args.coordinates, args.repeats),
        "Kernels with transcendental functions, float64": compute_rows(args.coordinates // 10, args.repeats),
        f"Aggregation: {CLIENTS} clients × 1e6 coordinates × 2 slots of (natural, dual), float32": aggregation_rows(
            args.repeats
        ),
        "Start-up": startup_rows(),
    }
    command = f"python -m benchmarks.kernels --coordinates {args.coordinates} --repeats {args.repeats}"
    lines = [
        "# Speed of the CPU kernels",
        "",
        f"`{command}` on {describe()}.",
        "",
        (__doc__ or "").split("\n\n")[-1].strip(),
    ]
    wanted = {t: rows for t, rows in sections.items() if args.section is None or args.section in t}
    if not wanted:
        parser.error(f"--section: expected a part of {', '.join(map(repr, sections))}, got {args.section!r}")
    for title, rows in wanted.items():
        lines += ["", f"## {title}", ""]
        print(f"\n{title}")
        for row in rows:
            print(row, flush=True)
            lines.append(row)
    if args.out:
        write(args.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
