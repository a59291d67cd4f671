"""From a configuration to a network experiment: data assigned to clients, network, method, what is scored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from badmm.clients.federation import ClientData, Federation
from badmm.data import images as data
from badmm.data import splits
from badmm.experiments import metrics
from badmm.experiments.config.networks import NetworkConfig
from badmm.networks import models, noise
from badmm.networks.losses import CROSS_ENTROPY
from badmm.networks.stacked import Stacked
from badmm.rounds.network_method import Method, State
from badmm.streams import Purpose, torch_generator


@dataclass(frozen=True)
class Experiment:
    """One method on one seed's problem."""

    federation: Federation
    method: Method
    held_out: metrics.HeldOut
    posterior_samples: int
    seed: int

    def start(self) -> State:
        """The state before the first round, at the network's seeded initialisation."""
        federation = self.federation
        return self.method.start(federation, federation.stack.initial(federation.dtype, federation.device))

    @cached_property
    def point_flops(self) -> float:
        """Floating point operations of one point's gradient; see `metrics.point_flops`."""
        federation = self.federation
        x, _ = federation.data.points(federation.data.rows[0][:1], federation.dtype)
        return metrics.point_flops(federation.stack, x, federation.dtype)

    def draws(self, state: State) -> Tensor | None:
        """Parameters (S, P) from the server's posterior after this round; None where there is none."""
        generator = torch_generator(self.seed, Purpose.POSTERIOR, state.round, device=self.federation.device)
        return self.method.sample(state, self.posterior_samples, generator) if self.posterior_samples else None

    def probabilities(self, state: State) -> tuple[metrics.Array, metrics.Array | None]:
        """Class probabilities (N, C) of the held-out points at the mean, and averaged over the draws (or None)."""
        stack, draws = self.federation.stack, self.draws(state)
        at_mean = self.held_out.probabilities(stack, self.method.mean(state))
        return at_mean, None if draws is None else metrics.averaged(self.held_out, stack, draws)

    def scores(self, state: State) -> dict[str, Any]:
        """Scores at the mean, and under `averaged` those of predictions averaged over the draws (or None)."""
        at_mean, averaged = self.probabilities(state)
        scores = metrics.scores(self.held_out, at_mean)
        return {**scores, "averaged": None if averaged is None else metrics.scores(self.held_out, averaged)}

    def noise(self, state: State) -> dict[str, float | None]:
        """The server's posterior standard deviations against its weights, by layer; empty where there is none."""
        deviation = self.method.deviation(state)
        if deviation is None:
            return {}
        return noise.against_weights(self.federation.stack, self.method.mean(state), deviation)

    def reliability(self, state: State) -> dict[str, Any]:
        """The bins of a reliability diagram (`metrics.reliability`): at the `mean` and `averaged` (or None).

        The draws of a round come from its own stream, so that these are the predictions that `scores` scores.
        """
        at_mean, averaged = self.probabilities(state)
        bins = {"mean": metrics.reliability(self.held_out, at_mean)}
        return {**bins, "averaged": None if averaged is None else metrics.reliability(self.held_out, averaged)}


@dataclass(frozen=True)
class Assigned:
    """What all methods share for a seed: the clients' points, what is scored, and the images' shape and classes."""

    points: ClientData
    held_out: metrics.HeldOut
    shape: tuple[int, ...]
    num_classes: int


def fingerprint(images: data.ImageSet) -> str:
    """SHA-256 of all images and labels."""
    digest = hashlib.sha256(f"{images.num_classes} {images.levels}".encode())
    for part in (images.train_images, images.train_labels, images.test_images, images.test_labels):
        digest.update(f"{part.dtype.str} {part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def assign(config: NetworkConfig, seed: int, images: data.ImageSet | None = None) -> Assigned:
    """Subset, validation part and split of a seed; ValueError for files and splits that do not fit.

    `images` saves reading the files again.
    """
    device = _device(config.run.device)
    images = data.load(config.data.source, config.data.root) if images is None else images
    images = data.subset(images, config.data.fraction, seed)
    images, held_images, held_labels = data.hold_out(images, config.data.validation_fraction, seed)
    if config.data.evaluate == "test":
        held_images, held_labels = images.test_images, images.test_labels
    rows = _split(config, images, seed)
    points = ClientData(
        torch.from_numpy(images.train_images).to(device),
        torch.from_numpy(images.train_labels).to(device),
        tuple(torch.from_numpy(part).to(device) for part in rows),
        images.levels,
    )
    mixes = splits.class_mix(images.train_labels, rows, images.num_classes)
    held_out = metrics.HeldOut(torch.from_numpy(held_images).to(device), held_labels, mixes, images.levels)
    return Assigned(points, held_out, images.shape, images.num_classes)


def build(
    config: NetworkConfig, label: str, seed: int, images: data.ImageSet | None = None, assigned: Assigned | None = None
) -> Experiment:
    """The experiment of a method's label and a seed, which seeds subset, split, initialisation and training.

    `assigned` saves assigning again what the methods share. ValueError for files, splits and networks that do not fit.
    """
    assigned = assign(config, seed, images) if assigned is None else assigned
    device, dtype = torch.device(config.run.device), getattr(torch, config.run.dtype)
    model = config.model
    network = models.build(
        model.name, assigned.shape, assigned.num_classes, seed, hidden=model.hidden, activation=model.activation
    )
    table = config.methods[label]
    stack = Stacked(network.to(device=device, dtype=dtype), CROSS_ENTROPY)
    federation = Federation(assigned.points, stack, table.local.settings(), seed, dtype)
    return Experiment(federation, table.make(), assigned.held_out, config.run.posterior_samples, seed)


def _device(name: str) -> torch.device:
    """ValueError where torch cannot use it here."""
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"run.device: expected a device that torch can use here ({count} GPUs), got {name!r}")
    return device


def _split(config: NetworkConfig, images: data.ImageSet, seed: int) -> splits.Rows:
    split, labels = config.split, images.train_labels
    if split.kind == "iid":
        return splits.iid(labels, split.clients, seed)
    if split.kind == "shards":
        options = {"classes": split.classes, "points": split.points}
        return splits.shards(labels, split.clients, seed, reuse=split.reuse, **options)
    return splits.dirichlet(
        labels,
        split.clients,
        seed,
        size_concentration=split.size_concentration,
        class_concentration=split.class_concentration,
        minimum=split.minimum,
    )
