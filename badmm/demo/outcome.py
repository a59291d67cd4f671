"""Runs of all contenders on all splits, one process per core; penalties are tuned on the first split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any

import numpy as np

from badmm.demo.contest import CONTENDERS, PENALTIES, TARGETS, Contender, Trace, central_solution, compete, distance
from badmm.demo.problems import DemoProblem, make
from badmm.experiments.predictive import Scores

FAMILIES = {"isotropic_gaussian": "isotropic", "diagonal_gaussian": "diagonal", "full_gaussian": "full"}
TUNING_ROUNDS = 40
"""Rounds per penalty of the grid; the best penalty then runs in full."""

_SCORED_METHOD = "bayes_admm"
"""The method whose posterior is scored; all methods that converge have the same posterior."""
_THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

RunArguments = tuple[str, int, Contender, int]
"""Problem, split seed, contender, rounds."""


@dataclass(frozen=True)
class SplitOutcome:
    """Results on one split: traces by contender, posteriors by family's short name, scores by family and prediction."""

    problem: DemoProblem
    seed: int
    traces: Mapping[str, Trace]
    posteriors: Mapping[str, Any]
    scores: Mapping[tuple[str, str], Scores]


def run_all(
    names: Sequence[str], seeds: Sequence[int], rounds: int, report: Callable[[int, int], None]
) -> list[SplitOutcome]:
    """Run every contender on every split; `report` is called with the numbers of finished and of all runs."""
    tuned = [contender for contender in CONTENDERS if contender.tuned]
    searches = [
        (name, seeds[0], contender.with_penalty(rho), min(rounds, TUNING_ROUNDS))
        for name in names
        for contender in tuned
        for rho in PENALTIES
    ]
    count = len(searches) + len(names) * len(seeds) * len(CONTENDERS)
    with _workers() as pool:
        found = _gather(pool, searches, lambda done: report(done, count))
        best = {name: min((t for run, t in found.items() if run[0] == name), key=_speed).rho for name in names}
        runs = [
            (name, seed, contender.with_penalty(best[name]) if contender.tuned else contender, rounds)
            for name in names
            for seed in seeds
            for contender in CONTENDERS
        ]
        traces = _gather(pool, runs, lambda done: report(len(searches) + done, count))
    return [
        _outcome(make(name, seed), seed, {run[2]: trace for run, trace in traces.items() if run[:2] == (name, seed)})
        for name in names
        for seed in seeds
    ]


def spread(values: Iterable[float | int | None]) -> tuple[float, float, int]:
    """Return mean, standard deviation (ddof 1, 0 for one value) and number of splits without a value."""
    listed = list(values)
    known = np.array([value for value in listed if value is not None], dtype=float)
    if not known.size:
        return float("nan"), float("nan"), len(listed)
    return float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else 0.0, len(listed) - known.size


def _speed(trace: Trace) -> tuple[float, ...]:
    """Return the sort key of a penalty: rounds to the smallest target, to the largest, then the last distance."""
    reached = [trace.rounds_to(target) or np.inf for target in sorted(TARGETS)]
    return (*reached, trace.distance[-1] if trace.distance else np.inf)


def _outcome(problem: DemoProblem, seed: int, traces: Mapping[Contender, Trace]) -> SplitOutcome:
    posteriors = {
        FAMILIES[contender.family]: trace.posterior
        for contender, trace in traces.items()
        if contender.method == _SCORED_METHOD and trace.posterior is not None
    }
    scores = {
        (family, way): problem.scores(posterior, averaged=averaged)
        for family, posterior in posteriors.items()
        for way, averaged in (("averaged", True), ("plug-in", False))
    }
    return SplitOutcome(problem, seed, {c.label: trace for c, trace in traces.items()}, posteriors, scores)


# ---- worker processes ------------------------------------------------------------------------------------------------

_problem = cache(make)


@cache
def _central(name: str, seed: int, family: str) -> tuple[Any, ...]:
    return central_solution(_problem(name, seed), family).natural


def _run(arguments: RunArguments) -> Trace:
    name, seed, contender, rounds = arguments
    problem, central = _problem(name, seed), _central(name, seed, contender.family)
    trace = compete(problem, contender, central, rounds, seed)
    trace.start = distance(problem.prior_natural(contender.family), central)
    return trace


@contextmanager
def _workers() -> Iterator[ProcessPoolExecutor]:
    """Yield a pool with one process per core, each on one thread: the solver's arrays are too small to be split."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _gather(pool: ProcessPoolExecutor, runs: Sequence[RunArguments], report: Callable[[int], None]) -> dict[Any, Trace]:
    """Return the trace of every run by (problem, seed, contender), in the order of the runs."""
    futures: dict[Future[Trace], int] = {pool.submit(_run, run): index for index, run in enumerate(runs)}
    traces: dict[int, Trace] = {}
    for done, future in enumerate(as_completed(futures), start=1):
        traces[futures[future]] = future.result()
        report(done)
    return {run[:3]: traces[index] for index, run in enumerate(runs)}
