"""Parameters of one group, device and dtype in flat buffers that the parameters and their gradients are views of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64)


class Block:
    """Flat buffers (P,): `mean`, which the parameters view unless `show` says else, `shown` for a sample, `gradient`,
    which their `.grad` view, and others made by `new`.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.shapes = [p.shape for p in self.parameters]
        self.lengths = [p.numel() for p in self.parameters]
        self.mean = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.shown, self.gradient = torch.empty_like(self.mean), torch.zeros_like(self.mean)
        self._means, self._samples = self.views(self.mean), self.views(self.shown)
        self._gradients = self.views(self.gradient)
        for p, view in zip(self.parameters, self._means, strict=True):
            p.data = view
        self.collect()

    def new(self, value: float = 0.0) -> Tensor:
        """Another buffer."""
        return torch.full_like(self.mean, value)

    def views(self, flat: Tensor) -> list[Tensor]:
        """A buffer as tensors of the parameters' shapes."""
        parts = flat.split(self.lengths)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def show(self, sample: bool) -> None:
        """Let the parameters view `shown`, or `mean` again."""
        wanted, present = (self._samples, self._means) if sample else (self._means, self._samples)
        if any(p.data_ptr() != before.data_ptr() for p, before in zip(self.parameters, present, strict=True)):
            raise RuntimeError(
                "params: expected the memory that the optimizer gave them, got another; move a model to its device and "
                "dtype before the optimizer is made"
            )
        for p, view in zip(self.parameters, wanted, strict=True):
            p.data = view

    def collect(self) -> None:
        """Have every gradient in `gradient` and viewed there; a parameter without one counts as 0."""
        for p, view in zip(self.parameters, self._gradients, strict=True):
            if p.grad is view:
                continue
            if p.grad is None:
                view.zero_()
            elif p.grad.data_ptr() != view.data_ptr():
                view.copy_(p.grad)
            if p.requires_grad:
                p.grad = view

    def zero_gradients(self) -> None:
        """Set them to 0."""
        self.gradient.zero_()
        for p, view in zip(self.parameters, self._gradients, strict=True):
            if p.requires_grad:
                p.grad = view


def blocks(parameters: Iterable[Tensor]) -> list[Block]:
    """One block for each device and dtype, in order of appearance. ValueError for other dtypes than float32, 64."""
    parts: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for p in parameters:
        if p.dtype not in DTYPES:
            raise ValueError(f"params: expected float32 or float64, got {p.dtype}")
        parts.setdefault((p.device, p.dtype), []).append(p)
    return [Block(part) for part in parts.values()]
