"""The networks of the experiments, as plain torch modules; any other module serves as well (`stacked`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from badmm.networks import dense
from badmm.networks.dense import ACTIVATIONS
from badmm.streams import Purpose, sequence

Shape = tuple[int, ...]


class MLP(nn.Module):
    """Dense layers with an activation between them; inputs are flattened. `sizes` = (inputs, hidden..., classes)."""

    def __init__(self, sizes: Sequence[int], activation: str = "sigmoid", bias: bool = True) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes: expected at least two positive integers, got {list(sizes)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(sizes))
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, ...) to outputs (N, classes)."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = self.activation.value(layer(x))
        out: Tensor = self.layers[-1](x)
        return out

    def chain(self, parameters: Mapping[str, Tensor]) -> list[dense.Layer]:
        """The layers of k networks from their named parameters (k, *shape), for `dense.Chain`."""
        names = [f"layers.{place}" for place in range(len(self.layers))]
        return [(parameters[f"{name}.weight"], parameters.get(f"{name}.bias")) for name in names]


class CifarNet(nn.Module):
    """The network of Zenke, Poole, Ganguli (ICML 2017, section 5.3) for 32×32 images; ReLU.

    conv 32 (padded), conv 32, pool, dropout ¼, conv 64 (padded), conv 64, pool, dropout ¼, dense 512, dropout ½, dense.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3)
        self.conv3, self.conv4 = nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 64, 3)
        self.dense, self.head = nn.Linear(64 * 6 * 6, 512), nn.Linear(512, classes)
        self.drop, self.drop_dense = nn.Dropout(0.25), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) to outputs (N, classes)."""
        # ReLU grows: it gives the same after the pool, on a quarter of the numbers
        x = self.drop(F.relu(F.max_pool2d(self.conv2(F.relu(self.conv1(x))), 2)))
        x = self.drop(F.relu(F.max_pool2d(self.conv4(F.relu(self.conv3(x))), 2)))
        out: Tensor = self.head(self.drop_dense(F.relu(self.dense(x.flatten(1)))))
        return out


class AcarNet(nn.Module):
    """The CNN of FedDyn (Acar et al., ICLR 2021, appendix) for 32×32 images; ReLU.

    conv 64 5×5, pool, conv 64 5×5, pool, dense 384, dense 192, dense.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 64, 5), nn.Conv2d(64, 64, 5)
        self.dense1, self.dense2, self.head = nn.Linear(64 * 25, 384), nn.Linear(384, 192), nn.Linear(192, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) to outputs (N, classes)."""
        # ReLU grows: it gives the same after the pool, on a quarter of the numbers
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
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


class ResNet20(nn.Module):
    """ResNet-20 for 32×32 images (He et al., CVPR 2016, section 4.2, option A) with GroupNorm for BatchNorm."""

    def __init__(self, classes: int = 100, groups: int = 2) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.GroupNorm(groups, 16)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(*(_Block(a, b, groups) for a, b in itertools.pairwise(widths)))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) to outputs (N, classes)."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        out: Tensor = self.head(x.mean(dim=(2, 3)))
        return out


class Linear(MLP):
    """f(x) = xᵀW without an intercept: least squares and logistic regression, whose solutions are known."""

    def __init__(self, inputs: int, outputs: int = 1) -> None:
        super().__init__((inputs, outputs), bias=False)


CONVOLUTIONAL: dict[str, Callable[[int], nn.Module]] = {"cifarnet": CifarNet, "acarnet": AcarNet, "resnet20": ResNet20}
NAMES = ("mlp", "linear", *CONVOLUTIONAL)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random state on the stream of a network's initialisation; as it was before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(sequence(seed, Purpose.INITIAL).generate_state(1)[0]))
        yield


def build(
    name: str, shape: Shape, classes: int, seed: int, *, hidden: Sequence[int] = (200, 100), activation: str = "sigmoid"
) -> nn.Module:
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
    with seeded(seed):
        if name == "mlp":
            return MLP((inputs, *hidden, classes), activation)
        if name == "linear":
            return Linear(inputs, classes)
        return CONVOLUTIONAL[name](classes)
