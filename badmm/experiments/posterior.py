"""The file `posterior.safetensors` of a network run: means, precisions and buffers by the network's names.

mean.NAME        the parameter's mean, or the parameter itself for a method without a posterior
precision.NAME   1/variance, for methods with a posterior
buffer.NAME      buffers that training changes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from badmm.networks.stacked import Stacked
from badmm.transports.sealed import load_tensors, sealed_bytes

FILE = "posterior.safetensors"
_GROUPS = ("mean", "precision", "buffer")


@dataclass(frozen=True)
class Posterior:
    """N(mean, 1/precision) over a network's parameters by name; a method without a posterior has no `precision`."""

    mean: Mapping[str, Tensor]
    precision: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the parameters once; raise ValueError for a method without a posterior."""
        if not self.precision:
            raise ValueError("posterior: expected precisions, got the parameters of a method without a posterior")
        noise = {name: torch.randn(m.shape, dtype=m.dtype, generator=generator) for name, m in self.mean.items()}
        return {name: m + noise[name] * self.precision[name].rsqrt() for name, m in self.mean.items()}

    def load_into(self, network: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
        """Write the means, or a draw if there is a generator, and the buffers into `network`, and return it.

        Frozen parameters keep their values. Raises ValueError, before anything changes, for names and shapes that the
        network does not have.
        """
        values = dict(self.mean) if generator is None else self.sample(generator)
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        kept = dict(network.named_buffers())
        _check({name: trained.get(name) for name in values}, values, "parameter")
        _check({name: kept.get(name) for name in self.buffers}, self.buffers, "buffer")
        missing = [name for name in trained if name not in values]
        if missing:
            raise ValueError(f"network: expected parameters of the file alone, got {missing[0]!r}, which it lacks")
        with torch.no_grad():
            for name, value in values.items():
                trained[name].copy_(value.view_as(trained[name]))
            for name, value in self.buffers.items():
                kept[name].copy_(value.view_as(kept[name]))
        return network


def load_posterior(path: str | Path) -> Posterior:
    """Read the posterior of a file or of a run's folder; raise ValueError with the file's name for other contents."""
    place = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not place.is_file():
        raise ValueError(f"{place}: expected a file, got none")
    arrays, _ = load_tensors(place)
    parts: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for name, array in arrays.items():
        group, _, own = name.partition(".")
        if group not in parts or not own:
            raise ValueError(f"{place}: expected tensors named {', '.join(f'{g}.NAME' for g in _GROUPS)}, got {name!r}")
        parts[group][own] = torch.from_numpy(array.copy())
    if not parts["mean"]:
        raise ValueError(f"{place}: expected the means of parameters, got none")
    return Posterior(parts["mean"], parts["precision"], parts["buffer"])


def posterior_bytes(
    stack: Stacked, mean: Tensor, deviation: Tensor | None, buffers: Tensor | None, metadata: Mapping[str, str]
) -> bytes:
    """Return the file's bytes from flat means (P,), standard deviations (P,) or None, and buffers (B,) or None."""
    groups = {"mean": stack.views(mean), "buffer": stack.buffer_views(buffers)}
    if deviation is not None:
        groups["precision"] = stack.views(deviation.square().reciprocal())
    named = {f"{group}.{name}": value for group, part in groups.items() for name, value in part.items()}
    return sealed_bytes({name: value.detach().cpu().numpy() for name, value in named.items()}, metadata)


def _check(own: Mapping[str, Tensor | None], given: Mapping[str, Tensor], kind: str) -> None:
    for name, value in given.items():
        place = own[name]
        if place is None:
            raise ValueError(f"network: expected a trained {kind} {name!r} as in the file, got none")
        if place.numel() != value.numel() or (place.ndim and place.shape != value.shape):  # a scalar is stored as (1,)
            raise ValueError(f"network: expected {name!r} of the shape {tuple(value.shape)}, got {tuple(place.shape)}")
