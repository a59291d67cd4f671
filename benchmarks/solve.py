"""python -m benchmarks.solve: time of `badmm.solve` on logistic regression relative to federated IRLS in NumPy.

`solve` runs with the full Gaussian, tol 1e-8 and otherwise the defaults, under the delta method, under E_q, and as
federated Newton. Federated IRLS is Newton's method for the posterior mode: in every round each client sends its
gradient and XᵀWX, and the server solves. It gives a Laplace approximation, as the delta method does; E_q gives the
variational posterior. Wall seconds depend on the load of the machine, so the CPU seconds of the process are printed
beside them. Compiled loops are called once before the clock starts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

import badmm
from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.likelihoods import LogisticRegression
from badmm.likelihoods.base import Expected
from benchmarks.machine import describe

Client = tuple[Array, Array]


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds, rounds, and per client how often it gave ∇²ℓ, and ∇ℓ without it."""

    wall: float
    cpu: float
    rounds: int
    curvatures: float
    gradients: float


class Counted(LogisticRegression):
    """A logistic regression that counts what it is asked for, its configured copies included."""

    def __init__(self, X: Array, y: Array) -> None:
        super().__init__(X, y)
        self.asked: Counter[str] = Counter()

    def gradient(self, posterior: Gaussian) -> tuple[float, Array]:
        """As the likelihood."""
        self.asked["gradients"] += 1
        return super().gradient(posterior)

    def expectations(self, posterior: Gaussian) -> Expected:
        """As the likelihood."""
        self.asked["curvatures"] += 1
        return super().expectations(posterior)


def problem(n: int, d: int, num_clients: int, seed: int = 0) -> list[Client]:
    """n rows of d standard normal features over the clients, labels from a logistic model with ‖θ‖ ≈ 2."""
    rng = np.random.default_rng(seed)
    X, theta = rng.normal(size=(n, d)), rng.normal(size=d) * (2.0 / np.sqrt(d))
    y = (rng.random(n) < expit(X @ theta)).astype(np.float64)
    return [(X[part], y[part]) for part in np.array_split(np.arange(n), num_clients)]


def irls(clients: Sequence[Client], tol: float = 1e-8) -> tuple[Array, Array, int]:
    """The mode under a standard normal prior, the Hessian there, and the rounds it took."""
    d = clients[0][0].shape[1]
    theta = np.zeros(d)
    for index in range(1, 101):
        gradient, hessian = theta.copy(), np.eye(d)
        for X, y in clients:
            p = expit(X @ theta)
            gradient += X.T @ (p - y)
            half = X * np.sqrt(p * (1 - p))[:, None]
            hessian += half.T @ half
        step = np.linalg.solve(hessian, gradient)
        theta -= step
        if np.sqrt(step @ hessian @ step) <= tol:
            return theta, hessian, index
    raise RuntimeError(f"IRLS: expected a step of at most {tol:g} posterior standard deviations in 100 rounds")


RUNS: dict[str, dict[str, Any]] = {
    "delta": {"expectation": "delta"},
    "E_q": {"expectation": "auto"},
    "newton": {"expectation": "delta", "method": "newton"},
}


def time_solve(
    clients: Sequence[Client], workers: int | None, run: str = "E_q", progress: Any = None
) -> tuple[badmm.Result, Cost]:
    """One run of `badmm.solve`."""
    prior = Gaussian(np.zeros(clients[0][0].shape[1]), 1.0)
    options: dict[str, Any] = {"family": "full_gaussian", "prior": prior, "workers": workers, **RUNS[run]}
    hooks = () if progress is None else (progress,)
    wall, cpu = time.perf_counter(), time.process_time()
    members = [Counted(X, y) for X, y in clients]
    result = badmm.solve(members, tol=1e-8, callbacks=hooks, **options)
    cost = (time.perf_counter() - wall, time.process_time() - cpu)
    curvatures, gradients = (
        sum(member.asked[name] for member in members) / len(members) for name in ("curvatures", "gradients")
    )
    return result, Cost(*cost, result.rounds, curvatures, gradients)


def time_irls(clients: Sequence[Client]) -> tuple[Array, Array, Cost]:
    """One run of federated IRLS."""
    wall, cpu = time.perf_counter(), time.process_time()
    theta, hessian, rounds = irls(clients)
    return theta, hessian, Cost(time.perf_counter() - wall, time.process_time() - cpu, rounds, float(rounds), 0.0)


def report(n: int, d: int, num_clients: int, peer: Cost, ours: dict[str, Cost]) -> str:
    """A table of all, with ratios to IRLS."""
    lines = [
        describe(),
        f"n = {n}, d = {d}, K = {num_clients}, full Gaussian, tol 1e-8",
        "",
        "| | wall s | CPU s | rounds | ∇²ℓ per client | ∇ℓ alone | wall over IRLS | CPU over IRLS |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, cost in (("federated IRLS, NumPy", peer), *((f"badmm.solve, {run}", cost) for run, cost in ours.items())):
        cells = (f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.rounds}", f"{cost.curvatures:.1f}")
        ratios = (f"{cost.gradients:.1f}", f"{cost.wall / peer.wall:.1f}", f"{cost.cpu / peer.cpu:.1f}")
        lines.append(f"| {' | '.join((name, *cells, *ratios))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a limit is given and missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solve", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=300)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--workers", type=int, help="threads (default: the cores)")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--limit", type=float, help="wall seconds that any run may take")
    chosen = parser.parse_args(arguments)
    clients = problem(chosen.rows, chosen.features, chosen.clients)
    *_, peer = time_irls(clients)

    def show(state: Any) -> None:
        record = state.record
        print(f"round {record.round}: gap {record.gap:.1e}, {record.seconds:.1f} s", file=sys.stderr)

    ours = {}
    for run in chosen.runs:
        time_solve([(X[:9], y[:9]) for X, y in clients[:2]], 1, run)  # compiles
        result, ours[run] = time_solve(clients, chosen.workers, run, show)
        if not result.converged:
            print(f"solve, {run}: expected a gap of 1e-8, got {result.history[-1].gap:.2g}", file=sys.stderr)
            return 1
    print(report(chosen.rows, chosen.features, chosen.clients, peer, ours))
    return int(chosen.limit is not None and max(cost.wall for cost in ours.values()) > chosen.limit)


if __name__ == "__main__":
    sys.exit(main())
