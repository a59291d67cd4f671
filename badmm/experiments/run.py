"""`badmm run`: run a configuration in a folder (`badmm.experiments.store`).

A convex problem has one folder. A network run has `OUT/LABEL/seed-N` per method and seed, and its summary and plots in
`OUT`. A run that is stopped at any moment and resumed ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from badmm import Result
from badmm.checks import UnfinishedRunError
from badmm.experiments import config as configuration
from badmm.experiments.config import ConfigError, Configuration, SolverConfig
from badmm.experiments.engines import Engine, connect
from badmm.experiments.jobs import job
from badmm.experiments.jobs.solver import SolverJob
from badmm.experiments.progress import RoundsProgress
from badmm.experiments.store.folder import RunFolder, locked
from badmm.families.factorised import Factorised
from badmm.transports.atomic import write_atomic
from badmm.transports.messages import joined

if TYPE_CHECKING:
    from badmm.experiments.config.networks import NetworkConfig


def console_for(quiet: bool) -> Console:
    """Return a console that prints text unchanged: file names may contain rich's markup."""
    return Console(quiet=quiet, markup=False, emoji=False, highlight=False)


def from_file(
    path: Path,
    overrides: Iterable[str] = (),
    out: Path | None = None,
    *,
    methods: Sequence[str] | None = None,
    resume: bool = False,
    quiet: bool = False,
    engine: Mapping[str, Any] | None = None,
) -> None:
    """Read a configuration and run it in `out` (default `runs/NAME`).

    methods: labels of a network run's methods to run; None runs all. engine: the options of `badmm run` that choose a
    transport (`badmm.experiments.engines`). Raises ValueError (`ConfigError` for the contents
    of the file) before anything is written, and UnfinishedRunError, after everything is written, for a run that did not
    converge or failed.
    """
    config = configuration.load(path, overrides)
    options = dict(engine or {})
    here = connect(options.pop("transport", None), options, config, resume=resume)
    console = console_for(quiet or not here.first)
    with joined(here.transport):
        _run(config, here, path, out or Path("runs") / config.name, methods, resume, console)


def _run(
    config: Configuration,
    engine: Engine,
    path: Path,
    out: Path,
    methods: Sequence[str] | None,
    resume: bool,
    console: Console,
) -> None:
    if isinstance(config, SolverConfig):
        if methods is not None:
            raise ConfigError(f"--methods: expected a network run, a table with a section model, got {path}")
        require_convergence(config, run(config, out, resume=resume, console=console, engine=engine), out)
    else:
        run_networks(_networks(config, methods), out, resume=resume, console=console, engine=engine)


def require_convergence(config: SolverConfig, result: Result, out: Path) -> None:
    """Raise UnfinishedRunError for a result that has not met its tolerance."""
    if result.converged or config.run.tol == 0:
        return
    gap = result.history[-1].gap if result.history else float("inf")
    raise UnfinishedRunError(
        f"not converged after {result.rounds} rounds: expected a gap of at most run.tol {config.run.tol:.2e}, "
        f"got {gap:.2e}; --resume with a larger run.rounds continues the run in {out}"
    )


def _networks(config: Configuration, methods: Sequence[str] | None) -> NetworkConfig:
    from badmm.experiments.config.networks import NetworkConfig

    assert isinstance(config, NetworkConfig)
    return config if methods is None else config.with_methods(methods)


def run(
    config: SolverConfig,
    out: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    engine: Engine | None = None,
) -> Result:
    """Solve a convex problem in the folder `out`, with `resume` from its checkpoint."""
    console, engine = console or console_for(quiet=True), engine or Engine()
    task, out = SolverJob(config, engine, out), engine.folder(out)
    rows = task.problem.rows  # raises errors of the data before the folder is created
    console.print(f"{config.name}: {rows}")
    with locked(out):
        folder = RunFolder(out)
        if engine.is_site:
            found = task.follow()
            write_atomic(out / "posterior.safetensors", task.posterior(found))
            console_for(quiet=False).print(f"{engine.party}: {found.reason}; the posterior is in {out}")
            return found
        job.check(task, folder, resume=resume)
        with RoundsProgress(console, config.run.rounds) as progress:
            result: Result = job.execute(task, folder, progress)
    _print_result(task, result, console)
    console.print(f"written to {out}")
    return result


def _print_result(task: SolverJob, result: Result, console: Console) -> None:
    ended = "converged" if result.converged else "NOT CONVERGED" if task.config.run.tol > 0 else "ended"
    console.print(f"{ended} after {result.rounds} rounds, gap {result.history[-1].gap:.2e}: {result.reason}")
    for way, scores in task.problem.scores(result.posterior).items():
        console.print(f"held out, {way}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    if isinstance(result.posterior, Factorised):
        deviation = np.sqrt(result.posterior.variance)
        console.print(f"rate {result.posterior.mean[0]:.4g} ± {deviation[0]:.2g}")


def run_networks(
    config: NetworkConfig,
    out: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    engine: Engine | None = None,
) -> list[dict[str, Any]]:
    """Run every method with every seed and write the report; return the summary of each run.

    A run that fails (no client is left, or the server's update leaves the domain) keeps its checkpoint and does not end
    the others; UnfinishedRunError is raised after the report.
    """
    from badmm.experiments import report
    from badmm.experiments.jobs.sweep import NetworkRuns

    console, engine = console or console_for(quiet=True), engine or Engine()
    runs, out = NetworkRuns(config, engine), engine.folder(out)
    with locked(out):
        summaries = runs.run(out, resume=resume, console=console)
        if engine.first:
            report.write(config, out, summaries, console)
    console.print(f"written to {out}")
    failed = [entry for entry in summaries if "failure" in entry]
    if failed:
        first = f"{failed[0]['label']}, seed {failed[0]['seed']}: {failed[0]['failure']}"
        raise UnfinishedRunError(f"{len(failed)} of {len(summaries)} runs failed; {first}")
    return summaries
