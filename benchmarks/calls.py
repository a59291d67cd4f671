"""python -m benchmarks.calls: what a call of an IVON kernel costs beyond its arithmetic, on each acceptance path.

Times one step on a few coordinates with the checks of `badmm_kernels.cpu.plain` and with the full checks alone, in
turn in one process; best of several repetitions, in microseconds.
"""

from __future__ import annotations

import timeit
from collections.abc import Iterator
from typing import Any

import numpy as np

import badmm_kernels
from badmm_kernels.cpu import plain, sweep

SIZES = (64, 1_000, 10_000, 100_000)
REPEATS, CALLS = 15, 300


def step(size: int) -> Any:
    """One step in place, as an optimizer takes it."""
    rng = np.random.default_rng(0)
    gradient, mean, momentum, xi = (rng.normal(size=size) for _ in range(4))
    precision, S = rng.uniform(0.5, 2.0, size), rng.uniform(0.5, 1.0, size)
    noise, update = rng.normal(size=size), badmm_kernels.load("ivon").update
    hyper = {"ess": 100.0, "lr": 1e-6, "beta1": 0.9, "beta2": 1.0, "debias": 1.0, "clip": None}
    return lambda: update(gradient, mean, precision, momentum, (xi, S), **hyper, noise=noise)


def rows() -> Iterator[str]:
    """The table, a size per row."""
    yield "| coordinates | fast path µs | full checks µs | ratio |"
    yield "| ---: | ---: | ---: | ---: |"
    fast = plain.accept
    for size in SIZES:
        call, best = step(size), {"fast": np.inf, "full": np.inf}
        for _ in range(REPEATS):
            for name, accept in (("fast", fast), ("full", lambda _: None)):
                vars(sweep)["accept"] = accept
                best[name] = min(best[name], timeit.timeit(call, number=CALLS) / CALLS * 1e6)
        vars(sweep)["accept"] = fast
        yield f"| {size:,} | {best['fast']:.1f} | {best['full']:.1f} | {best['full'] / best['fast']:.2f} |"


if __name__ == "__main__":
    print("\n".join(rows()))
