"""From a configuration to a network experiment: data assigned to clients, network, method, what is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from badmm.clients.federation import ClientData, Federation
from badmm.data import datasets, images as data, partition, splits
from badmm.data.datasets import OwnData
from badmm.experiments import metrics, posterior
from badmm.experiments.config.networks import NetworkConfig
from badmm.networks import factories, models, noise
from badmm.networks.losses import LOSSES, Loss
from badmm.networks.stacked import Stacked
from badmm.rounds import network_buffers as buffers
from badmm.rounds.network_method import NetworkMethod, State
from badmm.streams import Purpose, torch_generator


@dataclass(frozen=True)
class Experiment:
    """One method on one seed's problem."""

    federation: Federation
    method: NetworkMethod
    held_out: metrics.HeldOut | metrics.Points
    posterior_samples: int
    seed: int

    def start(self) -> State:
        """The state before the first round, at the network's seeded initialisation."""
        federation = self.federation
        return self.method.start(federation, federation.stack.initial(federation.dtype, federation.device))

    @cached_property
    def point_flops(self) -> float:
        """Floating point operations of one point's gradient; see `metrics.point_flops`."""
        return metrics.point_flops(self.federation.stack, self.federation.example)

    def draws(self, state: State) -> Tensor | None:
        """Parameters (S, P) from the server's posterior after this round; None where there is none."""
        generator = torch_generator(self.seed, Purpose.POSTERIOR, state.round, device=self.federation.device)
        return self.method.sample(state, self.posterior_samples, generator) if self.posterior_samples else None

    def scores(self, state: State) -> dict[str, Any]:
        """Scores at the mean, and under `averaged` those of predictions averaged over the draws (or None)."""
        return self.held_out.record(self.federation.stack, self._server(state))

    def noise(self, state: State) -> dict[str, float | None]:
        """The server's posterior standard deviations against its weights, by layer; empty where there is none."""
        deviation = self.method.deviation(state)
        if deviation is None:
            return {}
        return noise.against_weights(self.federation.stack, self.method.mean(state), deviation)

    def reliability(self, state: State) -> dict[str, Any] | None:
        """The bins of a reliability diagram (`metrics.reliability`): at the `mean`, `averaged`; None without classes.

        The draws of a round come from its own stream, so that these are the predictions that `scores` scores.
        """
        return self.held_out.reliability(self.federation.stack, self._server(state))

    def posterior_bytes(self, state: State) -> bytes:
        """The file of the server's posterior; see `badmm.experiments.posterior`."""
        mean, deviation = self.method.mean(state), self.method.deviation(state)
        round_played = {"round": str(state.round)}
        return posterior.posterior_bytes(
            self.federation.stack, mean, deviation, state.server.get(buffers.NAME), round_played
        )

    def _server(self, state: State) -> metrics.Server:
        return metrics.Server(self.method.mean(state), self.draws(state), state.server.get(buffers.NAME))


@dataclass(frozen=True)
class Assigned:
    """What all methods share for a seed: the clients' points, what is scored, and the points' shape and classes."""

    points: ClientData
    held_out: metrics.HeldOut | metrics.Points
    shape: tuple[int, ...]
    num_classes: int


def load(config: NetworkConfig) -> data.ImageSet | OwnData:
    """The images of the source, or what the user's factory makes, with torch's random state at 0; ValueError for files
    and data sets that do not fit.
    """
    if config.data.factory is None:
        return data.load(config.data.source, config.data.root)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return datasets.gather(factories.call(config.data.factory, "data.factory", config.data.options))


def fingerprint(config: NetworkConfig, images: data.ImageSet | OwnData) -> str:
    """SHA-256 of all points and targets, and of the partition's file where there is one."""
    points = _fingerprint(images)
    if config.split is None or config.split.file is None:
        return points
    return hashlib.sha256(points.encode() + Path(config.split.file).read_bytes()).hexdigest()


def _fingerprint(images: data.ImageSet | OwnData) -> str:
    if isinstance(images, OwnData):
        own = hashlib.sha256(repr(None if images.rows is None else [len(part) for part in images.rows]).encode())
        for tensor in (images.inputs, images.targets, images.test_inputs, images.test_targets):
            own.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            own.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return own.hexdigest()
    digest = hashlib.sha256(f"{images.num_classes} {images.levels}".encode())
    for part in (images.train_images, images.train_labels, images.test_images, images.test_labels):
        digest.update(f"{part.dtype.str} {part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def assign(config: NetworkConfig, seed: int, images: data.ImageSet | OwnData | None = None) -> Assigned:
    """Subset, validation part and split of a seed; ValueError for files and splits that do not fit.

    `images` saves reading the files again.
    """
    images = load(config) if images is None else images
    own = {name: factories.find(path, f"model.metrics.{name}") for name, path in config.model.metrics.items()}
    if isinstance(images, OwnData):
        return _assign_own(config, seed, images, own)
    device, count = _device(config.run.device), len(images.train_labels)
    kept, held = _kept(config, count, seed)
    held_images, held_labels = images.train_images[held], images.train_labels[held]
    if config.data.evaluate == "test":
        held_images, held_labels = images.test_images, images.test_labels
    labels = images.train_labels[kept]
    rows = _split(config, labels, seed, kept, count)
    points = ClientData(
        torch.from_numpy(images.train_images[kept]).to(device),
        torch.from_numpy(labels).to(device),
        tuple(torch.from_numpy(part).to(device) for part in rows),
        images.levels,
    )
    mixes = splits.class_mix(labels, rows, images.num_classes)
    held_out = metrics.HeldOut(torch.from_numpy(held_images).to(device), held_labels, mixes, images.levels, own)
    return Assigned(points, held_out, images.shape, images.num_classes)


def _assign_own(config: NetworkConfig, seed: int, own: OwnData, scores: Mapping[str, metrics.Metric]) -> Assigned:
    device, count = _device(config.run.device), len(own.inputs)
    kept, held = _kept(config, count, seed)
    if own.rows is None:
        rows = [kept[part] for part in _split(config, own.targets.numpy()[kept], seed, kept, count)]
    elif config.split is not None:
        raise ValueError("split: expected none, as data.factory gives a data set for each client")
    else:
        rows = [part.numpy()[np.isin(part.numpy(), kept)] for part in own.rows]
    inputs, targets = own.test_inputs, own.test_targets
    if config.data.evaluate == "validation":
        inputs, targets = own.inputs[held], own.targets[held]
    levels = 1 if own.inputs.is_floating_point() else None
    parts = tuple(torch.from_numpy(part).to(device) for part in rows)
    points = ClientData(own.inputs.to(device), own.targets.to(device), parts, levels)
    shape = tuple(own.inputs.shape[1:])
    if config.model.loss != "cross_entropy" or own.targets.ndim > 1 or own.targets.is_floating_point():
        return Assigned(points, metrics.Points(inputs.to(device), targets, levels, scores), shape, 1)
    classes = int(max(own.targets.max(), own.test_targets.max())) + 1
    mixes = splits.class_mix(own.targets.numpy(), rows, classes)
    held_out = metrics.HeldOut(inputs.to(device), targets.numpy(), mixes, levels, scores)
    return Assigned(points, held_out, shape, classes)


def build(
    config: NetworkConfig,
    label: str,
    seed: int,
    images: data.ImageSet | OwnData | None = None,
    assigned: Assigned | None = None,
) -> Experiment:
    """The experiment of a method's label and a seed, which seeds subset, split, initialisation and training.

    `assigned` saves assigning again what the methods share. ValueError for files, splits and networks that do not fit.
    """
    assigned = assign(config, seed, images) if assigned is None else assigned
    device, dtype = torch.device(config.run.device), getattr(torch, config.run.dtype)
    model, table = config.model, config.methods[label]
    network = _network(config, assigned, seed).to(device=device, dtype=dtype)
    autocast = None if model.autocast is None else getattr(torch, model.autocast)
    stack = Stacked(network, _loss(model.loss), model.buffers, autocast)
    federation = Federation(assigned.points, stack, table.local.settings(), seed, dtype)
    return Experiment(federation, table.make(), assigned.held_out, config.run.posterior_samples, seed)


def _network(config: NetworkConfig, assigned: Assigned, seed: int) -> nn.Module:
    model = config.model
    if model.factory is None:
        options: dict[str, Any] = {"hidden": model.hidden, "activation": model.activation}
        return models.build(str(model.name), assigned.shape, assigned.num_classes, seed, **options)
    with models.seeded(seed):
        network = factories.call(model.factory, "model.factory", model.options)
    if not isinstance(network, nn.Module):
        raise ValueError(f"model.factory: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def _loss(name: str) -> Loss:
    return LOSSES[name] if name in LOSSES else Loss(factories.find(name, "model.loss"))


def _device(name: str) -> torch.device:
    """ValueError where torch cannot use it here."""
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"run.device: expected a device that torch can use here ({count} GPUs), got {name!r}")
    return device


def _kept(config: NetworkConfig, count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the training points that clients have, and of those kept from them."""
    chosen = data.part(count, config.data.fraction, seed)
    kept, held = data.parted(len(chosen), config.data.validation_fraction, seed)
    return chosen[kept], chosen[held]


def _split(config: NetworkConfig, labels: splits.Labels, seed: int, kept: NDArray[np.intp], count: int) -> splits.Rows:
    """The places of every client's points among those `kept` of `count`, whose labels these are."""
    split = config.split
    if split is None:
        raise ValueError("split: expected a section, as data.factory gives one data set for all clients, got none")
    if split.file is not None:
        return partition.read(split.file, count).rows(kept)
    assert split.clients is not None
    if split.kind == "iid":
        return splits.iid(labels, split.clients, seed)
    if labels.ndim > 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f'split.kind: expected "iid" for targets that are not classes, got {split.kind!r}')
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
