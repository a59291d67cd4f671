"""Accuracy and NLL of IVON, Adam and AdamW on a small network with equal tuning budgets.

    python -m benchmarks.ivon_training [--seeds 5] [--out docs/ivon-training.md]

A perceptron 64-64-10 (ReLU) trains on scikit-learn's 1797 digits for 30 epochs in minibatches of 64 with a cosine step
size. The points are cut into as many parts as there are seeds. Seed s tests on part s, which is used for nothing else,
and start, minibatches and normals are drawn from s. Settings are chosen per seed by the NLL of the prediction on a
quarter of the training points after training on the rest; then the network trains on all of them. Adam and AdamW
predict at their final parameters, IVON with the mean probability of 32 samples of its posterior. Each optimizer has a
grid of twelve points over the step size and a second setting: Adam's β₂, AdamW's weight decay, or IVON's weight decay,
which is the prior's precision over the number of points.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from badmm.experiments.predictive import class_scores
from badmm.experiments.store import write_atomic
from badmm.experiments.summary import TextTable, interval, spread
from badmm.ivon import IVON
from benchmarks.machine import describe

EPOCHS, BATCH, SAMPLES = 30, 64, 32
Setting = tuple[float, float]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Points:
    """Images (n, 64) with levels in [0, 1] and labels (n,)."""

    images: Tensor
    labels: Tensor

    def part(self, index: Array) -> Points:
        """Those of an index."""
        chosen = torch.from_numpy(index)
        return Points(self.images[chosen], self.labels[chosen])


Make = Callable[[nn.Module, int, int, float, float], torch.optim.Optimizer]


def adam(network: nn.Module, points: int, seed: int, step: float, beta2: float) -> torch.optim.Optimizer:
    """Step size, β₂; no weight decay."""
    return torch.optim.Adam(network.parameters(), step, betas=(0.9, beta2))


def adamw(network: nn.Module, points: int, seed: int, step: float, decay: float) -> torch.optim.Optimizer:
    """Step size, decoupled weight decay."""
    return torch.optim.AdamW(network.parameters(), step, weight_decay=decay)


def ivon(network: nn.Module, points: int, seed: int, step: float, decay: float) -> IVON:
    """Step size, weight decay; a β₂ that lets h move within one of these short runs, h_0 = 1 and ess as by default."""
    return IVON(network.parameters(), step, points, weight_decay=decay, beta2=0.9995, seed=seed)


@dataclass(frozen=True)
class Contender:
    """An optimizer and its grid: every pair of a step size and the other setting."""

    make: Make
    steps: Sequence[float]
    other: str
    values: Sequence[float]

    @property
    def grid(self) -> list[Setting]:
        """All settings."""
        return list(itertools.product(self.steps, self.values))


CONTENDERS = {
    "Adam": Contender(adam, (0.01, 0.02, 0.04, 0.08), "β₂", (0.9, 0.99, 0.999)),
    "AdamW": Contender(adamw, (0.01, 0.02, 0.04, 0.08), "weight decay", (0.03, 0.1, 0.3)),
    "IVON": Contender(ivon, (0.8, 1.6, 3.2, 6.4), "weight decay", (3e-4, 1e-3, 3e-3)),
}


@dataclass(frozen=True)
class Run:
    """One seed of one contender: NLL on the validation part by setting, the one chosen, its scores on the test part.

    `at_mean` are the scores at the parameters that training ended at, in place of the posterior's prediction.
    """

    validation: Mapping[Setting, float]
    chosen: Setting
    scores: Mapping[str, float]
    at_mean: Mapping[str, float]


def digits() -> Points:
    """scikit-learn's digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return Points(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))


def fit(
    contender: Contender, setting: Setting, seed: int, train: Points, test: Points
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores on `test` after training on `train`: of the prediction, and at the parameters that training ended at."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = contender.make(network, len(train.labels), seed, *setting)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(train.labels), generator=order).split(BATCH):
            _step(network, optimizer, train.images[chosen], train.labels[chosen])
        schedule.step()
    with torch.no_grad():
        predicted, at_mean = _prediction(network, optimizer, test.images), network(test.images).double().softmax(1)
    return scores_of(predicted, test.labels), scores_of(at_mean, test.labels)


def scores_of(probability: Tensor, labels: Tensor) -> dict[str, float]:
    found = class_scores(probability.numpy(), labels.numpy()).as_dict()
    return {name: float(found[name]) for name in ("accuracy", "nll", "ece")}


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    def backward() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()

    if isinstance(optimizer, IVON):
        with optimizer.sampled_params(train=True):
            backward()
    else:
        backward()
    optimizer.step()


def _prediction(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> Tensor:
    if not isinstance(optimizer, IVON):
        return network(images).double().softmax(1)
    total = torch.zeros(len(images), 10, dtype=torch.float64)
    for _ in range(SAMPLES):
        with optimizer.sampled_params():
            total += network(images).double().softmax(1)
    return total / SAMPLES


def divided(seed: int, seeds: int, points: Points) -> tuple[Array, Array]:
    """The places of the points that a seed trains on, and of those that it is tested on."""
    parts = np.array_split(np.random.default_rng(0).permutation(len(points.labels)), seeds)
    return np.concatenate([part for place, part in enumerate(parts) if place != seed]), parts[seed]


def searched(contender: Contender, seed: int, seeds: int, points: Points) -> dict[Setting, float]:
    """NLL on a quarter of the seed's training points after training on the others, by setting."""
    own, _ = divided(seed, seeds, points)
    held, rest = (points.part(index) for index in np.split(own, [len(own) // 4]))
    return {setting: fit(contender, setting, seed, rest, held)[0]["nll"] for setting in contender.grid}


def tested(
    contender: Contender, setting: Setting, seed: int, seeds: int, points: Points
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores on the seed's own part after training on all of its training points; see `fit`."""
    return fit(contender, setting, seed, *(points.part(index) for index in divided(seed, seeds, points)))


def play(contender: Contender, seed: int, seeds: int, points: Points) -> Run:
    """Choose on a quarter of the seed's training points, train on all of them, test on its own part."""
    validation = searched(contender, seed, seeds, points)
    chosen = min(validation, key=lambda setting: validation[setting])
    return Run(validation, chosen, *tested(contender, chosen, seed, seeds, points))


def measure(seeds: int) -> dict[str, list[Run]]:
    """The runs of every contender, a seed after the other."""
    points = digits()
    return {name: [play(made, seed, seeds, points) for seed in range(seeds)] for name, made in CONTENDERS.items()}


AT_MEAN = "IVON at its mean"


def scores(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[Mapping[str, float]]]:
    """Every contender's by seed, and IVON's at the mean of its posterior."""
    found = {name: [run.scores for run in own] for name, own in runs.items()}
    return {**found, AT_MEAN: [run.at_mean for run in runs["IVON"]]}


def differences(runs: Mapping[str, Sequence[Run]], other: str, score: str) -> list[float]:
    """IVON less another, seed by seed."""
    found = scores(runs)
    return [a[score] - b[score] for a, b in zip(found["IVON"], found[other], strict=True)]


SCORES = {"accuracy, %": ("accuracy", 100.0, 2), "NLL, nats a point": ("nll", 1.0, 4), "ECE": ("ece", 1.0, 4)}


def summary(runs: Mapping[str, Sequence[Run]]) -> TextTable:
    """Scores over the seeds, and IVON's paired differences to the others."""
    rows = [
        [name, *(spread([scale * at[key] for at in own], n) for key, scale, n in SCORES.values())]
        for name, own in scores(runs).items()
    ]
    for other in (name for name in scores(runs) if name != "IVON"):
        cells = []
        for key, scale, n in SCORES.values():
            mean, low, high = (scale * value for value in interval(differences(runs, other, key)))
            cells.append(f"{mean:+.{n}f} [{low:+.{n}f}, {high:+.{n}f}]")
        rows.append([f"IVON less {other}, paired", *cells])
    return TextTable("On the test parts", ["optimizer", *SCORES], rows)


def verdict(runs: Mapping[str, Sequence[Run]], other: str) -> str:
    """IVON's NLL beside another's, and whether the seeds separate them."""
    mean, low, high = interval(differences(runs, other, "nll"))
    side, separate = "lower" if mean < 0 else "higher", "separate" if low > 0 or high < 0 else "do not separate"
    return f"- IVON's NLL is {abs(mean):.4f} {side} than that of {other}; the seeds {separate} them."


def every_seed(runs: Mapping[str, Sequence[Run]]) -> TextTable:
    """Return the chosen settings and the scores of every seed."""
    rows = [
        [f"{name}, seed {seed}", f"{run.chosen[0]:g}", f"{CONTENDERS[name].other} {run.chosen[1]:g}"]
        + [f"{scale * run.scores[key]:.{n}f}" for key, scale, n in SCORES.values()]
        for name, own in runs.items()
        for seed, run in enumerate(own)
    ]
    return TextTable("Every seed, with the settings chosen for it", ["run", "step size", "other", *SCORES], rows)


def whole_grid(name: str, own: Sequence[Run]) -> TextTable:
    """The validation NLL that the choice was made by."""
    made = CONTENDERS[name]
    rows = [
        [f"{step:g}", *(spread([run.validation[step, value] for run in own], 3) for value in made.values)]
        for step in made.steps
    ]
    return TextTable(
        f"{name}: NLL on the validation parts",
        ["step size", *(f"{made.other} {value:g}" for value in made.values)],
        rows,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the page; write it to `--out`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ivon_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    if args.seeds < 2:
        parser.error(f"--seeds: expected at least 2, got {args.seeds}")
    torch.set_num_threads(1)
    began = time.perf_counter()
    runs = measure(args.seeds)
    about = (__doc__ or "").split("\n\n")[-1].strip()
    versions = describe(("torch", "scikit-learn"))
    head = [
        "# IVON beside Adam on the digits",
        f"`python -m benchmarks.ivon_training --seeds {args.seeds}` on {versions}.",
        about,
        "\n".join(verdict(runs, name) for name in scores(runs) if name != "IVON"),
        "± is the standard deviation over seeds, [ ] the 95% t-interval of the differences seed by seed; the seeds "
        "separate two optimizers where 0 lies outside it.",
    ]
    grids = [summary(runs), every_seed(runs), *(whole_grid(name, own) for name, own in runs.items())]
    text = "\n\n".join(head) + "\n\n" + "\n".join(grid.markdown() for grid in grids)
    print(text)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if args.out:
        write_atomic(args.out, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
