"""Federated runs from a file: every method and seed in a folder of its own, resumed where it was stopped.

`OUT/LABEL/seed-N` holds `config.toml` (this run's, every default written out), `history.jsonl` (a line a round),
`state.safetensors` (what `--resume` starts from: every tensor of server and clients, counters as JSON), and, when the
run has ended, `posterior.safetensors` (the server's tensors) and `summary.json`; `OUT` then has summary and pictures
(`badmm.experiments.report`). A run that was killed and resumed ends
with the same bits as one that was not, on a CPU: all random numbers come from streams by round, so that the state is
enough. (On a GPU torch may choose convolutions that do not repeat their bits.)
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import badmm_kernels
from badmm.checks import ClientError, ServerDomainError, UnfinishedRunError
from badmm.data import images as data
from badmm.experiments import config as base
from badmm.experiments import events, report, store
from badmm.experiments import network_config as configuration
from badmm.experiments.config import ConfigError
from badmm.experiments.network_config import FederatedConfig
from badmm.experiments.network_problem import Experiment, build, deal
from badmm.experiments.network_progress import RoundsProgress
from badmm.experiments.report import HISTORY, SUMMARY
from badmm.networks import noise
from badmm.rounds import network_round as rounds
from badmm.rounds.network_method import State

STATE, CONFIG = "state.safetensors", "config.toml"
_TOTALS = ("bytes_up", "bytes_down", "flops")


@dataclass
class Checkpoint:
    """A run after some round: its state, and the running totals of bytes and FLOPs."""

    state: State
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_TOTALS, 0))

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        groups = {"server": self.state.server, "clients": self.state.clients}
        tensors = {f"{group}.{name}": t.cpu().numpy() for group, part in groups.items() for name, t in part.items()}
        store.save_tensors(path, tensors, {"round": self.state.round, "totals": self.totals})

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Checkpoint:
        """Read what `save` wrote; ValueError for anything else."""
        arrays, metadata = store.load_tensors(path)
        parts: dict[str, dict[str, torch.Tensor]] = {"server": {}, "clients": {}}
        try:
            for name, array in arrays.items():
                group, _, key = name.partition(".")
                parts[group][key] = torch.from_numpy(array).to(device)
            state = State(parts["server"], parts["clients"], int(metadata["round"]))
            return cls(state, {name: metadata["totals"][name] for name in _TOTALS})
        except KeyError as error:
            raise ValueError(f"{path}: expected the tensors and counters of a run, got none named {error}") from None


def from_file(
    path: Path,
    overrides: Iterable[str] = (),
    out: Path | None = None,
    *,
    methods: Sequence[str] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Read a configuration and play it in `out` (default `runs/NAME`), with some of its `methods` where they are given;
    `ConfigError` before anything is written.
    """
    config = configuration.load(path, overrides)
    if methods is not None:
        config = config.with_methods(methods)
    return run(config, out or Path("runs") / config.name, resume=resume, console=Console(quiet=quiet))


def run(
    config: FederatedConfig, out: Path, *, resume: bool = False, console: Console | None = None
) -> list[dict[str, Any]]:
    """Play every method with every seed and report; returns and writes a summary of each.

    A run that cannot go on (no client is left, or the server's update leaves the domain) keeps its checkpoint and does
    not end the others: UnfinishedRunError once these are reported.
    """
    console = console or Console(quiet=True)
    summaries = play(config, out, resume=resume, console=console)
    report.write(config, out, summaries, console)
    console.print(f"written to {out}", highlight=False)
    failed = [entry for entry in summaries if "failure" in entry]
    if failed:
        first = f"{failed[0]['label']}, seed {failed[0]['seed']}: {failed[0]['failure']}"
        raise UnfinishedRunError(f"{len(failed)} of {len(summaries)} runs could not go on; {first}")
    return summaries


def play(config: FederatedConfig, out: Path, *, resume: bool, console: Console) -> list[dict[str, Any]]:
    """Play every method with every seed, each in its folder; a summary of each.

    Seeds are the outer loop, so that an early look at the results compares all methods on the seeds there are. The
    summary of a run that cannot go on is label, seed and `failure`.
    """
    if config.run.tensorboard:
        events.check()
    images = data.load(config.data.source, config.data.root)
    dealt = deal(config, config.run.seeds[0], images)
    for label in config.methods:
        try:
            build(config, label, config.run.seeds[0], dealt=dealt).start()
        except (ValueError, RuntimeError) as error:  # what does not fit, or a device without kernels
            raise ConfigError(f"methods.{label}: {error}") from error
        for seed in config.run.seeds:
            _check_folder(config.only(label, seed), report.folder(out, label, seed), resume)
    summaries, total = [], len(config.run.seeds) * len(config.methods) * config.run.rounds
    with _threads(config.run.threads), RoundsProgress(console, total) as progress:
        for seed in config.run.seeds:
            dealt = dealt if seed == config.run.seeds[0] else deal(config, seed, images)
            for label in config.methods:
                experiment, folder = build(config, label, seed, dealt=dealt), report.folder(out, label, seed)
                try:
                    summaries.append(_play(config.only(label, seed), experiment, folder, progress))
                except (ClientError, ServerDomainError) as error:
                    progress.say(f"{label}, seed {seed}: {error}")
                    summaries.append({"label": label, "seed": seed, "failure": str(error)})
    for torn in out.glob(".*.tmp"):
        torn.unlink()
    return summaries


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Threads of torch and the kernels while a run lasts."""
    before = torch.get_num_threads(), badmm_kernels.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
        badmm_kernels.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        badmm_kernels.set_num_threads(before[1])


def play_rounds(
    config: FederatedConfig, experiment: Experiment, checkpoint: Checkpoint, label: str
) -> Iterable[dict[str, Any]]:
    """Play the rounds that are left, changing `checkpoint`, and yield each one's record."""
    state, totals, count = checkpoint.state, checkpoint.totals, config.run.rounds
    while state.round < count:
        started = time.perf_counter()
        outcome = rounds.play(
            experiment.method,
            experiment.federation,
            state,
            lr=experiment.federation.settings.lr_in_round(state.round, config.run.horizon or count),
            largest=config.run.stack,
            fraction=config.run.participation,
            workers=torch.get_num_threads() if experiment.federation.device.type == "cpu" else 1,
        )
        seconds = time.perf_counter() - started
        totals["bytes_up"] += outcome.bytes_up
        totals["bytes_down"] += outcome.bytes_down
        totals["flops"] += outcome.point_gradients * experiment.point_flops
        yield {
            "round": state.round,
            "label": label,
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


def _play(config: FederatedConfig, experiment: Experiment, folder: Path, progress: RoundsProgress) -> dict[str, Any]:
    """One run in its folder, from its checkpoint if there is one."""
    (label,) = config.methods
    history = store.History(folder / HISTORY)
    checkpoint = _open(config, experiment, folder)
    history.cut(checkpoint.state.round)
    progress.skip(checkpoint.state.round)
    warned = False
    with _events(config, folder, checkpoint.state.round) as listeners:
        for record in play_rounds(config, experiment, checkpoint, label):
            history.append(record)
            if record["round"] % config.run.checkpoint_every == 0 or record["round"] == config.run.rounds:
                checkpoint.save(folder / STATE)
            for show in (*listeners, progress.update):
                show(record)
            loud = None if warned else noise.warning(record)
            if loud is not None:
                warned = True
                progress.say(loud)
            for client, reason in record["excluded"].items():
                progress.say(
                    f"{label}, seed {experiment.seed}, round {record['round']}: client {client} left out: {reason}"
                )
    return _finish(experiment, checkpoint, history.read(), folder)


@contextmanager
def _events(config: FederatedConfig, folder: Path, done: int) -> Iterator[list[Callable[[dict[str, Any]], None]]]:
    """What else is told of every round: TensorBoard, where it is asked for and rounds are left."""
    if not config.run.tensorboard or done >= config.run.rounds:
        yield []
        return
    writer = events.Events(folder, done)
    try:
        yield [writer.add]
    finally:
        writer.close()


def _open(config: FederatedConfig, experiment: Experiment, folder: Path) -> Checkpoint:
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob(".*.tmp"):
        torn.unlink()  # what a write that was killed left
    store.write_atomic(folder / CONFIG, base.dump(config).encode())
    if (folder / STATE).is_file():
        return Checkpoint.load(folder / STATE, experiment.federation.device)
    return Checkpoint(experiment.start())


def _check_folder(config: FederatedConfig, folder: Path, resume: bool) -> None:
    """ConfigError unless the folder is new, or one to resume with the same settings."""
    if not (folder / CONFIG).exists():
        return
    if not resume:
        raise ConfigError(f"--out: expected a folder without results (or --resume), got {folder}")
    before = configuration.load(folder / CONFIG)
    (table,) = config.methods.values()
    # a cosine schedule depends on the horizon, by default the number of rounds
    free = {"run.checkpoint_every", "run.tensorboard", "run.threads"} | (
        {"run.rounds"} if table["local"]["schedule"] == "constant" or config.run.horizon is not None else set()
    )
    for key, old, new in base.differences(before, config, free | {"data.root"}):
        raise ConfigError(f"--resume: expected {key} as in {folder / CONFIG} ({old!r}), got {new!r}")
    played = store.load_metadata(folder / STATE)["round"] if (folder / STATE).is_file() else 0
    if played > config.run.rounds:
        raise ConfigError(
            f"--resume: expected run.rounds of at least the {played} that {folder} has played, got {config.run.rounds}"
        )


def _finish(
    experiment: Experiment, checkpoint: Checkpoint, history: Sequence[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    server = {name: tensor.cpu().numpy() for name, tensor in checkpoint.state.server.items()}
    store.save_posterior(folder / "posterior.safetensors", server, {"round": str(checkpoint.state.round)})
    last = history[-1]
    summary = {
        **{key: last[key] for key in ("label", "seed", "round", "accuracy", "nll", "ece", "worst_client", "averaged")},
        **{key: last[key] for key in _TOTALS},
        "seconds": sum(record["seconds"] for record in history),
        "excluded": sum(len(record["excluded"]) for record in history),
        "events": dict(sum((Counter(record["events"]) for record in history), Counter())),
        "reliability": experiment.reliability(checkpoint.state),
    }
    store.write_atomic(folder / SUMMARY, json.dumps(summary, indent=1).encode())
    return summary
