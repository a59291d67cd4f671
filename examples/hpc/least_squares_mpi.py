"""Federated least squares over MPI with `badmm.solve`: each rank has clients of its own, one round is exact.

mpiexec -n 4 python examples/hpc/least_squares_mpi.py
"""

from __future__ import annotations

import sys

import numpy as np

import badmm
from badmm.likelihoods import LinearRegression
from badmm.transports.mpi import MPI
from badmm.transports.ranks import share_of

CLIENTS, ROWS, D = 5, 40, 12


def rows(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets of rows [first, last): on a cluster, what this rank reads from its own disk."""
    row, column = np.arange(first, last)[:, None], np.arange(1, D + 1)
    X = np.sin(0.37 * (row + 1) * column)
    return X, 0.1 * np.cos(3.0 * row[:, 0]) + X @ (column / D)


def main() -> int:
    """Run one round over all ranks and compare it with the solution of the pooled problem."""
    ranks = MPI()
    own = [
        LinearRegression(*rows(k * ROWS, (k + 1) * ROWS), noise_variance=1.0)
        for k in share_of(ranks.rank, ranks.size, CLIENTS)
    ]
    prior = badmm.Gaussian(np.zeros(D), 0.5)
    result = badmm.solve(own, family="full_gaussian", prior=prior, rounds=1, transport=ranks)

    X, y = rows(0, CLIENTS * ROWS)
    precision = 0.5 * np.eye(D) + X.T @ X
    mean = np.linalg.solve(precision, X.T @ y)
    posterior = result.posterior
    pairs = ((posterior.mean, mean), (posterior.precision, precision))  # type: ignore[attr-defined]
    error = max(float(np.abs(got - expected).max() / np.abs(expected).max()) for got, expected in pairs)
    if ranks.rank == 0:
        print(f"Python, MPI, {ranks.size} ranks: relative error after one round {error:.1e}")
    if not error <= 1e-12:
        print(f"least_squares: expected the pooled solution to a relative 1e-12, got {error:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
