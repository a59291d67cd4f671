"""The networks of the experiments, as plain torch modules that also run stacked along a client axis (`stacked`).

`forward(x, masks)` takes one dropout mask a dropout layer, scaled by 1/(1 − rate), so that every client can have its
own stream under `torch.func.vmap`; without masks there is no dropout, which is evaluation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from badmm.networks import dense
from badmm.networks.dense import ACTIVATIONS
from badmm.streams import Purpose, sequence

Shape = tuple[int, ...]
Head = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of outputs (k, N, classes) one number for every network (k,), and the slope of their sum in the outputs."""


class Network(nn.Module):
    """A classifier or regressor: inputs (N, channels, height, width) or (N, d) to outputs (N, classes)."""

    dropout: tuple[tuple[float, Shape], ...] = ()
    """Rate and shape (without the batch axis) of every dropout layer."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """A stacked pass goes with the forward pass beside it, and a gradient with the stacked pass: a class that
        overrides only the earlier one has the general later ones.
        """
        super().__init_subclass__(**keywords)
        names = ("forward", "stacked", "stacked_gradient")
        places = [next(n for n, base in enumerate(cls.__mro__) if name in vars(base)) for name in names]
        for number, name in enumerate(names[1:], 1):
            if min(places[:number]) < places[number]:
                setattr(cls, name, getattr(Network, name))

    def forward(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """Outputs (N, classes); `masks` as `draw_masks` gives them, none for evaluation."""
        raise NotImplementedError

    def stacked(self, parameters: Mapping[str, Tensor], x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """Outputs (k, N, classes) of k networks with named parameters (k, *shape), inputs and masks (k, N, ...)."""

        def call(own: Mapping[str, Tensor], x: Tensor, masks: Sequence[Tensor]) -> Tensor:
            out: Tensor = functional_call(self, dict(own), (x, masks))
            return out

        return vmap(call)(dict(parameters), x, tuple(masks))

    def stacked_gradient(
        self, parameters: Mapping[str, Tensor], x: Tensor, slopes: Mapping[str, Tensor]
    ) -> Callable[[Sequence[Tensor], Head], Tensor]:
        """A function of masks and head that returns the head's numbers and writes their gradients into `slopes`.

        Parameters and slopes are named (k, *shape), inputs (k, N, ...); the function reads them as they are when it is
        called, so that one serves all steps that use the same memory.
        """

        def gradient(masks: Sequence[Tensor], head: Head) -> Tensor:
            leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
            with torch.enable_grad():
                outputs = self.stacked(leaves, x, masks)
            values, slope = head(outputs.detach())
            found = torch.autograd.grad(outputs, list(leaves.values()), slope)
            for name, own in zip(leaves, found, strict=True):
                slopes[name].copy_(own)
            return values

        return gradient


class MLP(Network):
    """Dense layers with an activation between them; inputs are flattened. `sizes` = (inputs, hidden..., classes)."""

    def __init__(self, sizes: Sequence[int], activation: str = "sigmoid", bias: bool = True) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes: expected at least two positive integers, got {list(sizes)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(sizes))
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """See `Network.forward`."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = self.activation.value(layer(x))
        out: Tensor = self.layers[-1](x)
        return out

    def stacked(self, parameters: Mapping[str, Tensor], x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """See `Network.stacked`."""
        if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters.values())):
            return super().stacked(parameters, x, masks)
        return dense.Chain(x.flatten(2), self._chain(parameters), self.activation).forward()

    def stacked_gradient(
        self, parameters: Mapping[str, Tensor], x: Tensor, slopes: Mapping[str, Tensor]
    ) -> Callable[[Sequence[Tensor], Head], Tensor]:
        """See `Network.stacked_gradient`; without autograd. RuntimeError for parameters beside the layers'."""
        unused = [name for name in slopes if not name.startswith("layers.")]
        if unused:
            raise RuntimeError(
                f"parameters: expected those of the layers, got {', '.join(unused)}, which no layer uses"
            )
        x = x.view(*x.shape[:2], -1)
        chain = dense.Chain(x, self._chain(parameters), self.activation, self._chain(slopes))

        def gradient(masks: Sequence[Tensor], head: Head) -> Tensor:
            values, slope = head(chain.forward())
            chain.backward(slope)
            return values

        return gradient

    def _chain(self, parameters: Mapping[str, Tensor]) -> list[dense.Layer]:
        names = [f"layers.{place}" for place in range(len(self.layers))]
        return [(parameters[f"{name}.weight"], parameters.get(f"{name}.bias")) for name in names]


class CifarNet(Network):
    """The network of Zenke, Poole, Ganguli (ICML 2017, section 5.3) for 32×32 images; ReLU.

    conv 32 (padded), conv 32, pool, dropout ¼, conv 64 (padded), conv 64, pool, dropout ¼, dense 512, dropout ½, dense.
    """

    dropout = ((0.25, (32, 15, 15)), (0.25, (64, 6, 6)), (0.5, (512,)))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3)
        self.conv3, self.conv4 = nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 64, 3)
        self.dense, self.head = nn.Linear(64 * 6 * 6, 512), nn.Linear(512, classes)

    def forward(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """See `Network.forward`."""
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = x * masks[0] if masks else x
        x = F.max_pool2d(F.relu(self.conv4(F.relu(self.conv3(x)))), 2)
        x = x * masks[1] if masks else x
        x = F.relu(self.dense(x.flatten(1)))
        out: Tensor = self.head(x * masks[2] if masks else x)
        return out


class AcarNet(Network):
    """The CNN of FedDyn (Acar et al., ICLR 2021, appendix) for 32×32 images; ReLU.

    conv 64 5×5, pool, conv 64 5×5, pool, dense 384, dense 192, dense.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 64, 5), nn.Conv2d(64, 64, 5)
        self.dense1, self.dense2, self.head = nn.Linear(64 * 25, 384), nn.Linear(384, 192), nn.Linear(192, classes)

    def forward(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """See `Network.forward`."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        out: Tensor = self.head(F.relu(self.dense2(F.relu(self.dense1(x.flatten(1))))))
        return out


class _Block(nn.Module):
    """Two 3×3 convolutions with a shortcut that subsamples and pads with zero channels (He et al., option A)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.stride, self.extra = (1 if inputs == outputs else 2), outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.GroupNorm(groups, outputs), nn.GroupNorm(groups, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(x + y)


class ResNet20(Network):
    """ResNet-20 for 32×32 images (He et al., CVPR 2016, section 4.2, option A) with GroupNorm for BatchNorm."""

    def __init__(self, classes: int = 100, groups: int = 2) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.GroupNorm(groups, 16)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(*(_Block(a, b, groups) for a, b in itertools.pairwise(widths)))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """See `Network.forward`."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        out: Tensor = self.head(x.mean(dim=(2, 3)))
        return out


class Linear(MLP):
    """f(x) = xᵀW without an intercept: least squares and logistic regression, whose solutions are known."""

    def __init__(self, inputs: int, outputs: int = 1) -> None:
        super().__init__((inputs, outputs), bias=False)


CONVOLUTIONAL: dict[str, Callable[[int], Network]] = {"cifarnet": CifarNet, "acarnet": AcarNet, "resnet20": ResNet20}
NAMES = ("mlp", "linear", *CONVOLUTIONAL)


def build(
    name: str, shape: Shape, classes: int, seed: int, *, hidden: Sequence[int] = (200, 100), activation: str = "sigmoid"
) -> Network:
    """A network for inputs of `shape` (channels, height, width), initialised by torch's rules from `seed`.

    torch's global random state is left as it was. ValueError for an unknown name or a shape the network cannot take.
    """
    if name not in NAMES:
        raise ValueError(f"model.name: expected one of {', '.join(NAMES)}, got {name!r}")
    if name in CONVOLUTIONAL and shape != (3, 32, 32):
        raise ValueError(f"model.name: expected mlp or linear for inputs of shape {shape}, got {name!r}")
    inputs = 1
    for length in shape:
        inputs *= length
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(sequence(seed, Purpose.INITIAL).generate_state(1)[0]))
        if name == "mlp":
            return MLP((inputs, *hidden, classes), activation)
        if name == "linear":
            return Linear(inputs, classes)
        return CONVOLUTIONAL[name](classes)


def draw_masks(network: Network, batch: int, generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A mask (batch, *shape) for every dropout layer: 0 with its rate, else 1/(1 − rate)."""
    masks = []
    for rate, shape in network.dropout:
        keep = torch.empty((batch, *shape), dtype=dtype, device=generator.device)
        masks.append(keep.bernoulli_(1 - rate, generator=generator).div_(1 - rate))
    return tuple(masks)
