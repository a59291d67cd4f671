"""python -m benchmarks.likelihoods [--rows N] [--repeats R]: Gaussian expectations of the logistic loss per row.

Times E[f], E[f′] and E[f″] for N rows of standard deviations mixed from 0.1 to 3, in one run: the generated kernel on
one core and on two, the same with 41 or 153 nodes in NumPy temporaries, and torch with 101 nodes. One core: CPU time
of the calling thread, so that other processes cost what they evict, not what they run; two cores: wall time. Best
and median of R turns in nanoseconds per row, and the largest error against a rule with half the step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import expit, ndtr

import badmm_kernels
from benchmarks import machine

Array = np.ndarray[Any, Any]
Moments = tuple[Array, Array, Array]
Z = np.arange(-20, 21) * 0.45
Z_WEIGHT = np.exp(-0.5 * Z**2) * (0.45 / np.sqrt(2 * np.pi))
A = np.arange(-76, 77) * 0.5
SMOOTH = 1.7  # Φ(a/1.7) is near the sigmoid, so that little is left to integrate


def _density(x: Array, scale: Array | float) -> Array:
    return np.exp(-0.5 * (x / scale) ** 2) / (np.sqrt(2 * np.pi) * scale)


def _probit_integral(a: Array, scale: Array | float) -> Array:
    return a * ndtr(a / scale) + np.square(scale) * _density(a, scale)


WIDE = np.stack(
    [np.logaddexp(0, A) - _probit_integral(A, SMOOTH), expit(A) - ndtr(A / SMOOTH), expit(A) * expit(-A)], axis=1
)


def in_numpy(center: Array, deviation: Array) -> Moments:
    """41 nodes on z for narrow rows, 153 on a for wide ones, all of them in temporaries."""
    out = np.empty((3, len(center)))
    narrow = deviation <= 1.1
    a = center[narrow, None] + deviation[narrow, None] * Z
    tail = np.exp(-np.abs(a))
    upper = 1.0 / (1.0 + tail)
    lower = tail * upper
    out[0, narrow] = (np.maximum(a, 0.0) + np.log1p(tail)) @ Z_WEIGHT
    out[1, narrow] = np.where(a > 0, upper, lower) @ Z_WEIGHT
    out[2, narrow] = (upper * lower) @ Z_WEIGHT
    p, s = center[~narrow], deviation[~narrow]
    rest = (_density(A - p[:, None], s[:, None]) * 0.5) @ WIDE
    total = np.sqrt(SMOOTH**2 + s**2)
    out[:, ~narrow] = rest[:, 0] + _probit_integral(p, total), rest[:, 1] + ndtr(p / total), rest[:, 2]
    return out[0], out[1], out[2]


def in_torch(center: Array, deviation: Array, step: float = 0.18) -> Moments:
    """Nodes on z close enough for the widest row."""
    count = round(9 / step)
    z = torch.arange(-count, count + 1, dtype=torch.float64) * step
    weight = torch.exp(-0.5 * z**2) * (step / (2 * torch.pi) ** 0.5)
    a = torch.from_numpy(center)[:, None] + torch.from_numpy(deviation)[:, None] * z
    sigmoid = torch.sigmoid(a)
    parts = torch.nn.functional.softplus(a, threshold=40), sigmoid, sigmoid * torch.sigmoid(-a)
    value, slope, curvature = ((part @ weight).numpy() for part in parts)
    return value, slope, curvature


def seconds(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> list[float]:
    """By the clock, after one call that is not counted."""
    call()
    found = []
    for _ in range(repeats):
        start = clock()
        call()
        found.append(clock() - start)
    return found


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(argv)
    n, rng = options.rows, np.random.default_rng(0)
    center, deviation = 2.0 * rng.normal(size=n), rng.uniform(0.1, 3.0, n)
    variance, labels = deviation**2, np.zeros(n)
    out = tuple(np.empty(n) for _ in range(3))
    logistic = badmm_kernels.load_likelihood("logistic")

    def kernel() -> Any:
        return logistic.expected_loss(center, variance, labels, out=out)

    torch.set_num_threads(1)
    contenders: list[tuple[str, Callable[[], Any], int]] = [
        ("kernel, one core", kernel, 1),
        ("kernel, two cores", kernel, 2),
        ("NumPy temporaries, one core", lambda: in_numpy(center, deviation), 1),
        ("torch, one core", lambda: in_torch(center, deviation), 1),
    ]
    exact = in_torch(center, deviation, 0.09)
    print(f"{n:,} rows. {machine.describe(['torch'])}\n")
    print("| | best ns | median ns | over the kernel, one core | largest error |")
    print("| --- | ---: | ---: | ---: | ---: |")
    base = np.nan
    for name, call, threads in contenders:
        badmm_kernels.set_num_threads(threads)
        found = (
            np.array(seconds(call, options.repeats, time.perf_counter if threads > 1 else time.thread_time)) / n * 1e9
        )
        base = found.min() if np.isnan(base) else base
        errors = [np.max(np.abs(a - b) / np.maximum(1, np.abs(b))) for a, b in zip(call(), exact, strict=True)]
        print(f"| {name} | {found.min():.0f} | {np.median(found):.0f} | {found.min() / base:.1f} | {max(errors):.1e} |")


if __name__ == "__main__":
    main()
