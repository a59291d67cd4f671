"""The splits played: penalties tuned on the first, every contender on each, on as many processes as there are cores."""

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
from badmm.demo.problems import Problem, make
from badmm.experiments.predictive import Scores

FAMILIES = {"isotropic_gaussian": "isotropic", "diagonal_gaussian": "diagonal", "full_gaussian": "full"}
TUNING_ROUNDS = 40
"""Rounds that every penalty of the grid gets; the best is then run in full."""

_DELIVERED_BY = "bayes_admm"
"""The method whose posterior is scored; every method that converges ends in the same one."""
_THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Task = tuple[str, int, Contender, int]
"""Problem, split seed, contender, rounds."""


@dataclass(frozen=True)
class Outcome:
    """One split: traces by contender, posteriors by family's short name, scores by family and way of predicting."""

    problem: Problem
    seed: int
    traces: Mapping[str, Trace]
    posteriors: Mapping[str, Any]
    scores: Mapping[tuple[str, str], Scores]


def play(names: Sequence[str], seeds: Sequence[int], rounds: int, report: Callable[[int, int], None]) -> list[Outcome]:
    """Every contender on every split; `report` is called with tasks done and tasks in all."""
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
        best = {name: min((t for task, t in found.items() if task[0] == name), key=_speed).rho for name in names}
        tasks = [
            (name, seed, contender.with_penalty(best[name]) if contender.tuned else contender, rounds)
            for name in names
            for seed in seeds
            for contender in CONTENDERS
        ]
        played = _gather(pool, tasks, lambda done: report(len(searches) + done, count))
    return [
        _outcome(make(name, seed), seed, {task[2]: trace for task, trace in played.items() if task[:2] == (name, seed)})
        for name in names
        for seed in seeds
    ]


def spread(values: Iterable[float | int | None]) -> tuple[float, float, int]:
    """Mean, standard deviation (ddof 1, 0 for one value) and the number of splits without a value."""
    listed = list(values)
    known = np.array([value for value in listed if value is not None], dtype=float)
    if not known.size:
        return float("nan"), float("nan"), len(listed)
    return float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else 0.0, len(listed) - known.size


def _speed(trace: Trace) -> tuple[float, ...]:
    """Orders penalties: rounds to the tightest target, to the loosest, then the last distance."""
    reached = [trace.rounds_to(target) or np.inf for target in sorted(TARGETS)]
    return (*reached, trace.distance[-1] if trace.distance else np.inf)


def _outcome(problem: Problem, seed: int, traces: Mapping[Contender, Trace]) -> Outcome:
    posteriors = {
        FAMILIES[contender.family]: trace.posterior
        for contender, trace in traces.items()
        if contender.method == _DELIVERED_BY and trace.posterior is not None
    }
    scores = {
        (family, way): problem.scores(posterior, averaged=averaged)
        for family, posterior in posteriors.items()
        for way, averaged in (("averaged", True), ("plug-in", False))
    }
    return Outcome(problem, seed, {c.label: trace for c, trace in traces.items()}, posteriors, scores)


# ---- what the worker processes do ------------------------------------------------------------------------------------

_problem = cache(make)


@cache
def _central(name: str, seed: int, family: str) -> tuple[Any, ...]:
    return central_solution(_problem(name, seed), family).natural


def _run(task: Task) -> Trace:
    name, seed, contender, rounds = task
    problem, central = _problem(name, seed), _central(name, seed, contender.family)
    trace = compete(problem, contender, central, rounds, seed)
    trace.start = distance(problem.prior_natural(contender.family), central)
    return trace


@contextmanager
def _workers() -> Iterator[ProcessPoolExecutor]:
    """A process for each core, each on one thread: the solver's arrays are too small to share."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _gather(pool: ProcessPoolExecutor, tasks: Sequence[Task], report: Callable[[int], None]) -> dict[Any, Trace]:
    """The trace of every task, by (problem, seed, contender), in the order of the tasks."""
    futures: dict[Future[Trace], int] = {pool.submit(_run, task): index for index, task in enumerate(tasks)}
    traces: dict[int, Trace] = {}
    for done, future in enumerate(as_completed(futures), start=1):
        traces[futures[future]] = future.result()
        report(done)
    return {task[:3]: traces[index] for index, task in enumerate(tasks)}
