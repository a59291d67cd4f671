"""python -m benchmarks.structures: bytes against distance to the exact posterior, from isotropic to full covariances.

For each family between isotropic and full: the bytes that clients send until the gap is `GAP`, and KL(q‖p) to the exact
posterior p. Runs are deterministic. KL(q‖p) is the objective at q plus log Z, and log Z an importance-sampling
estimate with the full Gaussian as the proposal: mean and standard deviation over `SEEDS`. Writes docs/structures.md
and docs/structures.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, NullFormatter

import badmm
from badmm.experiments.plots import style as plots
from badmm.experiments.store.figures import png
from badmm.families import registry
from badmm.families.family import Choice
from benchmarks.machine import write
from validation.problems import SuiteProblem, problem

DOCS = Path(__file__).resolve().parents[1] / "docs"
GAP, ROUNDS = 1e-4, 200
SEEDS, DRAWS = range(5), 1000
PROBLEMS: dict[str, tuple[Sequence[Sequence[int]], Sequence[int]]] = {
    "poisson/diabetes/label-10": (((1, 4, 6), (1, 10)), (2, 3)),
}
"""Blocks and ranks by problem."""
KINDS = {
    "isotropic": (plots.BLACK, "x"),
    "diagonal": (plots.ORANGE, "D"),
    "block-diagonal": (plots.GREEN, "s"),
    "low rank": (plots.PINK, "^"),
    "full": (plots.BLUE, "o"),
}
INTRODUCTION = f"""# Covariance structures

Written by `python -m benchmarks.structures`. From isotropic to full: the numbers in one λ as sent, the rounds and the
bytes that one client sends until the gap is {GAP:g} posterior standard deviations (its messages up, with their few
numbers), and the Kullback–Leibler divergence KL(q‖p) in nats from the fixed point q to the exact posterior p. Runs
start at the prior and are deterministic; log Z of p is estimated by importance sampling from the full Gaussian,
{len(SEEDS)} seeds of {DRAWS} draws, and its standard deviation is that of every KL in a table. The isotropic family's
precision is the prior's, and fixed.

Low rank plus diagonal is experimental: rank 1 does not converge on this problem, and some other problems and ranks do
not converge either. The tables show runs that did.

![Bytes against distance](structures.png)
"""


@dataclass(frozen=True)
class Measured:
    """One family on one problem."""

    kind: str
    label: str
    doubles: int
    rounds: int
    bytes_up: float
    objective: float
    converged: bool


def families(name: str, dim: int) -> list[tuple[str, str, str | Choice]]:
    """(kind, label, family) from isotropic to full."""
    blocks, ranks = PROBLEMS[name]
    made: list[tuple[str, str, str | Choice]] = [
        ("isotropic", "isotropic", "isotropic_gaussian"),
        ("diagonal", "diagonal", "diagonal_gaussian"),
    ]
    made += [("block-diagonal", f"blocks of {_sizes(b)}", badmm.BlockDiagonalGaussian(b)) for b in blocks]
    made += [("low rank", f"rank {r} + diagonal", badmm.LowRankGaussian(r)) for r in ranks]
    return [*made, ("full", "full", "full_gaussian")]


def _sizes(blocks: Sequence[int]) -> str:
    runs = [f"{blocks.count(b)} × {b}" if blocks.count(b) > 1 else str(b) for b in dict.fromkeys(blocks)]
    return ", ".join(runs)


def measure(case: SuiteProblem) -> tuple[list[Measured], float, float]:
    """Every family on a problem, and log Z with its standard deviation."""
    clients, prior = case.clients(), badmm.Gaussian(np.zeros(case.dim), case.prior_precision)
    found = []
    result: Any = None
    for kind, label, family in families(case.name, case.dim):
        result = badmm.solve(clients, family=family, prior=prior, tol=GAP, rounds=ROUNDS)
        last = result.history[-1]
        doubles = registry.bind(family, prior).message_doubles
        each = last.bytes_up / case.num_clients
        found.append(Measured(kind, label, doubles, result.rounds, each, last.objective, result.converged))
        print(case.name, found[-1], flush=True)
    estimates = [log_evidence(clients, prior, result.posterior, seed) for seed in SEEDS]
    return found, float(np.mean(estimates)), float(np.std(estimates, ddof=1))


def log_evidence(clients: Sequence[Any], prior: badmm.Gaussian, q: badmm.Gaussian, seed: int) -> float:
    """log ∫ exp(−Σ ℓ_k) p_0 dθ by importance sampling from q."""
    draws = q.sample(DRAWS, seed)
    log_ratio = [_log_density(prior, t) - _log_density(q, t) - sum(c.loss(t) for c in clients) for t in draws]
    top = max(log_ratio)
    return float(top + np.log(np.mean(np.exp(np.array(log_ratio) - top))))


def _log_density(q: badmm.Gaussian, theta: Any) -> float:
    S = q.precision if q.precision.ndim == 2 else np.diag(np.broadcast_to(q.precision, q.dim))
    gap = theta - q.mean
    return float(0.5 * np.linalg.slogdet(S)[1] - 0.5 * q.dim * np.log(2 * np.pi) - 0.5 * gap @ S @ gap)


def table(case: SuiteProblem, found: Sequence[Measured], evidence: float, deviation: float) -> str:
    """A problem's section."""
    lines = [
        f"## {case.name}",
        "",
        f"{case.num_clients} clients, d = {case.dim}; log Z = {evidence:.4f} ± {deviation:.4f}.",
        "",
        "| family | numbers in a λ | rounds | kB sent by a client | KL(q‖p), nats |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in found:
        rounds = str(one.rounds) if one.converged else f"over {one.rounds}"
        size = f"{one.bytes_up / 1000:.2f}"
        lines.append(f"| {one.label} | {one.doubles} | {rounds} | {size} | {one.objective + evidence:.3g} |")
    return "\n".join(lines) + "\n"


def picture(results: dict[str, tuple[list[Measured], float, float]]) -> Figure:
    """Numbers in a λ (left of each pair) and bytes until the gap (right) against KL, a row per problem."""
    figure = Figure(figsize=(10.0, 3.6 * len(results)), layout="constrained")
    rows = figure.subplots(len(results), 2, squeeze=False, sharey="row")
    for axes, (name, (found, evidence, _)) in zip(rows, results.items(), strict=True):
        sizes: tuple[tuple[str, list[float]], ...] = (
            ("numbers in a λ", [one.doubles for one in found]),
            ("kB sent by a client", [one.bytes_up / 1000 for one in found]),
        )
        for place, (label, values) in zip(axes, sizes, strict=True):
            for one, x in zip(found, values, strict=True):
                color, marker = KINDS[one.kind]
                y = max(one.objective + evidence, 1e-4)
                place.plot(x, y, color=color, marker=marker, ls="none", ms=7)
                place.annotate(
                    one.label,
                    (x, y),
                    xytext=(6, 4 if one.kind != "block-diagonal" else -11),
                    textcoords="offset points",
                    fontsize=7.5,
                )
            place.set(xscale="log", yscale="log", xlabel=label)
            place.margins(x=0.25, y=0.15)
            place.grid(alpha=0.3, which="both")
            place.xaxis.set_minor_formatter(NullFormatter())
            place.xaxis.set_major_formatter(LogFormatterMathtext())
        axes[0].set(ylabel="KL(q‖p), nats", title=name)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--out", type=Path, default=DOCS, help="folder that structures.md and structures.png go to")
    options = parser.parse_args(arguments)
    results = {name: measure(problem(name)) for name in options.problems}
    sections = [table(problem(name), *found) for name, found in results.items()]
    write(options.out / "structures.md", "\n".join([INTRODUCTION, *sections]))
    (options.out / "structures.png").write_bytes(png(picture(results)))


if __name__ == "__main__":
    main()
