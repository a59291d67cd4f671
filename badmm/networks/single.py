"""One network after the other through a thread's own copy: a pass in training mode, its gradient, a pass in evaluation.

Each network has its own batch here, its own buffers and its own random stream, so that batch normalisation and dropout
see what they would see in a network that trains alone. On a CPU it is also the faster way for convolutions: one grouped
convolution of five networks takes twice as long as five in the layout `channels_last` (`benchmarks/stacking.py`).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from badmm.networks.losses import Loss
from badmm.networks.traits import Traits

_RANDOM = threading.Lock()
"""torch's random state is one for all threads."""


class Single:
    """A copy of `network` whose parameters `names` are put in place row by row."""

    def __init__(
        self, network: nn.Module, names: Sequence[str], loss: Loss, traits: Traits, autocast: torch.dtype | None
    ) -> None:
        self.network, self.loss, self.traits, self.autocast = copy.deepcopy(network), loss, traits, autocast
        own = dict(self.network.named_parameters())
        self.parameters = [own[name] for name in names]

    def outputs(self, row: Sequence[Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (N, ...) in evaluation mode."""
        self._place(row, buffers)
        with torch.no_grad(), self._cast(x):
            out: Tensor = self._in_mode(False)(self._laid_out(x))
        return out.to(x.dtype) if x.is_floating_point() else out

    def gradient(
        self,
        row: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        weights: Tensor,
        out: Sequence[Tensor],
        *,
        training: bool,
        seed: int | None,
    ) -> Tensor:
        """Σ_n w_n ℓ_n. Its gradient goes into `out`, buffers change in place; `seed` is for what draws."""
        self._place(row, buffers)
        network = self._in_mode(training)
        with torch.enable_grad():
            with self._cast(x), _seeded(seed, x.device):
                outputs = network(self._laid_out(x))
            total = self.loss.points(outputs.to(weights.dtype), y) @ weights
            found: Sequence[Tensor | None] = torch.autograd.grad(total, self.parameters, allow_unused=True)
        for place, gradient in zip(out, found, strict=True):
            if gradient is None:
                place.zero_()
            else:
                place.copy_(gradient)
        for name, value in buffers.items():
            value.copy_(self.network.get_buffer(name))
        return total.detach()

    def _place(self, row: Sequence[Tensor], buffers: Mapping[str, Tensor]) -> None:
        """Parameters share the row's memory, but for kernels in another layout."""
        for parameter, value in zip(self.parameters, row, strict=True):
            parameter.data = self._laid_out(value)
        for name, value in buffers.items():
            self.network.get_buffer(name).copy_(value)

    def _laid_out(self, value: Tensor) -> Tensor:
        if value.ndim == 4 and self.traits.channels_last:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    def _in_mode(self, training: bool) -> nn.Module:
        if self.network.training != training:
            self.network.train(training)
        return self.network

    def _cast(self, x: Tensor) -> AbstractContextManager[object, None]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(x.device.type, self.autocast)


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    if seed is None:
        yield
        return
    with _RANDOM, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
