"""Federated least squares in one round of Bayesian ADMM, in one's own @njit code; see least_squares.c.

python examples/hpc/least_squares.py

The kernels' scalar functions are inlined into the loop below: the round is one pass over the entries of λ.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numba import njit

from badmm_kernels.cpu.round import client_map_f64, round_update_f64, server_update_f64

CLIENTS, ROWS, D = 5, 40, 12


@njit
def one_round(prior: Any, server: Any, dual: Any, gradient: Any, rho: float, damping: float, alpha: float) -> None:
    """Client, dual and server lines, entry by entry; `dual` and `server` are overwritten."""
    clients = dual.shape[0]
    for i in range(server.size):
        total = 0.0
        for k in range(clients):
            client = client_map_f64(server[i], dual[k, i], gradient[k, i], rho)
            dual[k, i], share = round_update_f64(dual[k, i], server[i], client, rho, damping, alpha, clients)
            total += share
        server[i] = server_update_f64(prior[i], total, alpha)


def moments(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(b, H) in one array: the loss is ½ θᵀHθ − bᵀθ, and its natural gradient the constant (−b, −H)."""
    return np.concatenate([X.T @ y, (X.T @ X).ravel()])


def mean_of(natural: np.ndarray) -> np.ndarray:
    """S⁻¹ξ."""
    return np.linalg.solve(natural[D:].reshape(D, D), natural[:D])


def main() -> int:
    """Run the round and compare it with the solution of the pooled problem."""
    row, column = np.arange(CLIENTS * ROWS)[:, None], np.arange(1, D + 1)
    X = np.sin(0.37 * (row + 1) * column)
    y = 0.1 * np.cos(3.0 * row[:, 0]) + X @ (column / D)
    prior = np.concatenate([np.zeros(D), 0.5 * np.eye(D).ravel()])
    parts = zip(np.split(X, CLIENTS), np.split(y, CLIENTS), strict=True)
    gradient = np.stack([-moments(*part) for part in parts])
    server, dual, rho = prior.copy(), np.zeros_like(gradient), 1.0 / CLIENTS
    one_round(prior, server, dual, gradient, rho, 1.0, 1.0 / (1.0 + rho * CLIENTS))

    direct = prior + moments(X, y)
    pairs = ((mean_of(server), mean_of(direct)), (server, direct))
    error = max(float(np.abs(got - expected).max() / np.abs(expected).max()) for got, expected in pairs)
    print(f"njit: relative error after one round {error:.1e}")
    if not error <= 1e-12:
        print(f"least_squares: expected the pooled solution to a relative 1e-12, got {error:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
