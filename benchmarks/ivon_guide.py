"""python -m benchmarks.ivon_guide: effects of ess, hess_init and clip_radius, and the time of a step relative to AdamW.

The perceptron 64-64-10 of `benchmarks.ivon_training` trains on scikit-learn's digits for 15 epochs in batches of 64
with a cosine step size; seed s tests on part s of as many parts as there are seeds. One setting at a time differs from
ess = N (the training points), hess_init = 1, no clip, beta2 = 0.99, weight_decay = 1e-3, lr = 1.6. NLL in nats per
point is that of the mean probability of 32 samples, and that at the mean; "h moved" is the mean of |h − h₀|/h₀ at the
end; "noise" is the root mean square deviation of the samples over that of the weights. Mean ± standard deviation over
seeds. The time of a step is the median CPU time of the calling thread, on one thread, with optimizers in turn.
`--into docs/ivon-guide.md` rewrites the page between its two marks.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import badmm_kernels
from badmm.experiments.store import write_atomic
from badmm.experiments.summary import TextTable, spread
from badmm.ivon import IVON
from benchmarks.ivon_training import Points, digits, scores_of
from benchmarks.machine import describe

MARKS = ("<!-- measured -->", "<!-- end of what is measured -->")
EPOCHS, BATCH, SAMPLES = 15, 64, 32
BASE = {"ess": 1.0, "hess_init": 1.0, "clip_radius": float("inf"), "beta2": 0.99, "lr": 1.6}
GRID: dict[str, tuple[float, ...]] = {
    "ess": (0.03, 0.1, 0.3, 1.0, 10.0, 100.0),
    "hess_init": (0.01, 0.1, 1.0, 10.0),
    "clip_radius": (0.001, 0.01, 0.1, 1.0, float("inf")),
    "beta2": (0.9, 0.99, 0.999, 0.99999),
}


def fit(settings: dict[str, float], seed: int, train: Points, test: Points) -> dict[str, float]:
    """NLL and accuracy of the prediction and at the mean, and the diagnosis, after training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    own: dict[str, Any] = {**settings, "ess": settings["ess"] * len(train.labels)}
    optimizer = IVON(network.parameters(), **own, weight_decay=1e-3, seed=seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(train.labels), generator=order).split(BATCH):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(train.images[chosen]), train.labels[chosen]).backward()
            optimizer.step()
        schedule.step()
    (found,) = optimizer.diagnose()
    return {**_predicted(network, optimizer, test), "moved": found.moved, "noise": found.noise / found.weights}


def _predicted(network: nn.Module, optimizer: IVON, test: Points) -> dict[str, float]:
    with torch.no_grad():
        at_mean = network(test.images).double().softmax(1)
        total = torch.zeros_like(at_mean)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an h that has not moved, which the table shows
            for _ in range(SAMPLES):
                with optimizer.sampled_params():
                    total += network(test.images).double().softmax(1)
    own, mean_scores = scores_of(total / SAMPLES, test.labels), scores_of(at_mean, test.labels)
    return {"nll": own["nll"], "accuracy": own["accuracy"], "nll at mean": mean_scores["nll"]}


def table(name: str, values: Sequence[float], seeds: int, points: Points) -> TextTable:
    """One setting moved, the others at their base."""
    parts = np.array_split(np.random.default_rng(0).permutation(len(points.labels)), seeds)
    rows = []
    for value in values:
        runs = []
        for seed in range(seeds):
            rest = np.concatenate([part for place, part in enumerate(parts) if place != seed])
            runs.append(fit({**BASE, name: value}, seed, points.part(rest), points.part(parts[seed])))
        columns = {key: [run[key] for run in runs] for key in runs[0]}
        shown = f"{value:g} N" if name == "ess" else f"{value:g}"
        rows.append(
            [shown]
            + [spread([100 * a for a in columns["accuracy"]], 1), spread(columns["nll"], 3)]
            + [spread(columns["nll at mean"], 3), spread([100 * m for m in columns["moved"]], 1)]
            + [spread(columns["noise"], 3)]
        )
    titles = [name, "accuracy, %", "NLL", "NLL at the mean", "h moved, %", "noise"]
    return TextTable(f"`{name}`", titles, rows)


Step = Callable[[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor], None]


def plain(network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """A training step as for any optimizer."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(x), y).backward()
    optimizer.step()


def sampled(network: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    """A training step at a sample."""
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
    optimizer.step()


def costs(sizes: Sequence[int], batch: int, steps: int) -> dict[str, list[float]]:
    """Return CPU seconds of training steps on random points; optimizers take turns, each with its own network."""
    import ivon as peer

    makers: dict[str, tuple[Callable[[Any], Any], Step]] = {
        "torch AdamW, fused": (lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True), plain),
        "badmm.ivon.IVON": (lambda p: IVON(p, lr=0.02, ess=600, hess_init=0.05, seed=0), sampled),
        "ivon-opt": (lambda p: peer.IVON(p, lr=0.02, ess=600, hess_init=0.05), sampled),
    }
    played = []
    for name, (make, step) in makers.items():
        torch.manual_seed(0)
        layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        network = nn.Sequential(*layers[:-1])
        played.append((name, network, make(network.parameters()), step))
    x, y = torch.rand(16, batch, sizes[0]), torch.randint(0, sizes[-1], (16, batch))
    found: dict[str, list[float]] = {name: [] for name in makers}
    for k in range(steps + 20):
        for name, network, optimizer, step in played:
            began = time.thread_time()
            step(network, optimizer, x[k % 16], y[k % 16])
            if k >= 20:
                found[name].append(time.thread_time() - began)
    return found


def checks_cost(sizes: Sequence[int]) -> float:
    """Seconds that a block and a step spend on looking whether parameters or state were changed."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    optimizer = IVON(nn.Sequential(*layers).parameters(), 0.1, 1.0)
    times = []
    for _ in range(300):
        began = time.thread_time()
        optimizer._refresh()
        times.append(time.thread_time() - began)
    return 2 * statistics.median(times)


def speed(steps: int) -> TextTable:
    """The table of what a step costs."""
    rows = []
    for sizes, batch in (((784, 200, 100, 10), 64), ((784, 200, 100, 10), 256), ((256, 1024, 1024, 10), 128)):
        found = costs(sizes, batch, steps)
        for name, seconds in found.items():
            median = statistics.median(seconds)
            ratio = statistics.median(a / b for a, b in zip(seconds, found["torch AdamW, fused"], strict=True))
            checks = f"{1e6 * checks_cost(sizes):.0f}" if name.startswith("badmm") else ""
            rows.append(["-".join(map(str, sizes)), str(batch), name, f"{1e3 * median:.2f}", f"{ratio:.2f}", checks])
    titles = ["perceptron", "batch", "optimizer", "ms per training step", "of AdamW's", "µs of it in checks"]
    return TextTable("What a training step costs", titles, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the tables; write them into the page `--into`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ivon_guide",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--into", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    badmm_kernels.set_num_threads(1)
    points = digits()
    grids = [table(name, values, args.seeds, points) for name, values in GRID.items()]
    grids.append(speed(args.steps))
    about = " ".join((__doc__ or "").split("\n\n", 1)[1].rsplit("`--into", 1)[0].split())
    command = f"`python -m benchmarks.ivon_guide --seeds {args.seeds} --steps {args.steps}`"
    versions = describe(("torch", "ivon-opt", "scikit-learn"))
    text = "\n\n".join([f"{command} on {versions}. {about}", *(grid.markdown().strip() for grid in grids)])
    print(text)
    if args.into:
        page = args.into.read_text(encoding="utf-8")
        head, tail = page.split(MARKS[0], 1)[0], page.split(MARKS[1], 1)[1]
        write_atomic(args.into, f"{head}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{tail}".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
