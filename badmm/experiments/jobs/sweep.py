"""The jobs of a network run, one per method and seed, each in its own folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import badmm_kernels
from badmm.checks import ClientError, ServerDomainError
from badmm.experiments import events, report
from badmm.experiments.config import ConfigError
from badmm.experiments.config.networks import NetworkConfig
from badmm.experiments.engines import Engine
from badmm.experiments.jobs import job
from badmm.experiments.jobs.networks import NetworkJob
from badmm.experiments.problems import networks as problems
from badmm.experiments.progress import RoundsProgress
from badmm.experiments.store.folder import RunFolder, locked


class NetworkRuns:
    """The jobs of a configuration; raises ConfigError, before anything is written, for a method that cannot start."""

    def __init__(self, config: NetworkConfig, engine: Engine | None = None) -> None:
        if config.run.tensorboard:
            events.check()
        self.config, self.engine = config, engine or Engine()
        self.images = problems.load(config)
        self.workers = (config.run.threads or torch.get_num_threads()) if config.run.device == "cpu" else 1
        # methods share the data of a seed; seeds are the outer loop, so a cache of one seed suffices
        self._assigned = lru_cache(maxsize=1)(lambda seed: problems.assign(config, seed, self.images))
        self._assigned(config.run.seeds[0])  # raises the errors of data and split, which concern no method
        self.fingerprint = problems.fingerprint(config, self.images)
        for label in config.methods:
            try:
                self.job(label, config.run.seeds[0]).experiment.start()
            except (ValueError, RuntimeError) as error:  # settings that do not fit, or a device without kernels
                raise ConfigError(f"methods.{label}: {error}") from error

    def job(self, label: str, seed: int) -> NetworkJob:
        """Return the job of a method's label and a seed."""
        config = self.config.only(label, seed)
        experiment = problems.build(config, label, seed, assigned=self._assigned(seed))
        return NetworkJob(config, label, experiment, self.fingerprint, self.workers, self.engine)

    def run(self, out: Path, *, resume: bool, console: Console) -> list[dict[str, Any]]:
        """Run every job in its folder under `out`, which the caller has locked; return their summaries.

        Seeds are the outer loop, so that partial results compare all methods on the finished seeds. The summary of a
        failed run has label, seed and `failure`.
        """
        config = self.config
        places = [(label, seed) for seed in config.run.seeds for label in config.methods]
        for label, seed in places:
            job.check(self.job(label, seed), RunFolder(report.folder(out, label, seed)), resume=resume)
        summaries: list[dict[str, Any]] = []
        with _threads(config.run.threads), RoundsProgress(console, len(places) * config.run.rounds) as progress:
            for label, seed in places:
                folder, task = report.folder(out, label, seed), self.job(label, seed)
                try:
                    with locked(folder):
                        state = job.execute(task, RunFolder(folder), progress)
                    summaries.append(task.summary(state, RunFolder(folder).history.read()))
                except (ClientError, ServerDomainError) as error:
                    progress.print(f"{label}, seed {seed}: {error}")
                    summaries.append({"label": label, "seed": seed, "failure": str(error)})
        return summaries


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Within the context, use `count` threads in torch and in the kernels, which score predictions."""
    before = torch.get_num_threads(), badmm_kernels.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
        badmm_kernels.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        badmm_kernels.set_num_threads(before[1])
