"""python -m benchmarks.large: peak memory and time of logistic regression on rows that are read in chunks.

The rows lie in one file per client, 32-bit numbers that are made with a fixed seed; `badmm.likelihoods.Streamed` reads
some at a time in every evaluation. Federated Newton, the mode to 1e-8.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit

import badmm
from badmm.families.distributions import Gaussian
from badmm.likelihoods import LogisticRegression, Streamed
from benchmarks.machine import describe

CHUNK = 1 << 17
"""Rows read at a time."""


def write(path: Path, rows: int, features: int, seed: int) -> None:
    """`rows` rows of standard normal features and a label from a logistic model with coefficients 1/√d."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            X = rng.standard_normal((min(CHUNK, rows - start), features), dtype=np.float32)
            y = rng.random(len(X)) < expit(X.sum(axis=1) / np.sqrt(features))
            np.column_stack([X, y.astype(np.float32)]).tofile(file)


def chunks(path: Path, features: int) -> Iterator[LogisticRegression]:
    """The likelihoods of a file's rows, CHUNK rows at a time."""
    with path.open("rb") as file:
        while (part := np.fromfile(file, np.float32, CHUNK * (features + 1))).size:
            block = part.reshape(-1, features + 1)
            yield LogisticRegression(block[:, :-1].astype(np.float64), block[:, -1] > 0.5)


def client(path: Path, features: int) -> Streamed:
    """One site."""
    return Streamed(lambda: chunks(path, features))


def peak() -> float:
    """The largest resident memory of the process so far, GB (10⁹ bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--clients", type=int, default=10)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{k}.f32" for k in range(chosen.clients)]
        for k, path in enumerate(paths):
            write(path, chosen.rows // chosen.clients, chosen.features, k)
        size = sum(path.stat().st_size for path in paths) / 1e9
        before, wall, cpu = peak(), time.perf_counter(), time.process_time()
        members = [client(path, chosen.features) for path in paths]
        prior = Gaussian(np.zeros(chosen.features), 1.0)
        options = {"expectation": "delta", "method": "newton", "tol": 1e-8}
        result = badmm.solve(members, family="full_gaussian", prior=prior, **options)  # type: ignore[arg-type]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert isinstance(result.posterior, Gaussian)
    error = np.abs(result.posterior.mean - 1 / np.sqrt(chosen.features)) * np.sqrt(np.diag(result.posterior.precision))
    print(describe())
    print("\n| rows | columns | clients | files, GB | peak memory, GB | before, GB | wall s | CPU s | rounds |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    cells = (chosen.rows, chosen.features, chosen.clients, f"{size:.2f}", f"{peak():.2f}", f"{before:.2f}")
    print(f"| {' | '.join(map(str, (*cells, f'{wall:.0f}', f'{cpu:.0f}', result.rounds)))} |")
    print(f"\nlargest distance from the true coefficients: {error.max():.1f} posterior standard deviations")
    return int(not result.converged)


if __name__ == "__main__":
    sys.exit(main())
