"""One method of a network run with one seed, as a job: its rounds, its state as tensors, its scores.

All random numbers come from streams by round, so that the state is enough: a run that was killed and resumed ends with
the same bits as one that was not, on a CPU. (On a GPU torch may choose convolutions that do not repeat their bits.)
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from badmm.experiments import events
from badmm.experiments.config.networks import NetworkConfig
from badmm.experiments.jobs.job import After, Listener, Record
from badmm.experiments.problems.networks import Experiment
from badmm.experiments.store.folder import Checkpoint, Manifest, RunFolder
from badmm.experiments.store.tensors import sealed_bytes
from badmm.networks.noise import loudest, warning
from badmm.rounds import network_round as rounds
from badmm.rounds.network_method import State

_TOTALS = ("bytes_up", "bytes_down", "flops")
_SCORES = ("accuracy", "nll", "ece", "worst_client", "averaged")


@dataclass(frozen=True)
class NetworkJob:
    """A method's label and a seed; `config` is of this run alone, `fingerprint` is the data's."""

    config: NetworkConfig
    label: str
    experiment: Experiment
    fingerprint: str
    workers: int = 1
    """Stacks that train at once; no result depends on it."""

    @cached_property
    def manifest(self) -> Manifest:
        """What this run is of."""
        config, method = self.config, self.config.methods[self.label].method
        return Manifest(config.name, method, self.experiment.seed, self.fingerprint, config.digest())

    @property
    def rounds(self) -> int:
        """The rounds to be played."""
        return self.config.run.rounds

    @property
    def checkpoint_every(self) -> int:
        """Rounds between checkpoints."""
        return self.config.run.checkpoint_every

    def play(self, checkpoint: Checkpoint | None, history: Sequence[Record], after: After) -> State:
        """Play the rounds that are left; the state after the last one."""
        state = (
            self.experiment.start() if checkpoint is None else restore(checkpoint, self.experiment.federation.device)
        )
        totals: dict[str, float] = dict.fromkeys(_TOTALS, 0)
        if checkpoint is not None:
            totals = {name: checkpoint.metadata["totals"][name] for name in _TOTALS}
        while state.round < self.rounds:
            record = self._round(state, totals)
            after(record, lambda: capture(state, totals))
        return state

    def _round(self, state: State, totals: dict[str, float]) -> dict[str, Any]:
        """Play one round, changing `state` and `totals`; its record."""
        run, experiment = self.config.run, self.experiment
        started = time.perf_counter()
        outcome = rounds.play(
            experiment.method,
            experiment.federation,
            state,
            lr=experiment.federation.settings.lr_in_round(state.round, run.horizon or run.rounds),
            largest=run.stack,
            fraction=run.participation,
            workers=self.workers,
        )
        seconds = time.perf_counter() - started
        totals["bytes_up"] += outcome.bytes_up
        totals["bytes_down"] += outcome.bytes_down
        totals["flops"] += outcome.point_gradients * experiment.point_flops
        return {
            "round": state.round,
            "label": self.label,
            "seed": experiment.seed,
            **experiment.scores(state),
            "loss": outcome.loss,
            **totals,
            "asked": len(outcome.asked),
            "used": len(outcome.used),
            "excluded": {str(client): reason for client, reason in sorted(outcome.excluded.items())},
            "events": outcome.events,
            "noise": experiment.noise(state),
            "lr": outcome.lr,
            "seconds": seconds,
        }

    def results(self, outcome: State, history: Sequence[Record]) -> Mapping[str, bytes]:
        """The server's tensors and a summary."""
        server = {name: tensor.cpu().numpy() for name, tensor in outcome.server.items()}
        summary = json.dumps(self.summary(outcome, history), indent=1)
        return {
            "posterior.safetensors": sealed_bytes(server, {"round": str(outcome.round)}),
            "summary.json": summary.encode(),
        }

    def summary(self, state: State, history: Sequence[Record]) -> dict[str, Any]:
        """The last round's scores, the costs, who was left out, what the method did to stay in the domain."""
        last = history[-1]
        return {
            **{key: last[key] for key in ("label", "seed", "round", *_SCORES, *_TOTALS)},
            "excluded": sum(len(record["excluded"]) for record in history),
            "events": dict(sum((Counter(record["events"]) for record in history), Counter())),
            "reliability": self.experiment.reliability(state),
        }

    def describe(self, record: Record) -> str:
        """Whose round it is, and its scores."""
        lost = f"  {len(record['excluded'])} clients left out" if record["excluded"] else ""
        scores = f"accuracy {record['accuracy']:.4f}, NLL {record['nll']:.4f}"
        worst = loudest(record["noise"])
        noise = f", noise {worst[1]:.2f} of the weights in {worst[0]}" if worst else ""
        return f"{self.label}, seed {self.experiment.seed}, round {record['round']}: {scores}{noise}{lost}"

    def notices(self, record: Record) -> Sequence[str]:
        """Clients that were left out, and why; after the first round also a posterior that is too wide to learn."""
        where = f"{self.label}, seed {self.experiment.seed}, round {record['round']}"
        lost = [f"{where}: client {client} left out: {reason}" for client, reason in record["excluded"].items()]
        loud = warning(record) if record["round"] == 1 else None
        return lost if loud is None else [*lost, loud]

    def ahead(self, history: Sequence[Record]) -> int | None:
        """All rounds are played."""
        return None

    def listeners(self, folder: RunFolder, done: int) -> AbstractContextManager[Sequence[Listener]]:
        """TensorBoard, where it is asked for and rounds are left."""
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


def capture(state: State, totals: Mapping[str, float]) -> Checkpoint:
    """The state's tensors by group and name, and the running totals."""
    arrays, metadata = state.to_arrays()
    return Checkpoint(state.round, arrays, {**metadata, "totals": dict(totals)})


def restore(checkpoint: Checkpoint, device: torch.device) -> State:
    """The state that `capture` took, on a device; ValueError for other arrays."""
    return State.from_arrays(checkpoint.arrays, checkpoint.round, device)
