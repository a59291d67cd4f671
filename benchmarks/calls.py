"""python -m benchmarks.calls: time of a call of a kernel by acceptance path, in two tables.

Of IVON: one step by `trusted` (no checks, NumPy arrays alone), with the fast acceptance path of
`badmm_kernels.cpu.plain`, and with the full checks, of NumPy arrays and of torch tensors, which the full checks view
through DLPack. Of the diagonal Gaussian: calls with new outputs, with and without the path for small NumPy arrays
(`badmm_kernels.cpu.runtime`). The paths take turns in one process; best of several repetitions, in microseconds.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import badmm_kernels
from badmm_kernels.cpu import plain, runtime, sweep
from badmm_kernels.face import exchange

SIZES = (64, 1_000, 10_000, 100_000)
REPEATS, CALLS = 9, 100
HYPER = {"ess": 100.0, "lr": 1e-6, "beta1": 0.9, "beta2": 1.0, "debias": 1.0, "clip": None}
FAST = plain.accept, exchange.plain_tensor
SMALL = runtime._small


def arrays(size: int) -> list[np.ndarray[Any, Any]]:
    """Return gradient, mean, precision, momentum, the cavity's two slots and normals."""
    rng = np.random.default_rng(0)
    gradient, mean, momentum, xi, noise = (rng.normal(size=size) for _ in range(5))
    return [gradient, mean, rng.uniform(0.5, 2.0, size), momentum, xi, rng.uniform(0.5, 1.0, size), noise]


def public(wrap: Callable[[Any], Any], size: int) -> Callable[[], Any]:
    """Return a step in place through the public function."""
    gradient, mean, precision, momentum, xi, S, noise = map(wrap, arrays(size))
    update, state = badmm_kernels.load("ivon").update, (mean, precision, momentum)
    return lambda: update(gradient, *state, (xi, S), **HYPER, noise=noise, out=state)


def trusted(size: int) -> Callable[[], Any]:
    """Return a step in place without checks, as `badmm.ivon` takes it."""
    gradient, mean, precision, momentum, xi, S, noise = arrays(size)
    kernel: sweep.SweepKernel = vars(badmm_kernels.load("ivon"))["_UPDATE"]
    state = (mean, precision, momentum)
    sources = kernel.sources((gradient, *state, xi, S), noise)
    scalars = [HYPER[name] for name, _ in kernel.scalars]
    return lambda: kernel.trusted(sources, kernel.coefficients(scalars, mean.dtype, 1)[1], state)


def use(fast: bool) -> None:
    """Select the fast acceptance path, or the full checks alone."""
    vars(sweep)["accept"] = FAST[0] if fast else lambda _: None
    vars(exchange)["plain_tensor"] = FAST[1] if fast else lambda _: None


def rows() -> Iterator[str]:
    """Yield the table, one row per size."""
    yield "| coordinates | trusted µs | fast path µs | full checks µs | ratio | tensors: fast µs | full µs | ratio |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for size in SIZES:
        numpy, tensors = public(np.asarray, size), public(torch.from_numpy, size)
        calls = [(trusted(size), True), *((call, fast) for call in (numpy, tensors) for fast in (True, False))]
        best = [np.inf] * len(calls)
        for _ in range(REPEATS):
            for k, (call, fast) in enumerate(calls):
                use(fast)
                best[k] = min(best[k], timeit.timeit(call, number=CALLS) / CALLS * 1e6)
        use(True)
        bare, *pairs = best
        cells = [f"{a:.1f} | {b:.1f} | {b / a:.2f}" for a, b in (pairs[:2], pairs[2:])]
        yield f"| {size:,} | {bare:.1f} | {' | '.join(cells)} |"


def small_calls(size: int) -> dict[str, Callable[[], Any]]:
    """Return calls of the diagonal Gaussian with new outputs, by kernel."""
    ns, (_, mean, precision, _, xi, other, _) = badmm_kernels.load("diagonal_gaussian"), arrays(size)
    q, p = (xi, precision), (mean, other)
    return {
        "natural_from_standard": lambda: ns.natural_from_standard(mean, precision),
        "whiten": lambda: ns.whiten(q, p),
        "cavity": lambda: ns.cavity(q, p, 0.3),
        "dual_update": lambda: ns.dual_update(p, q, p, 0.3, 1.0),
        "kl": lambda: ns.kl(q, p),
    }


def small_rows() -> Iterator[str]:
    """Yield the table of calls with new outputs, one row per kernel and size."""
    yield "| kernel | coordinates | small path µs | full checks µs | ratio |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for size in SIZES[:3]:
        for name, call in small_calls(size).items():
            best = {True: np.inf, False: np.inf}
            for _ in range(REPEATS):
                for small in best:
                    vars(runtime)["_small"] = SMALL if small else lambda _: None
                    best[small] = min(best[small], timeit.timeit(call, number=CALLS) / CALLS * 1e6)
            vars(runtime)["_small"] = SMALL
            yield f"| {name} | {size:,} | {best[True]:.1f} | {best[False]:.1f} | {best[False] / best[True]:.2f} |"


if __name__ == "__main__":
    print("\n".join([*rows(), "", *small_rows()]))
