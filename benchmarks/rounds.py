"""python -m benchmarks.rounds: count the communication rounds of every variant on every problem.

Runs are deterministic, so there are no seeds to average over. `--quick` runs every fifth problem, `--problems` those
whose names contain a text. A run of the whole suite writes docs/rounds.md, a partial one the path of `--out`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from multiprocessing import get_context
from pathlib import Path

# one BLAS thread a process, set before NumPy is imported: matrices are small and the processes share the cores
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from benchmarks.machine import write  # noqa: E402
from validation.oracles.textbook import CLASSIC_LIMIT, PENALTY_GRID  # noqa: E402
from validation.problems import SuiteProblem, problem, problems, stress_problems  # noqa: E402
from validation.runs.rounds import (  # noqa: E402
    CAP,
    DELTA,
    DELTA_VARIANTS,
    FAMILIES,
    LEVELS,
    LIMITS,
    VARIANTS,
    SuiteOutcome,
    run,
    run_classic,
    within_bound,
    within_limits,
)

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "rounds.md"
CLASSIC = "classic ADMM"
Cell = tuple[str, str]


def work(task: Cell) -> list[SuiteOutcome]:
    """All variants of one family on one problem, or classic ADMM."""
    name, family = task
    chosen = problem(name)
    if family == CLASSIC:
        return [run_classic(chosen)]
    if family == DELTA:
        return [run(chosen, DELTA, variant) for variant in DELTA_VARIANTS]
    return [run(chosen, family, variant) for variant in VARIANTS]


def measure(chosen: Sequence[SuiteProblem], jobs: int) -> list[SuiteOutcome]:
    """Return the outcomes of every variant on the problems from `jobs` processes, with progress on standard error."""
    size = {p.name: p.num_clients * p.dim for p in chosen}
    tasks = [(p.name, family) for p in chosen for family in (*FAMILIES, DELTA, CLASSIC)]
    tasks.sort(key=lambda task: -size[task[0]])
    outcomes: list[SuiteOutcome] = []
    with get_context("spawn").Pool(jobs) as pool:
        for number, found in enumerate(pool.imap_unordered(work, tasks), start=1):
            outcomes += found
            print(f"\r{number} of {len(tasks)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return outcomes


def cell(outcome: SuiteOutcome) -> str:
    """Rounds to both levels; a run that broke off says so, † marks a violated existence condition."""
    counts = " / ".join("–" if count is None else str(count) for count in outcome.rounds)
    if outcome.failure:
        counts = outcome.failure if outcome.rounds[0] is None else f"{counts}, {outcome.failure}"
    return counts + (" †" if outcome.margin <= 0 else "")


def short(level: float) -> str:
    """1e-8 rather than 1e-08."""
    return f"{level:.0e}".replace("e-0", "e-")


def span(counts: Iterable[int | None]) -> str:
    """How many problems got there and in how many rounds."""
    reached = [count for count in counts if count is not None]
    return f"{len(reached)} in {min(reached)}–{max(reached)}" if reached else "0"


def summary_row(title: str, outcomes: Sequence[SuiteOutcome]) -> str:
    """One line of a summary table."""
    lost = sum(bool(outcome.failure) for outcome in outcomes)
    violated = sum(outcome.margin <= 0 for outcome in outcomes)
    levels = " | ".join(span(outcome.rounds[i] for outcome in outcomes) for i in range(len(LEVELS)))
    return f"| {title} | {levels} | {lost} | {violated} |"


def family_section(family: str, names: Sequence[str], outcomes: Sequence[SuiteOutcome]) -> list[str]:
    """Summary and the table of every problem of one family, classic ADMM beside it."""
    by = {(o.problem, o.variant): o for o in outcomes if o.family in (family, "isotropic_gaussian")}
    titles = [variant.title for variant in VARIANTS]
    level, limit = LIMITS[family]
    met = sum(within_limits(by[name, titles[0]]) for name in names)
    lines = [
        f"### {family}",
        "",
        f"Defaults within {short(level)} of the solution in at most {limit} rounds, the existence condition never "
        f"violated: {met} of {len(names)} problems.",
        "",
        "| variant | reached 1e-3, rounds | reached 1e-8, rounds | broke off | condition violated |",
        "| --- | --- | --- | --- | --- |",
        *(summary_row(title, [by[name, title] for name in names]) for title in (*titles, CLASSIC)),
        "",
        "| problem | " + " | ".join((*titles, CLASSIC, "penalty")) + " |",
        "| --- |" + " --- |" * (len(titles) + 2),
    ]
    for name in names:
        classic = by[name, CLASSIC]
        penalty = " / ".join("–" if value is None else f"{value:g}" for value in classic.penalties)
        cells = [cell(by[name, title]) for title in (*titles, CLASSIC)]
        lines.append(f"| {name} | " + " | ".join((*cells, penalty)) + " |")
    return [*lines, ""]


def bounded(name: str, outcomes: Sequence[SuiteOutcome]) -> bool:
    """Whether the defaults are within their bound on a problem under the delta method."""
    return within_bound({o.variant: o for o in outcomes if (o.problem, o.family) == (name, DELTA)})


def delta_section(names: Sequence[str], outcomes: Sequence[SuiteOutcome]) -> list[str]:
    """The full family with expectations at the mean: the bound, and the table of every problem."""
    by = {(o.problem, o.variant): o for o in outcomes if o.family == DELTA}
    titles = [variant.title for variant in DELTA_VARIANTS]
    met = sum(bounded(name, outcomes) for name in names)
    return [
        f"### {DELTA}",
        "",
        "Defaults at both levels in no more rounds than the best of the others (*mixing*: the step sizes that are the "
        f"defaults where the loss is averaged over the posterior): {met} of {len(names)} problems.",
        "",
        "| problem | " + " | ".join(titles) + " |",
        "| --- |" + " --- |" * len(titles),
        *(f"| {name} | " + " | ".join(cell(by[name, title]) for title in titles) + " |" for name in names),
        "",
    ]


def problem_table(chosen: Sequence[SuiteProblem]) -> list[str]:
    """Return the table of the problems."""
    lines = ["| problem | K | rows per client | d | prior precision | |", "| --- | --- | --- | --- | --- | --- |"]
    for p in chosen:
        sizes = [len(y) for y in p.y]
        rows = f"{min(sizes)}–{max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
        lines.append(f"| {p.name} | {p.num_clients} | {rows} | {p.dim} | {p.prior_precision:g} | {p.note} |")
    return [*lines, ""]


HEAD = f"""# Rounds to the central solution

Written by `python -m benchmarks.rounds` for the problems of `validation/problems.py`. Every run is deterministic and
starts at the prior with zero duals. A cell shows the rounds to come within 1e-3 / 1e-8 of the solution that
`validation/oracles/central.py` computes from the pooled data; – means not within {CAP} rounds. The distance is the
largest over the slots of ‖λ − λ*‖₂ / ‖λ*‖₂ (Frobenius norm for the precision matrix). † marks a run in which some round
violated the existence condition ρ S_g + η_S ≻ 0.

- *defaults*: `badmm.solve` with its automatic step sizes.
- *Newton*: ρ → ∞, α = γ = 1; under the delta method federated IRLS.
- *ρ = 1/K*: α = 1/(1 + ρK) = ½, exact in one round on quadratics.
- *PVI*: ρ = α = 1.
- *Bregman*: `bregman_admm` with its automatic step sizes.
- *classic ADMM*: `validation/oracles/textbook.py` (Boyd et al. 2011, section 7.1.1), a point estimate. Its distance is
  that of the mean to the mode, ‖z − m*‖₂ / ‖m*‖₂. It tries the penalties {", ".join(f"{r:g}" for r in PENALTY_GRID)},
  then 10^±¼ times the best one; each level uses the penalty that reaches it first (– means none within
  {CLASSIC_LIMIT} rounds). The other columns use one setting for all problems.

Softmax uses the delta method (expectations at the mean) in every family.
"""


def document(chosen: Sequence[SuiteProblem], beyond: Sequence[SuiteProblem], outcomes: Sequence[SuiteOutcome]) -> str:
    """The whole page."""
    lines = [HEAD, "## The suite", ""]
    for family in FAMILIES:
        lines += family_section(family, [p.name for p in chosen], outcomes)
    lines += delta_section([p.name for p in chosen], outcomes)
    if beyond:
        lines += ["## Beyond the suite", "", " ".join((stress_problems.__doc__ or "").split()), ""]
        for family in FAMILIES:
            lines += family_section(family, [p.name for p in beyond], outcomes)
        lines += delta_section([p.name for p in beyond], outcomes)
    lines += ["## The problems", "", *problem_table((*chosen, *beyond))]
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write the page; return 1 if the defaults miss a limit or their bound on the suite."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounds", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--problems", metavar="TEXT", default="", help="only problems whose names contain TEXT")
    parser.add_argument("--quick", action="store_true", help="every fifth problem")
    parser.add_argument(
        "--out", type=Path, help=f"where to write the page (default, whole suite only: {DOCUMENT.name})"
    )
    chosen = parser.parse_args(arguments)
    if chosen.jobs < 1:
        parser.error(f"--jobs: expected at least 1, got {chosen.jobs}")
    suite = [p for p in problems() if chosen.problems in p.name][:: 5 if chosen.quick else 1]
    beyond = [] if chosen.quick else [p for p in stress_problems() if chosen.problems in p.name]
    if not suite and not beyond:
        parser.error(f"--problems: expected a part of a problem's name, got {chosen.problems!r}")
    began = time.perf_counter()
    outcomes = measure([*suite, *beyond], chosen.jobs)
    text = document(suite, beyond, outcomes)
    print(text)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    target = chosen.out or (DOCUMENT if not (chosen.quick or chosen.problems) else None)
    if target:
        write(target, text)
    names = {p.name for p in suite}
    judged = [o for o in outcomes if o.variant == VARIANTS[0].title and o.problem in names]
    missed = [f"{o.problem} {o.family}" for o in judged if o.family in FAMILIES and not within_limits(o)]
    missed += [f"{name} {DELTA}" for name in sorted(names) if not bounded(name, outcomes)]
    if missed:
        print("missed: " + ", ".join(missed), file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
