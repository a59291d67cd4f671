"""The protocol of a job, and its execution in a folder: check, resume, record, checkpoint, finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from badmm.experiments import config as configuration
from badmm.experiments.config import ConfigError, Configuration
from badmm.experiments.progress import RoundsProgress
from badmm.experiments.store.folder import CONFIG, MANIFEST, Checkpoint, Manifest, RunFolder

Record = Mapping[str, Any]
After = Callable[[Record, Callable[[], Checkpoint]], None]
"""A function that a job calls after every round, with the round's record and a function that captures the state."""
Listener = Callable[[Record], None]


class Job(Protocol):
    """A run that has one folder."""

    @property
    def config(self) -> Configuration:
        """The configuration of this run alone."""

    @property
    def manifest(self) -> Manifest:
        """The description of this run: name, method, seed, digests of data and configuration."""

    @property
    def rounds(self) -> int:
        """The largest number of rounds."""

    @property
    def checkpoint_every(self) -> int:
        """Rounds between checkpoints; the last round is always saved."""

    def run_rounds(self, checkpoint: Checkpoint | None, history: Sequence[Record], after: After) -> Any:
        """Run the remaining rounds and return the outcome, an argument of `results`.

        `history` holds the records up to the checkpoint.
        """

    def results(self, outcome: Any, history: Sequence[Record]) -> Mapping[str, bytes]:
        """Return the files of a finished run by name."""

    def describe(self, record: Record) -> str:
        """Describe a round in a few words, for the progress line."""

    def warnings(self, record: Record) -> Sequence[str]:
        """Return the messages of a round for the user, one line each."""

    def remaining_rounds(self, history: Sequence[Record]) -> int | None:
        """Estimate the number of remaining rounds; None means all up to `rounds`."""

    def listeners(self, folder: RunFolder, done: int) -> AbstractContextManager[Sequence[Listener]]:
        """Return a context with functions that are called with the record of every round after `done`."""


def check(job: Job, folder: RunFolder, *, resume: bool) -> None:
    """Raise ConfigError unless the folder is unused or, with `resume`, holds this run undamaged. Writes nothing."""
    if not folder.started:
        folder.check_unused()
        return
    if not resume:
        raise ConfigError(f"--out: expected a folder without results (or --resume), got {folder.path}")
    manifest = folder.check_files()
    before = configuration.load(folder.path / CONFIG)
    if before.digest() != manifest.configuration:
        described = f"the configuration that {folder.path / MANIFEST} describes"
        raise ConfigError(f"{folder.path / CONFIG}: expected {described}, got another one")
    for key, old, new in before.differences(job.config):
        raise ConfigError(f"--resume: expected {key} as in {folder.path / CONFIG} ({old!r}), got {new!r}")
    if manifest.data != job.manifest.data:
        raise ConfigError(
            f"--resume: expected the data of {folder.path / MANIFEST} (SHA-256 {manifest.data[:12]}…), got other data "
            f"({job.manifest.data[:12]}…)"
        )
    checkpoint, mark = folder.checkpoint()
    folder.history.check(mark)
    if checkpoint is not None and checkpoint.round > job.rounds:
        raise ConfigError(
            f"--resume: expected run.rounds of at least {checkpoint.round}, which {folder.path} has finished, got "
            f"{job.rounds}"
        )


def execute(job: Job, folder: RunFolder, progress: RoundsProgress) -> Any:
    """Run a job in a folder that `check` accepted and the caller has locked; return what `Job.run_rounds` returns."""
    checkpoint = folder.begin(job.manifest, job.config.dump())
    done = saved = 0 if checkpoint is None else checkpoint.round
    history: list[Record] = list(folder.history.read())
    progress.skip(done)
    capture: Callable[[], Checkpoint] | None = None
    with job.listeners(folder, done) as listeners:

        def after(record: Record, captured: Callable[[], Checkpoint]) -> None:
            nonlocal saved, capture
            folder.history.append(record)
            history.append(record)
            capture = captured
            if record["round"] % job.checkpoint_every == 0:
                folder.save(captured())
                saved = record["round"]
            for listener in listeners:
                listener(record)
            progress.update(job.describe(record), job.remaining_rounds(history))
            for line in job.warnings(record):
                progress.print(line)

        outcome = job.run_rounds(checkpoint, tuple(history), after)
    if capture is not None and saved != history[-1]["round"]:
        folder.save(capture())
    folder.finish(job.manifest, job.results(outcome, folder.history.read()))
    return outcome
