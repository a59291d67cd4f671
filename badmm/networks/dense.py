"""Chains of dense layers of k networks at once, forward and backward, without autograd.

`torch.func.vmap` makes of k dense layers one batched product; here they are products on torch's oneDNN, a client each,
where torch has it (CPU, float32): on AMD processors twice as quick as the batched product of MKL. Small products, and
all products elsewhere and on Intel's processors, where MKL is quicker by a fifth, are the batched one. A chain's
gradients are written where they belong, without an autograd graph, whose fresh tensors and many small calls cost most
where several threads train at once.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST = 1 << 22
"""Multiplications of a product from which on its speed outweighs a call for every client."""


@cache
def _on_intel() -> bool:
    """Whether MKL takes its fast paths here; the maker decides, not a measurement, so that results repeat."""
    try:
        maker = Path("/proc/cpuinfo").read_text()
    except OSError:
        maker = platform.processor()
    return torch.backends.mkl.is_available() and "GenuineIntel" in maker


@cache
def _onednn() -> Callable[..., Tensor] | None:
    """oneDNN's x Wᵀ + b, an operator that torch's compiler emits; None in a torch whose operator is not that one."""
    x, weights, bias = torch.ones(2, 3), torch.arange(6.0).view(2, 3), torch.ones(2)
    try:
        found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        same = torch.equal(found(x, weights, bias, "none", [], ""), F.linear(x, weights, bias))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return found if same else None


def product(x: Tensor, weights: Tensor, bias: Tensor | None, out: Tensor) -> Callable[[], object]:
    """A function that writes x_k W_kᵀ + b_k of these tensors, as they then are, into `out` (k, N, b).

    x (k, N, a), weights (k, b, a), bias (k, b) or None. Not for autograd.
    """
    (k, n, a), b = x.shape, weights.shape[1]
    suits = x.device.type == "cpu" and x.dtype == torch.float32 and n * a * b >= _LEAST and not _on_intel()
    linear = _onednn() if suits and torch.backends.mkldnn.enabled else None
    if linear is None:
        turned = weights.mT
        if bias is None:
            return lambda: torch.bmm(x, turned, out=out)
        column = bias.unsqueeze(1)
        return lambda: torch.baddbmm(column, x, turned, out=out)
    biases = [None] * k if bias is None else bias.unbind()
    rows = list(zip(out.unbind(), x.unbind(), weights.unbind(), biases, strict=True))

    def run() -> None:
        for row, *own in rows:
            row.copy_(linear(*own, "none", [], ""))  # at once: the next product gets its memory, still in the cache

    return run


@dataclass(frozen=True)
class Activation:
    """`value(z)` is y; `apply(z)` makes y of z in place; `pull(ḡ, y)` makes of ḡ, the slope in y, that in z."""

    value: Callable[[Tensor], Tensor]
    apply: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor], object]


def _pull_sigmoid(slope: Tensor, y: Tensor) -> object:
    return torch.ops.aten.sigmoid_backward.grad_input(slope, y, grad_input=slope)


def _pull_relu(slope: Tensor, y: Tensor) -> object:
    return torch.ops.aten.threshold_backward.grad_input(slope, y, 0, grad_input=slope)


def _pull_tanh(slope: Tensor, y: Tensor) -> object:
    return torch.ops.aten.tanh_backward.grad_input(slope, y, grad_input=slope)


ACTIVATIONS = {
    "sigmoid": Activation(torch.sigmoid, torch.sigmoid_, _pull_sigmoid),
    "relu": Activation(F.relu, torch.relu_, _pull_relu),
    "tanh": Activation(torch.tanh, torch.tanh_, _pull_tanh),
}
"""torch's functions and, for `pull`, the operators of its autograd."""

Layer = tuple[Tensor, Tensor | None]
"""Weights (k, b, a) and bias (k, b) or None."""


class Chain:
    """y ← act(y Wᵀ + b) through the layers of k networks from x (k, N, a), the last one without activation.

    It belongs to the memory that it is made with, and reads it anew at every pass. With `slopes`, shaped like `layers`,
    the backward pass writes the gradients Σ_n ḡ_n y_nᵀ and Σ_n ḡ_n there.
    """

    def __init__(
        self, x: Tensor, layers: Sequence[Layer], activation: Activation, slopes: Sequence[Layer] = ()
    ) -> None:
        self.activation = activation
        self.through = [x] + [x.new_empty(*x.shape[:2], weights.shape[1]) for weights, _ in layers]
        self.products = [product(y, *own, z) for y, own, z in zip(self.through, layers, self.through[1:], strict=False)]
        if slopes:
            self.pulled = [torch.empty_like(y) for y in self.through[1:]]
            self.biases = [bias for _, bias in slopes]
            self.outer = [
                product(slope.mT, y.mT, None, weights)
                for slope, y, (weights, _) in zip(self.pulled, self.through, slopes, strict=False)
            ]
            self.back = [
                product(slope, weights.mT, None, before)
                for slope, (weights, _), before in zip(self.pulled[1:], layers[1:], self.pulled, strict=False)
            ]

    def forward(self) -> Tensor:
        """The outputs (k, N, b), which the next pass overwrites."""
        for place, run in enumerate(self.products):
            if place:
                self.activation.apply(self.through[place])
            run()
        return self.through[-1]

    def backward(self, slope: Tensor) -> None:
        """Gradients into `slopes` from the slope of the outputs of the last forward pass."""
        self.pulled[-1].copy_(slope)
        for place in reversed(range(len(self.outer))):
            if place:  # reads the weights before their slopes are written, perhaps in their place
                self.back[place - 1]()
            self.outer[place]()
            bias = self.biases[place]
            if bias is not None:
                torch.sum(self.pulled[place], dim=1, out=bias)
            if place:
                self.activation.pull(self.pulled[place - 1], self.through[place])
