"""Rounds needed where some of the clients take part in each: `python -m benchmarks.participation`.

Ten clients, ten seeds of data and draws, quadratics and logistic regressions. Writes docs/participation.md and the plot
beside it. Counts of rounds do not depend on the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

import badmm
from badmm.experiments.plots import style
from badmm.experiments.store.figures import save_figure
from badmm.likelihoods import LogisticRegression, Quadratic
from badmm.transports.atomic import write_atomic

K, DIM, SEEDS = 10, 5, range(10)
COUNTS = (1, 2, 3, 4, 5, 7, 10)
NEAR = 1e-6
"""Distance of λ_g from the fixed point, in posterior standard deviations, at which a round count ends."""
MOST = 600
PRIOR = badmm.Gaussian(np.zeros(DIM), 1.0)


def quadratics(seed: int) -> list[Quadratic]:
    """ℓ(θ) = ½ θᵀHθ − bᵀθ with ten rows' curvature each."""
    rng = np.random.default_rng([1, seed])
    rows = rng.normal(size=(K, 10, DIM))
    return [Quadratic(X.T @ X, rng.normal(size=DIM)) for X in rows]


def logistic(seed: int) -> list[LogisticRegression]:
    """A hundred rows each, around a mean of the client's own."""
    rng = np.random.default_rng([2, seed])
    theta, found = rng.normal(size=DIM), []
    for _ in range(K):
        X = rng.normal(size=(100, DIM)) + 0.5 * rng.normal(size=DIM)
        found.append(LogisticRegression(X, (rng.random(100) < 1 / (1 + np.exp(-X @ theta))).astype(int)))
    return found


@dataclass(frozen=True)
class Problem:
    """A kind of client, and the step sizes under which it is solved."""

    title: str
    clients: Callable[[int], list[Any]]
    steps: dict[str, Any]


# at α = γ = ρ = 1 a quadratic client is done once it has been asked, so that what is left to chance is when that is
EXACT = {"rho": 1.0, "alpha": 1.0, "damping": 1.0}
PROBLEMS = (Problem("quadratics", quadratics, EXACT), Problem("logistic regression", logistic, {}))


HEAD = f"""# Some of the clients in each round

Written by `python -m benchmarks.participation`: {K} clients, of which `per_round` take part in a round, drawn anew in
each; {len(SEEDS)} seeds of data and draws, a full Gaussian over {DIM} coordinates. Who is absent keeps λ_k and η_k.
A run is counted up to the first round whose λ_g is within {NEAR:g} posterior standard deviations of the fixed point of
*all* clients, which is the same whoever takes part; one that is not there after {MOST} rounds counts as {MOST}. Rounds,
and clients asked until then; mean ± sd:

| per round | quadratics | predicted | logistic regression | asked, quadratics | asked, logistic |
| --- | --- | --- | --- | --- | --- |"""
FOOT = """
![Rounds by the number of clients in a round](participation.png)

What is derived: at α = γ = 1 the dual line gives η_k = ∇L_k(μ_k), which for a quadratic is the constant of its fixed
point, whatever λ_g was. A quadratic client is done once it has been asked, and the run once all have: the time in which
a collector of coupons who draws m of K at once has all of them,
E[T] = Σ_j (−1)^(j+1) C(K, j) / (1 − C(K−j, m)/C(K, m)), the column *predicted*. For other losses ∇L_k moves with λ_g
and every client has to be asked a few times; how often is measured, not derived. Runs in which not all take part do not
mix earlier dual lines, which needs every client's: the last row does."""


class NearError(Exception):
    """The run is near enough."""


def rounds(problem: Problem, seed: int, count: int) -> int:
    """Rounds until λ_g is near the fixed point of all clients; MOST where it never is."""
    clients = problem.clients(seed)
    shared: dict[str, Any] = {"family": "full_gaussian", "prior": PRIOR, "workers": 1}
    centre = badmm.solve(clients, **shared, tol=1e-11)
    family = centre.state.family
    assert family is not None
    found: list[int] = []

    def look(state: badmm.SolverState) -> None:
        change = tuple((a - b)[None] for a, b in zip(state.natural, centre.natural, strict=True))
        if np.linalg.norm(family.whiten(centre.natural, change)) <= NEAR:
            found.append(state.round)
            raise NearError

    try:
        options: dict[str, Any] = {"per_round": count, "seed": seed, "rounds": MOST, "tol": 0.0, "callbacks": [look]}
        badmm.solve(clients, **shared, **problem.steps, **options)
    except NearError:
        return found[0]
    return MOST


def everyone_asked(count: int) -> float:
    """The mean of the first round by which all K clients have been asked, `count` at random in each round.

    E[T] = Σ_{j=1}^K (−1)^{j+1} C(K, j) / (1 − C(K − j, m)/C(K, m)): inclusion and exclusion over who is missing.
    """
    missed = [comb(K - j, count) / comb(K, count) for j in range(1, K + 1)]
    return sum((-1) ** (j + 1) * comb(K, j) / (1.0 - p) for j, p in enumerate(missed, start=1))


def measure() -> dict[str, dict[int, list[int]]]:
    """Rounds by problem and count, one per seed."""
    return {p.title: {count: [rounds(p, seed, count) for seed in SEEDS] for count in COUNTS} for p in PROBLEMS}


def page(found: dict[str, dict[int, list[int]]]) -> Iterator[str]:
    """The lines of the page."""
    yield HEAD
    titles = [p.title for p in PROBLEMS]
    for count in COUNTS:
        cells, asked = [], []
        for title in titles:
            mean, deviation = np.mean(found[title][count]), np.std(found[title][count], ddof=1)
            cells.append(f"{mean:.1f} ± {deviation:.1f}")
            asked.append(f"{count * mean:.0f}")
        yield f"| {count} | {cells[0]} | {everyone_asked(count):.1f} | {cells[1]} | {' | '.join(asked)} |"
    yield FOOT


def plot(found: dict[str, dict[int, list[int]]], path: Path) -> None:
    """Mean and standard deviation against the fraction of clients, with the prediction."""
    figure, (axes,) = style.figure(1, width=6.4, height=4.2)
    fractions = np.array(COUNTS) / K
    looks = zip(found.items(), "os", (style.BLUE, style.ORANGE), strict=True)
    for (title, counts), marker, color in looks:
        values = np.array([counts[count] for count in COUNTS], dtype=float)
        look: dict[str, Any] = {"marker": marker, "color": color, "capsize": 3}
        axes.errorbar(fractions, values.mean(1), values.std(1, ddof=1), label=f"{title}, mean ± sd", **look)
    predicted = [everyone_asked(count) for count in COUNTS]
    axes.plot(fractions, predicted, "--", color=style.BLACK, label="quadratics, predicted", zorder=3)
    axes.set(xlabel="fraction of the clients in each round", ylabel="rounds to the fixed point", yscale="log")
    axes.legend(frameon=False)
    save_figure(path, figure)


def main() -> None:
    """Measure, write the page and its plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/participation.md"))
    options = parser.parse_args()
    found = measure()
    write_atomic(options.out, ("\n".join(page(found)) + "\n").encode())
    plot(found, options.out.with_suffix(".png"))
    print("\n".join(page(found)))


if __name__ == "__main__":
    main()
