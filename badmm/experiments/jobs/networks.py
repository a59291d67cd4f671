"""The job of one method of a network run with one seed: its rounds, its state as tensors, its scores.

All random numbers come from streams by round, so the state determines the rest: on a CPU, a run that is killed and
resumed ends with the same bits as one that is not. (On a GPU, torch may choose convolutions whose bits do not repeat.)
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from badmm.checks import ClientError, ServerDomainError
from badmm.experiments import events, posterior
from badmm.experiments.config.networks import NetworkConfig
from badmm.experiments.engines import Engine
from badmm.experiments.jobs.job import After, Listener, Record
from badmm.experiments.problems.networks import Experiment
from badmm.experiments.store.folder import Checkpoint, Manifest, RunFolder
from badmm.methods import persistence
from badmm.networks.noise import largest_noise, warning
from badmm.rounds import network_round as rounds
from badmm.rounds.loop import Played
from badmm.rounds.network_method import State
from badmm.rounds.step_search import step_size

_TOTALS = ("bytes_up", "bytes_down", "flops")
_SCORES = ("accuracy", "nll", "ece", "worst_client", "metrics", "averaged")
"""What a record may have; which of them it has depends on the task."""


@dataclass(frozen=True)
class NetworkJob:
    """A run of a method's label with a seed.

    config: the configuration of this run alone. fingerprint: SHA-256 of the data.
    """

    config: NetworkConfig
    label: str
    experiment: Experiment
    fingerprint: str
    workers: int = 1
    """Number of stacks that train at the same time; results do not depend on it."""
    engine: Engine = field(default_factory=Engine)

    @cached_property
    def manifest(self) -> Manifest:
        """The description of this run."""
        config, method = self.config, self.config.methods[self.label].method
        return Manifest(config.name, method, self.experiment.seed, self.fingerprint, config.digest())

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return self.config.run.rounds

    @property
    def checkpoint_every(self) -> int:
        """Rounds between checkpoints."""
        return self.config.run.checkpoint_every

    def run_rounds(self, checkpoint: Checkpoint | None, history: Sequence[Record], after: After) -> State:
        """Run the remaining rounds; return the state after the last one."""
        state = self._begin(checkpoint)
        self.engine.agree_on(state.round)
        metadata = {} if checkpoint is None else checkpoint.metadata
        totals: dict[str, float] = {name: metadata.get("totals", {}).get(name, 0) for name in _TOTALS}
        lr, trials = (metadata["lr"], {}) if "lr" in metadata else self._step_size(totals)
        while state.round < self.rounds:
            record = self._round(state, totals, lr)
            if trials and state.round == 1:
                record["trials"] = trials
            after(record, lambda: capture(state, totals, lr))
        return state

    def _begin(self, checkpoint: Checkpoint | None) -> State:
        """The state before the first round, or a checkpoint's; ValueError where that lacks a tensor of the method's."""
        fresh = self.experiment.start()
        if checkpoint is None:
            return fresh
        state = restore(checkpoint, self.experiment.federation.device)
        missing = [*(fresh.server.keys() - state.server.keys()), *(fresh.clients.keys() - state.clients.keys())]
        if missing:
            raise ValueError(
                f"--resume: expected a checkpoint of {self.label} with the tensor {min(missing)!r}, got one without, "
                "as another version of the package writes it: choose another --out"
            )
        return state

    def _step_size(self, totals: dict[str, float]) -> tuple[float, dict[float, float]]:
        """The first round's step size, and the losses of the trial rounds that it was found by, if there are any."""
        given = self.config.methods[self.label].local.lr
        if given != "auto":
            return given, {}

        def loss(lr: float) -> float:
            try:
                outcome = self._play(self.experiment.start(), lr, totals)
            except (ClientError, ServerDomainError):
                return math.inf
            return math.inf if outcome.excluded else outcome.mean("loss")

        return step_size(loss)

    def _play(self, state: State, lr: float, totals: dict[str, float]) -> Played:
        """Run one round, which changes `state` and `totals`."""
        run, experiment = self.config.run, self.experiment
        outcome = rounds.play(
            experiment.method,
            experiment.federation,
            state,
            lr=lr,
            largest=run.stack,
            fraction=run.participation,
            workers=self.workers,
            transport=self.engine.transport,
        )
        totals["bytes_up"] += outcome.bytes_up
        totals["bytes_down"] += outcome.bytes_down
        totals["flops"] += outcome.reply.totals["gradients"] * experiment.point_flops
        return outcome

    def _round(self, state: State, totals: dict[str, float], lr: float) -> dict[str, Any]:
        """Run one round, which changes `state` and `totals`; return its record."""
        run, experiment = self.config.run, self.experiment
        started = time.perf_counter()
        lr *= experiment.federation.settings.decay(state.round, run.horizon or run.rounds)
        outcome = self._play(state, lr, totals)
        seconds = time.perf_counter() - started
        return {
            "round": state.round,
            "label": self.label,
            "seed": experiment.seed,
            **experiment.scores(state),
            "loss": outcome.mean("loss"),
            **totals,
            "asked": len(outcome.asked),
            "used": len(outcome.used),
            "excluded": {str(client): reason for client, reason in outcome.excluded.items()},
            "events": outcome.events,
            "noise": experiment.noise(state),
            **persistence.told(state),
            "lr": lr,
            "seconds": seconds,
        }

    def results(self, outcome: State, history: Sequence[Record]) -> Mapping[str, bytes]:
        """The posterior by parameters' names, and a summary."""
        summary = json.dumps(self.summary(outcome, history), indent=1)
        return {
            posterior.FILE: self.experiment.posterior_bytes(outcome),
            "summary.json": summary.encode(),
        }

    def summary(self, state: State, history: Sequence[Record]) -> dict[str, Any]:
        """Summarise the last round's scores, the costs, and the numbers of excluded clients and of domain events."""
        last, reliability = history[-1], self.experiment.reliability(state)
        return {
            **{key: last[key] for key in ("label", "seed", "round", *_SCORES, *_TOTALS) if key in last},
            "excluded": sum(len(record["excluded"]) for record in history),
            "events": dict(sum((Counter(record["events"]) for record in history), Counter())),
            **({} if reliability is None else {"reliability": reliability}),
        }

    def describe(self, record: Record) -> str:
        """Describe a round by label, seed and scores."""
        lost = f"  {len(record['excluded'])} clients left out" if record["excluded"] else ""
        own = {"accuracy": record.get("accuracy"), "NLL": record["nll"], **record.get("metrics", {})}
        scores = ", ".join(f"{name} {value:.4f}" for name, value in own.items() if value is not None)
        worst = largest_noise(record["noise"])
        noise = f", noise {worst[1]:.2f} of the weights in {worst[0]}" if worst else ""
        step = f", γ {record['damping']:.2f}" if "damping" in record else ""
        return f"{self.label}, seed {self.experiment.seed}, round {record['round']}: {scores}{noise}{step}{lost}"

    def warnings(self, record: Record) -> Sequence[str]:
        """Return excluded clients with reasons; after the first round also a warning of a too wide posterior."""
        where = f"{self.label}, seed {self.experiment.seed}, round {record['round']}"
        lost = [f"{where}: client {client} left out: {reason}" for client, reason in record["excluded"].items()]
        loud = warning(record) if record["round"] == 1 else None
        tried = ", ".join(f"{loss:.3g} with {step:.0e}" for step, loss in sorted(record.get("trials", {}).items()))
        found = [f"{where}: local.lr {record['lr']:.0e}, by the losses of a first round: {tried}"] if tried else []
        return [*found, *lost, *([] if loud is None else [loud])]

    def remaining_rounds(self, history: Sequence[Record]) -> int | None:
        """Return None: all rounds run."""
        return None

    def listeners(self, folder: RunFolder, done: int) -> AbstractContextManager[Sequence[Listener]]:
        """Return the TensorBoard writer if the configuration wants it and rounds remain."""
        if not self.config.run.tensorboard or done >= self.rounds:
            return nullcontext(())
        return _tensorboard(folder, done)


@contextmanager
def _tensorboard(folder: RunFolder, done: int) -> Iterator[Sequence[Listener]]:
    writer = events.Events(folder.path, done)
    try:
        yield (writer.add,)
    finally:
        writer.close()


def capture(state: State, totals: Mapping[str, float], lr: float) -> Checkpoint:
    """Return a checkpoint of the state's tensors, the running totals and the step size."""
    arrays, metadata = state.to_arrays()
    return Checkpoint(state.round, arrays, {**metadata, "totals": dict(totals), "lr": lr})


def restore(checkpoint: Checkpoint, device: torch.device) -> State:
    """Return the state of a checkpoint on a device; raise ValueError for other arrays."""
    return State.from_arrays(checkpoint.arrays, checkpoint.round, device)
