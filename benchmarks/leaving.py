"""A client that leaves after convergence, beside a run that never had it: `python -m benchmarks.leaving`.

Prints the table of docs/engines.md: mean ± sd over seeds of the relative distance of λ_g after 0 to 3 further rounds,
and of the rounds that a run from the prior needs. Ten clients; each seed has its own data and another one that leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import badmm
from benchmarks.participation import PRIOR, K, logistic, quadratics

SEEDS = range(5)
SHARED: dict[str, Any] = {"family": "full_gaussian", "prior": PRIOR, "workers": 1}
NEWTON = {"method": "newton", "expectation": "delta"}
CASES: tuple[tuple[str, Callable[[int], list[Any]], dict[str, Any]], ...] = (
    ("quadratics", quadratics, {}),
    ("logistic regression, newton, delta", logistic, NEWTON),
    ("logistic regression, bayes_admm", logistic, {}),
)


def apart(natural: Any, right: badmm.Result) -> float:
    """The largest relative difference of λ over its slots."""
    pairs = zip(natural, right.natural, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def case(make: Callable[[int], list[Any]], method: dict[str, Any], seed: int) -> tuple[list[float], int]:
    """Distances after 0, 1, 2 and 3 further rounds, and the rounds of a run from the prior."""
    clients, gone = make(seed), seed % K
    rest = [*clients[:gone], *clients[gone + 1 :]]
    never = badmm.solve(rest, **SHARED, **method, tol=1e-12)
    whole = badmm.solve(clients, **SHARED, **method)
    start = tuple(g + eta[gone] for g, eta in zip(whole.natural, whole.duals, strict=True))
    found = [apart(start, never)]
    options: dict[str, Any] = {"state": whole.state.without([gone]), "rounds": whole.rounds + 3, "tol": 0.0}
    badmm.solve(
        rest, **SHARED, **method, **options, callbacks=[lambda state: found.append(apart(state.natural, never))]
    )
    found += [found[-1]] * (4 - len(found))  # a gap of exactly 0 ends a run
    return found, badmm.solve(rest, **SHARED, **method).rounds


def main() -> None:
    """Print the table."""
    print("| problem | one subtraction | 1 round | 2 rounds | 3 rounds | rounds from the prior |")
    print("| --- | --- | --- | --- | --- | --- |")
    for title, make, method in CASES:
        distances, rounds = zip(*(case(make, method, seed) for seed in SEEDS), strict=True)
        means, deviations = np.mean(distances, axis=0), np.std(distances, axis=0, ddof=1)
        cells = [f"{mean:.0e} ± {sd:.0e}" for mean, sd in zip(means, deviations, strict=True)]
        print(f"| {title} | {' | '.join(cells)} | {np.mean(rounds):.1f} ± {np.std(rounds, ddof=1):.1f} |", flush=True)


if __name__ == "__main__":
    main()
