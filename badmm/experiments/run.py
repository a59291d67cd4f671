"""`python -m badmm run`: solve the problem of a file, and leave its history, posterior, configuration and plots.

The folder holds `config.toml` (every default written out), `history.jsonl` (a line a round), `state.npz` (what
`--resume` starts from), and, when the run has ended, `posterior.safetensors`, `summary.json` and two pictures.
A resumed run ends with the same posterior, bit for bit, as one that was never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import badmm
from badmm.experiments import config as configuration
from badmm.experiments import plots, store
from badmm.experiments.config import Config, ConfigError
from badmm.experiments.problem import Problem, build
from badmm.experiments.progress import RunProgress
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factorised import Factorised

STATE, HISTORY, CONFIG = "state.npz", "history.jsonl", "config.toml"
MAY_CHANGE = ("run.rounds", "run.tol", "run.checkpoint_every")
"""Keys that may differ when a run is resumed: those that say when it ends."""


def from_file(
    path: Path,
    overrides: Iterable[str] = (),
    out: Path | None = None,
    *,
    methods: Sequence[str] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> badmm.Result | None:
    """Read a configuration and run it in `out` (default `runs/NAME`); a table with a section `model` is federated deep
    learning (`badmm.experiments.network_run`), which returns None, and may be run with some of its `methods` only.

    Raises ValueError (`ConfigError` for what the file says) before anything is written.
    """
    if "model" in configuration.read(path, overrides):
        from badmm.experiments import network_run as federated

        federated.from_file(path, overrides, out, methods=methods, resume=resume, quiet=quiet)
        return None
    if methods is not None:
        raise ConfigError(f"--methods: expected a federated run, a table with a section model, got {path}")
    config = configuration.load(path, overrides)
    return run(config, out or Path("runs") / config.name, resume=resume, console=Console(quiet=quiet))


def run(config: Config, out: Path, *, resume: bool = False, console: Console | None = None) -> badmm.Result:
    """Run a configuration in the folder `out`; with `resume` from the checkpoint that is there."""
    console = console or Console(quiet=True)
    problem = build(config)
    state = _open(config, out, resume)
    history = store.History(out / HISTORY)
    done = 0 if state is None else state.round
    if state is not None:
        history.cut(done)
    with RunProgress(console, config.run.rounds, config.run.tol, done) as progress:

        def after_round(current: Any) -> None:
            record = current.record
            history.append(record.as_dict())
            progress.update(record)
            if current.round % config.run.checkpoint_every == 0:
                store.save_arrays(out / STATE, *current.to_arrays())

        result = badmm.solve(problem.clients, **_arguments(config, problem), state=state, callbacks=(after_round,))
    _finish(problem, result, history.read(), out)
    _report(problem, result, out, console)
    return result


def _arguments(config: Config, problem: Problem) -> dict[str, Any]:
    method, run = config.method, config.run
    optional = {"client_tol": run.client_tol, "client_max_iterations": run.client_max_iterations}
    return {
        "family": config.family,
        "prior": problem.prior,
        "method": method.name,
        **method.model_dump(include={"rho", "alpha", "damping", "temperature", "expectation"}),
        "rounds": run.rounds,
        "tol": run.tol,
        "seed": run.seed,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _open(config: Config, out: Path, resume: bool) -> Any:
    """The state to start from (None: the beginning); the folder exists afterwards."""
    if not resume:
        if (out / HISTORY).exists():
            raise ConfigError(f"--out: expected a folder without results (or --resume), got {out}")
        out.mkdir(parents=True, exist_ok=True)
        store.write_atomic(out / CONFIG, configuration.dump(config).encode())
        return None
    if not (out / STATE).is_file():
        raise ConfigError(f"--resume: expected a folder with a checkpoint ({STATE}), got {out}")
    before = configuration.load(out / CONFIG)
    for key, old, new in configuration.differences(before, config, MAY_CHANGE):
        raise ConfigError(f"--resume: expected {key} as in {out / CONFIG} ({old!r}), got {new!r}")
    return badmm.SolverState.from_arrays(*store.load_arrays(out / STATE))


def _finish(problem: Problem, result: badmm.Result, history: list[dict[str, Any]], out: Path) -> None:
    posterior, config = result.posterior, problem.config
    metadata = {"name": config.name, "family": config.family, "features": json.dumps(problem.features)}
    store.save_posterior(out / "posterior.safetensors", posterior.parameters(), metadata)
    summary = {"rounds": result.rounds, "converged": result.converged, "reason": result.reason}
    store.write_atomic(
        out / "summary.json", json.dumps({**summary, "scores": problem.scores(posterior)}, indent=1).encode()
    )
    store.save_figure(out / "history.png", plots.history_figure(history, f"{config.name}: {config.method.name}"))
    store.save_figure(out / "posterior.png", _posterior_figure(problem, posterior))


def _posterior_figure(problem: Problem, posterior: Distribution) -> Any:
    title = f"{problem.config.name}: posterior, {problem.config.family}"
    if isinstance(posterior, Gaussian):
        return plots.gaussian_figure(posterior.mean, posterior.covariance, problem.coordinates, title)
    assert isinstance(posterior, Factorised) and isinstance(problem.prior, Factorised)
    return plots.density_figure(posterior, problem.prior, title)


def _report(problem: Problem, result: badmm.Result, out: Path, console: Console) -> None:
    last = result.history[-1]
    console.print(f"{result.rounds} rounds, gap {last.gap:.2e}: {result.reason}")
    for way, scores in problem.scores(result.posterior).items():
        console.print(f"held out, {way}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    if isinstance(result.posterior, Factorised):
        deviation = np.sqrt(result.posterior.variance)
        console.print(f"rate {result.posterior.mean[0]:.4g} ± {deviation[0]:.2g}")
    console.print(f"written to {out}")
