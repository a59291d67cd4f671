"""Small convolutional networks under IVON-ADMM: which settings keep it from learning, stable, and ahead early.

    python -m benchmarks.noise [--seeds 62 63 64] [--only NAME ...] [--data-root DIR] [--out REPORT]

Digits (8×8 images) over ten clients with Dirichlet sizes and class mixes, batches of 8, three epochs per round. Every
row of the first table changes one group of settings of `BEFORE`; those of the second start at the package's defaults.
About a second per round. With the folder of CIFAR-10's files also a third table: FedDyn's network at a quarter of its
width on a tenth of the images, batches of 32; about five seconds per round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from badmm.clients.federation import ClientData, Federation, LocalSettings
from badmm.data import images as data, splits
from badmm.experiments import store
from badmm.methods import NETWORKS
from badmm.networks import noise
from badmm.networks.losses import CROSS_ENTROPY
from badmm.networks.stacked import Stacked
from badmm.rounds import network_round as rounds


class SmallConvNet(nn.Module):
    """conv 16, pool, conv 32, pool, dense 128, dense 64, dense 10; ReLU, 3×3, for 8×8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.dense1, self.dense2, self.head = nn.Linear(128, 128), nn.Linear(128, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 8, 8) to outputs (N, 10)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        out: Tensor = self.head(F.relu(self.dense2(F.relu(self.dense1(x.flatten(1))))))
        return out


class NarrowAcarNet(nn.Module):
    """conv 16 5×5, pool, conv 16 5×5, pool, dense 96, dense 48, dense 10; ReLU, for 32×32 images: AcarNet, narrower."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, width, 5), nn.Conv2d(width, width, 5)
        self.dense1, self.dense2 = nn.Linear(25 * width, 6 * width), nn.Linear(6 * width, 3 * width)
        self.head = nn.Linear(3 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) to outputs (N, 10)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        out: Tensor = self.head(F.relu(self.dense2(F.relu(self.dense1(x.flatten(1))))))
        return out


@dataclass(frozen=True)
class Problem:
    """Images, the part of them that is trained on, a network for them, points per batch, test images to score on."""

    source: str
    network: type[nn.Module]
    batch: int
    fraction: float = 1.0
    tested: int | None = None
    root: Path | None = None


DIGITS = Problem("digits", SmallConvNet, 8)
CIFAR = Problem("cifar10", NarrowAcarNet, 32, 0.1, 4000)


@dataclass(frozen=True)
class Setting:
    """A row: method, its options, step size, number of rounds."""

    method: str
    lr: float
    options: Mapping[str, Any] = field(default_factory=dict)
    count: int = 6


BEFORE: dict[str, Any] = {
    "delta": 1e-4,
    "temperature": 5e-3,
    "hess_init": 5e-4,
    "beta2": 0.9999,
    "damping": 1.0,
    "clip": 0.5,
    "penalty": "alike",
    "mean_step": "ivon",
}
"""Settings made for MLPs on MNIST, with the step 4e-4."""
OWN_STEPS: dict[str, Any] = {"mean_step": "ivon", "damping": 0.5}
"""What the rows "defaults" had beside the defaults of today: IVON's own steps in the mean, one γ for all."""


def _changed(lr: float = 4e-4, **changes: Any) -> Setting:
    return Setting("ivon_admm", lr, {**BEFORE, **changes})


def _ivon(lr: float, count: int = 6, **changes: Any) -> Setting:
    return Setting("ivon_admm", lr, {**OWN_STEPS, **changes}, count)


LEARNS = {
    "FedAvg (Adam)": Setting("fedavg", 1e-3),
    "before": _changed(),
    "step 2e-3": _changed(lr=2e-3),
    "damping 0.5": _changed(damping=0.5),
    "beta2 0.99999": _changed(beta2=0.99999),
    "clip 0.2": _changed(clip=0.2),
    "origin prior": _changed(origin="prior"),
    "curvatures times 10": _changed(delta=1e-3, hess_init=5e-3),
    "temperature auto": _changed(temperature="auto"),
    "temperature auto, step 2e-3": _changed(lr=2e-3, temperature="auto"),
    "defaults": _ivon(1e-3),
    "defaults, step 3e-4": _ivon(3e-4),
    "defaults, step 3e-3": _ivon(3e-3),
}
WIDER: dict[str, Any] = {"delta": 5e-3, "hess_init": 5e-3, "beta2": 0.99999, "clip": 0.2, "damping": 0.5}
"""Larger curvatures, with the step 5e-3: the same largest step as the defaults', half the relaxation of the server."""
STABLE = {
    "defaults": _ivon(1e-3, 16),
    "penalties alike": _ivon(1e-3, 16, penalty="alike"),
    "step 2e-3": _ivon(2e-3, 16),
    "beta2 0.99999": _ivon(1e-3, 16, beta2=0.99999),
    "damping 1": _ivon(1e-3, 16, damping=1.0),
    "initial_sd 0.1": _ivon(1e-3, 16, initial_sd=0.1),
    "initial_sd 1": _ivon(1e-3, 16, initial_sd=1.0),
    "curvatures 5e-3": _ivon(5e-3, 16, **WIDER),
    "FedAvg (Adam)": Setting("fedavg", 1e-3, count=16),
}
EARLY = {
    "FedAvg (Adam)": Setting("fedavg", 1e-3),
    "defaults": _ivon(1e-3),
    "damping 1": _ivon(1e-3, damping=1.0),
    "penalties alike": _ivon(1e-3, penalty="alike"),
    "curvatures 5e-3, penalties alike": _ivon(5e-3, **WIDER, penalty="alike"),
    "initial_sd 0.1": _ivon(1e-3, initial_sd=0.1),
}


def federation(problem: Problem, seed: int, lr: float) -> Federation:
    """Its images over ten clients; subset, network, split and streams by `seed`."""
    images = data.subset(data.load(problem.source, problem.root), problem.fraction, seed)
    rows = splits.dirichlet(images.train_labels, 10, seed, minimum=10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = problem.network()
    points = ClientData(
        torch.from_numpy(images.train_images),
        torch.from_numpy(images.train_labels),
        tuple(torch.from_numpy(part) for part in rows),
        images.levels,
    )
    settings = LocalSettings(lr=lr, epochs=3, batch_size=problem.batch)
    return Federation(points, Stacked(network, CROSS_ENTROPY), settings, seed, torch.float32)


@dataclass
class Course:
    """A run by rounds: test accuracy in per cent, training loss, the most noise over weights; seconds of the whole."""

    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    unbounded: int = 0
    seconds: float = 0.0


def play(setting: Setting, seed: int, problem: Problem = DIGITS) -> Course:
    """The rounds of a setting with a seed."""
    own, method, course = federation(problem, seed, setting.lr), NETWORKS[setting.method](**setting.options), Course()
    state = method.start(own, own.stack.initial(own.dtype))
    images = data.load(problem.source, problem.root)
    x = torch.from_numpy(images.test_images[: problem.tested]).float() / images.levels
    y = torch.from_numpy(images.test_labels[: problem.tested])
    started = time.perf_counter()
    for _ in range(setting.count):
        outcome = rounds.play(method, own, state, lr=setting.lr, largest=5)
        mean, deviation = method.mean(state), method.deviation(state)
        with torch.no_grad():
            right = own.stack.outputs(mean, x).argmax(dim=1) == y
        course.accuracy.append(100.0 * float(right.float().mean()))
        course.loss.append(outcome.mean("loss"))
        course.unbounded += outcome.events.get("cavities_unbounded", 0)
        ratios = {} if deviation is None else noise.against_weights(own.stack, mean, deviation)
        worst = noise.largest_noise(ratios)
        course.noise.append(float("nan") if worst is None else worst[1])
    course.seconds = time.perf_counter() - started
    return course


def _row(name: str, setting: Setting, courses: Sequence[Course], shown: Sequence[int]) -> str:
    at = [n - 1 for n in shown if n <= setting.count]
    cells = [_spread([c.accuracy[n] for c in courses], 1) for n in at]
    first = [_spread([c.loss[0] for c in courses], 2), _spread([c.loss[-1] for c in courses], 2)]
    loud = [_spread([c.noise[n] for c in courses], 2) for n in (0, setting.count - 1)]
    edge = str(sum(c.unbounded for c in courses))
    return "| " + " | ".join([name, *cells, *first, *loud, edge]) + " |"


def _spread(values: Sequence[float], decimals: int) -> str:
    if np.isnan(values).all():
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{decimals}f}{deviation}"


def table(settings: Mapping[str, Setting], seeds: Sequence[int], shown: Sequence[int], problem: Problem) -> str:
    """A Markdown table, mean ± standard deviation over seeds."""
    rounds_shown = [f"round {n}, %" for n in shown]
    header = ["setting", *rounds_shown, "first loss", "last loss", "first noise", "last noise", "cavities unbounded"]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for name, setting in settings.items():
        lines.append(_row(name, setting, [play(setting, seed, problem) for seed in seeds], shown))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    """Print and perhaps write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[62, 63, 64])
    parser.add_argument("--only", nargs="+", help="rows by their names")
    parser.add_argument("--data-root", type=Path, help="folder with the files of CIFAR-10, for the third table")
    parser.add_argument("--out", type=Path, help="where to write the tables too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    tables: list[tuple[str, Mapping[str, Setting], tuple[int, ...], Problem]]
    tables = [("Learns", LEARNS, (1, 2, 4, 6), DIGITS), ("Stays stable", STABLE, (4, 8, 12, 16), DIGITS)]
    if chosen.data_root is not None:
        tables.append(("Early rounds", EARLY, (1, 2, 3, 4, 5, 6), replace(CIFAR, root=chosen.data_root)))
    for title, settings, shown, problem in tables:
        own = {name: setting for name, setting in settings.items() if not chosen.only or name in chosen.only}
        if own:
            parts.append(f"## {title}\n\n{table(own, chosen.seeds, shown, problem)}\n")
    if chosen.out is not None:
        seeds = ", ".join(map(str, chosen.seeds))
        store.write_atomic(chosen.out, f"# Noise against weights, seeds {seeds}\n\n{chr(10).join(parts)}".encode())


if __name__ == "__main__":
    main()
