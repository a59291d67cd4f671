"""One run in one folder, whatever it is of: checked, locked, resumed, recorded, saved, finished."""

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
"""What a job calls after every round: the round's record, and a function that captures the state."""
Listener = Callable[[Record], None]


class Job(Protocol):
    """What is run in one folder."""

    @property
    def config(self) -> Configuration:
        """The configuration of this run alone."""

    @property
    def manifest(self) -> Manifest:
        """What this run is of."""

    @property
    def rounds(self) -> int:
        """The most rounds to be played."""

    @property
    def checkpoint_every(self) -> int:
        """Rounds between checkpoints; the last round is always saved."""

    def play(self, checkpoint: Checkpoint | None, history: Sequence[Record], after: After) -> Any:
        """Play the rounds that are left and return what `results` and the caller want to know.

        `history` holds the records up to the checkpoint.
        """

    def results(self, outcome: Any, history: Sequence[Record]) -> Mapping[str, bytes]:
        """The files of a run that has ended."""

    def describe(self, record: Record) -> str:
        """A round in a few words, for the progress line."""

    def notices(self, record: Record) -> Sequence[str]:
        """What of a round has to be said, a line each."""

    def ahead(self, history: Sequence[Record]) -> int | None:
        """How many rounds probably follow; None where all that are left do."""

    def listeners(self, folder: RunFolder, done: int) -> AbstractContextManager[Sequence[Listener]]:
        """What else is told of every round after `done`."""


def check(job: Job, folder: RunFolder, *, resume: bool) -> None:
    """Raise ConfigError unless the folder is unused, or with `resume` holds this run, undamaged; nothing is written."""
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
            f"--resume: expected the data that {folder.path} began with (SHA-256 {manifest.data[:12]}…), got data that "
            f"differ ({job.manifest.data[:12]}…)"
        )
    checkpoint, mark = folder.checkpoint()
    folder.history.check(mark)
    if checkpoint is not None and checkpoint.round > job.rounds:
        raise ConfigError(
            f"--resume: expected run.rounds of at least the {checkpoint.round} that {folder.path} has played, got "
            f"{job.rounds}"
        )


def execute(job: Job, folder: RunFolder, progress: RoundsProgress) -> Any:
    """Run a job in a folder that `check` accepted and the caller has locked; returns what `Job.play` does."""
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
            progress.update(job.describe(record), job.ahead(history))
            for line in job.notices(record):
                progress.say(line)

        outcome = job.play(checkpoint, tuple(history), after)
    if capture is not None and saved != history[-1]["round"]:
        folder.save(capture())
    folder.finish(job.manifest, job.results(outcome, folder.history.read()))
    return outcome
