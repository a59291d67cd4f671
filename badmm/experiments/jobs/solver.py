"""The job of a convex problem: `badmm.solve`, from a checkpoint if there is one; posterior, summary and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import badmm
from badmm.experiments.config.solver import SolverConfig
from badmm.experiments.engines import Engine
from badmm.experiments.jobs.job import After, Listener, Record
from badmm.experiments.plots import solver as plots
from badmm.experiments.problems.solver import Problem, build
from badmm.experiments.store import ranks
from badmm.experiments.store.figures import png
from badmm.experiments.store.folder import Checkpoint, Manifest, RunFolder
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factorised import Factorised
from badmm.transports.sealed import sealed_bytes

_WINDOW = 8
"""Number of rounds from which the gap's rate of decrease is estimated."""


@dataclass(frozen=True)
class SolverJob:
    """One convex problem."""

    config: SolverConfig
    engine: Engine = field(default_factory=Engine)
    root: Path | None = None
    """The folder of rank 0, where the checkpoints of other ranks lie too."""

    @cached_property
    def problem(self) -> Problem:
        """Clients and prior; raises ValueError for data that cannot be read or do not fit."""
        return build(self.config)

    @cached_property
    def manifest(self) -> Manifest:
        """The description of this run."""
        config = self.config
        return Manifest(config.name, config.method.name, config.run.seed, self.problem.fingerprint, config.digest())

    @property
    def rounds(self) -> int:
        """The largest number of rounds."""
        return self.config.run.rounds

    @property
    def checkpoint_every(self) -> int:
        """Rounds between checkpoints."""
        return self.config.run.checkpoint_every

    def run_rounds(self, checkpoint: Checkpoint | None, history: Sequence[Record], after: After) -> badmm.Result:
        """Solve the problem, from the checkpoint if there is one."""

        def after_round(state: badmm.SolverState) -> None:
            after(state.record.as_dict(), lambda: _capture(state, self.engine))

        transport = self.engine.transport
        if self.root is not None and self.engine.party is None:
            checkpoint = ranks.regathered(checkpoint, self.root, transport.rank, transport.size)
            history = history or tuple(RunFolder(self.root).history.read())
        self.engine.agree_on(0 if checkpoint is None else checkpoint.round)
        state = None if checkpoint is None else _restore(checkpoint, history, self.engine.sites)
        return badmm.solve(self._clients, **self.arguments(), state=state, callbacks=(after_round,))

    def follow(self) -> badmm.Result:
        """A site's part: answer a server elsewhere until it is done."""
        return badmm.solve(self._clients, **self.arguments())

    @property
    def _clients(self) -> list[Any]:
        return self.engine.own(self.problem.clients)

    def arguments(self) -> dict[str, Any]:
        """What `badmm.solve` takes beside the clients."""
        method, run = self.config.method, self.config.run
        optional = run.model_dump(include={"client_tol", "client_max_iterations", "per_round"})
        return {
            "family": self.config.chosen,
            "prior": self.problem.prior,
            "method": method.name,
            **method.model_dump(include={"rho", "alpha", "damping", "temperature", "expectation"}),
            "rounds": run.rounds,
            "tol": run.tol,
            "seed": run.seed,
            "participation": run.participation,
            "transport": self.engine.transport,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def results(self, outcome: badmm.Result, history: Sequence[Record]) -> Mapping[str, bytes]:
        """Return the posterior with the names of its features, a summary, and plots of history and posterior."""
        config, posterior, problem = self.config, outcome.posterior, self.problem
        summary = {
            "rounds": outcome.rounds,
            "converged": outcome.converged,
            "reason": outcome.reason,
            "rows": problem.rows.as_dict(),
            "preparation": dict(problem.preparation),
            "scores": problem.scores(posterior),
        }
        return {
            "posterior.safetensors": self.posterior(outcome),
            "summary.json": json.dumps(summary, indent=1, ensure_ascii=False).encode(),
            "history.png": png(plots.history_figure(history, f"{config.name}: {config.method.name}")),
            "posterior.png": png(_posterior_figure(problem, posterior)),
        }

    def posterior(self, outcome: badmm.Result) -> bytes:
        """The posterior's standard parameters, with the names of the features."""
        metadata = {"name": self.config.name, "family": self.config.family}
        features = json.dumps(self.problem.features)
        return sealed_bytes(outcome.posterior.parameters(), {**metadata, "features": features})

    def describe(self, record: Record) -> str:
        """Describe a round by gap and objective."""
        objective = record["objective"]
        shown = "-" if objective is None or math.isnan(objective) else f"{objective:.8g}"
        return f"gap {record['gap']:.1e}  objective {shown}"

    def warnings(self, record: Record) -> Sequence[str]:
        """Return no messages: the history holds a round's events."""
        return ()

    def remaining_rounds(self, history: Sequence[Record]) -> int | None:
        """Estimate the rounds to the tolerance from the gap's recent rate of decrease."""
        tol = self.config.run.tol
        gaps = [record["gap"] for record in history[-_WINDOW:] if record["gap"] > 0]
        if len(gaps) < 2 or gaps[-1] >= gaps[0] or tol <= 0:
            return None
        rate = math.log(gaps[0] / gaps[-1]) / (len(gaps) - 1)
        return max(0, math.ceil(math.log(gaps[-1] / tol) / rate))

    def listeners(self, folder: RunFolder, done: int) -> AbstractContextManager[Sequence[Listener]]:
        """Return no listeners."""
        return nullcontext(())


def _capture(state: badmm.SolverState, engine: Engine) -> Checkpoint:
    """Return a checkpoint of the state without its records, which the history holds, and of who takes part."""
    arrays, metadata = state.to_arrays()
    kept = {key: value for key, value in metadata.items() if key not in ("round", "records")}
    here = {"sites": engine.sites, ranks.RANKS: 1 if engine.party is not None else engine.transport.size}
    return Checkpoint(state.round, arrays, kept | here)


def _restore(checkpoint: Checkpoint, history: Sequence[Record], sites: Sequence[str]) -> badmm.SolverState:
    """Return the state of a checkpoint; without sums over the sites where others took part."""
    # JSON has no NaN, so the history holds None instead
    records = [
        {key: math.nan if value is None else value for key, value in record.items()}
        for record in history
        if record["round"] <= checkpoint.round
    ]
    metadata = {**checkpoint.metadata, "round": checkpoint.round, "records": records}
    state = badmm.SolverState.from_arrays(checkpoint.arrays, metadata)
    return state if metadata.get("sites", []) == list(sites) else state.regrouped()


def _posterior_figure(problem: Problem, posterior: Distribution) -> Any:
    title = f"{problem.config.name}: posterior, {problem.config.family}"
    if isinstance(posterior, Gaussian):
        return plots.gaussian_figure(posterior.mean, posterior.covariance, problem.coordinates, title)
    assert isinstance(posterior, Factorised) and isinstance(problem.prior, Factorised)
    return plots.density_figure(posterior, problem.prior, title)
