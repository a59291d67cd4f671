"""Why IVON's first steps on a convolutional network are slower than Adam's: one client, one part of Adam at a time.

    python -m benchmarks.start --data-root DIR [--only NAME ...] [--steps 100] [--seed 62]

FedDyn's network at its initialisation trains on 1500 images of CIFAR-10 in batches of 32, each way with the same
batches and the step 1e-3 where nothing else is said. Shown are the mean training loss of each quarter of the steps, how
far every layer's weights have moved, as a root mean square over that of the weights, and the root mean square of each
layer's last gradient. About five seconds per row on an idle core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import badmm_kernels
from badmm.data import images as data
from badmm.ivon import IVON
from badmm.networks import models
from badmm.networks.scales import root_mean_square

FRACTION, BATCH = 0.03, 32
NARROWEST = 0.0144  # the weight scale of the layers with 1600 inputs
Batches = Sequence[tuple[Tensor, Tensor]]
Make = Callable[[nn.Module, Batches], torch.optim.Optimizer]


class Scaled(torch.optim.Optimizer):
    """Adam with parts left out: squares averaged over a layer, or no longer updated after so many steps."""

    def __init__(self, network: nn.Module, *, by_layer: bool = False, frozen_after: int | None = None) -> None:
        super().__init__(network.parameters(), {"lr": 1e-3})
        self.by_layer, self.last, self.count = by_layer, frozen_after, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in network.parameters()]

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """One step; frozen scales have a floor of a tenth of the layer's, and bounded directions."""
        self.count += 1
        frozen = self.last is not None and self.count > self.last
        seen = self.last if frozen and self.last is not None else self.count
        for p, (first, second) in zip(self.param_groups[0]["params"], self.moments, strict=True):
            first.lerp_(p.grad, 0.1)
            square = p.grad.square()
            if not frozen:
                second.lerp_(square.mean().expand_as(square) if self.by_layer else square, 1e-3)
            scale = (second / (1 - 0.999**seen)).sqrt()
            direction = first / (1 - 0.9**self.count)
            if self.last is None:
                p.sub_(direction / scale, alpha=1e-3)
            else:
                floor = 0.1 * (second.mean() / (1 - 0.999**seen)).sqrt()
                p.sub_((direction / (scale + floor)).clamp(-1, 1), alpha=1e-3)


class Sampled(torch.optim.Adam):
    """Adam with gradients at samples that deviate as those of IVON at its start."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.parameters(), lr=1e-3)
        self.draw = torch.Generator().manual_seed(0)

    @contextmanager
    def sampled_params(self, train: bool) -> Iterator[None]:
        """Within it the parameters are a sample."""
        own = self.param_groups[0]["params"]
        means = [p.data for p in own]
        for p in own:
            p.data = p.data + 0.3 * NARROWEST * torch.randn(p.shape, generator=self.draw)
        yield
        for p, mean in zip(own, means, strict=True):
            p.data = mean


def ivon(
    *,
    lr: float = 1e-3,
    clip: float = 1.0,
    curvature: float = 2e-3,
    factor: float = 0.0,
    floor: float = 0.0,
    sd: float = 0.3,
) -> Make:
    """IVON with the curvature of the prior at the start, as a client of IVON-ADMM has it, and samples that deviate by
    `sd` weights in the layer where that is most.

    curvature: h + δ. With `factor` it is so many times the root mean square of the first gradients instead, by layer,
    or with a `floor`, in units of the layer's, by coordinate.
    """

    def make(network: nn.Module, batches: Batches) -> IVON:
        start = [p.detach().clone() for p in network.parameters()]
        s = [torch.full_like(p, curvature) for p in start]
        ess = 1 / ((sd * NARROWEST) ** 2 * curvature)
        if factor:
            squares = first_squares(network, batches[: 8 if floor else 4])
            # a bias has the scale of its layer's weight, which precedes it
            layers = [squares[k - k % 2].mean().sqrt() * factor for k in range(len(squares))]
            s = [layer.expand_as(p).clone() for layer, p in zip(layers, start, strict=True)]
            if floor:
                s = [(factor * q.sqrt()).clamp(min=floor * float(a)) for q, a in zip(squares, layers, strict=True)]
            weights = [(p.square().mean().sqrt(), q) for p, q in zip(start, s, strict=True) if p.ndim > 1]
            ess = max(1 / float((sd * w) ** 2 * q.median()) for w, q in weights)
        found = IVON(network.parameters(), lr, ess, 1e-9, 0.9, 0.999999, clip_radius=clip, rescale_lr=False, seed=0)
        found.set_prior(start, [ess * q for q in s])
        return found

    return make


def first_squares(network: nn.Module, batches: Batches) -> list[Tensor]:
    """The mean squares of the minibatch gradients at the initialisation."""
    parameters = list(network.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for x, y in batches:
        found = torch.autograd.grad(nn.functional.cross_entropy(network(x), y), parameters)
        total = [t + g.square() / len(batches) for t, g in zip(total, found, strict=True)]
    return total


WAYS: Mapping[str, Make] = {
    "Adam": lambda network, _: torch.optim.Adam(network.parameters(), lr=1e-3),
    "Adam at IVON's samples": lambda network, _: Sampled(network),
    "Adam, a scale per layer": lambda network, _: Scaled(network, by_layer=True),
    "Adam, scales of the first 8 steps": lambda network, _: Scaled(network, frozen_after=8),
    "IVON, h + δ = 2e-3 (defaults)": ivon(),
    "IVON, samples deviate by a third of that": ivon(sd=0.1),
    "IVON, h + δ = 2e-4": ivon(curvature=2e-4),
    "IVON, lr 3e-3, clip 1/3": ivon(lr=3e-3, clip=0.333),
    "IVON, lr 1e-2, clip 0.1": ivon(lr=1e-2, clip=0.1),
    "IVON, lr 1e-2, clip 0.3": ivon(lr=1e-2, clip=0.3),
    "IVON, h + δ of the first gradients by layer": ivon(factor=1.0),
    "IVON, three times that, lr 3e-3, clip 1/3": ivon(factor=3.0, lr=3e-3, clip=0.333),
    "IVON, h + δ of the first gradients by coordinate": ivon(factor=1.0, floor=0.1),
    "IVON, three times that, lr 3e-3, clip 1/3, sd 0.1": ivon(factor=3.0, floor=0.1, lr=3e-3, clip=0.333, sd=0.1),
}


@dataclass(frozen=True)
class Course:
    """The loss of each quarter of the steps, each layer's move, and the size of its last gradient."""

    losses: list[float]
    moved: list[float]
    gradients: list[float]


def play(make: Make, batches: Batches, seed: int) -> Course:
    """Train from the initialisation."""
    network = models.build("acarnet", (3, 32, 32), 10, seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = [p.detach().clone() for p in network.parameters()]
    optimizer, losses = make(network, batches), []
    for x, y in batches:
        losses.append(step(network, optimizer, x, y))
    quarters = np.array(losses).reshape(4, -1).mean(axis=1)
    pairs = [(p, q) for p, q in zip(network.parameters(), start, strict=True) if p.ndim > 1]
    moved = [root_mean_square(p.detach() - q) / root_mean_square(q) for p, q in pairs]
    return Course(quarters.tolist(), moved, [root_mean_square(p.grad) for p, _ in pairs if p.grad is not None])


def step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """One step; the loss before it."""

    with optimizer.sampled_params(train=True) if isinstance(optimizer, IVON | Sampled) else nullcontext():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
    optimizer.step()
    return float(loss.detach())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), metavar="NAME")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=62)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    badmm_kernels.set_num_threads(1)
    images = data.subset(data.load("cifar10", chosen.data_root), FRACTION, chosen.seed)
    x, y = torch.from_numpy(images.train_images).float() / images.levels, torch.from_numpy(images.train_labels)
    orders = [np.random.default_rng(e).permutation(len(y)) for e in range(1 + chosen.steps * BATCH // len(y))]
    index = torch.from_numpy(np.concatenate(orders))[: chosen.steps * BATCH].view(chosen.steps, BATCH)
    batches = [(x[rows].to(memory_format=torch.channels_last), y[rows]) for rows in index]
    print("| way | loss by quarter | moved: conv1, conv2, dense1, dense2, head | last gradients |")
    print("| --- | --- | --- | --- |")
    for name in chosen.only or WAYS:
        course = play(WAYS[name], batches, chosen.seed)
        cells = [", ".join(f"{v:.2f}" for v in values) for values in (course.losses, course.moved)]
        cells.append(", ".join(f"{v:.0e}" for v in course.gradients))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
