"""A user's own code, as a configuration names it: plain torch networks, losses, scores and data of a few points."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

CLASSES = 3


class Residual(nn.Module):
    """conv, batch norm, ReLU, conv, batch norm, shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class ResNet(nn.Module):
    """A stem with batch norm and two residual blocks; `view` as in much torch code, which some layouts do not take."""

    def __init__(self, width: int = 4, frozen_stem: bool = False) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Residual(width), Residual(width))
        self.head = nn.Linear(width * 4, CLASSES)
        self.stem.requires_grad_(not frozen_stem)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.blocks(F.relu(self.bn(self.stem(x)))), 4)
        return self.head(x.view(x.size(0), -1))


class Transformer(nn.Module):
    """Tokens (N, T) with learned positions, a torch encoder layer with dropout, the mean over positions."""

    def __init__(self, vocabulary: int = 7, length: int = 6, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Parameter(0.1 * torch.randn(length, width))
        self.layer = nn.TransformerEncoderLayer(width, 2, 16, dropout=dropout, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.tokens(x) + self.positions).mean(dim=1))


class Recurrent(nn.Module):
    """Sequences (N, T, 2) through an LSTM to a number at every time, (N, T)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0]).squeeze(-1)


class Segmenter(nn.Module):
    """Images (N, 1, 8, 8) to classes of pixels (N, 2, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)))


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss for each number of each point."""
    return F.smooth_l1_loss(outputs, targets, reduction="none")


def mean_absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().mean()


def intersection_over_union(outputs: Tensor, targets: Tensor) -> float:
    found, wanted = outputs.argmax(dim=1) == 1, targets == 1
    return float((found & wanted).sum() / (found | wanted).sum())


def _points(kind: str, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    if kind == "images":
        y = torch.arange(count) % CLASSES
        x = 0.3 * torch.rand(count, 1, 8, 8, generator=draw)
        x[torch.arange(count), 0, 2 * y + 1] += 1.0
        return x, y
    if kind == "tokens":
        x = torch.randint(0, 7, (count, 6), generator=draw)
        return x, (x == 0).sum(dim=1).clamp(max=CLASSES - 1)
    if kind == "sequences":
        x = torch.randn(count, 5, 2, generator=draw)
        return x, x[..., 0].cumsum(dim=1)
    x = torch.rand(count, 1, 8, 8, generator=draw)
    return x, (x[:, 0] > 0.5).long()


def datasets(kind: str, sizes: list[int], test: int = 24) -> tuple[list[Dataset], Dataset]:
    """Data of a kind, one data set per client, and one to test on."""
    draw = torch.Generator().manual_seed(0)
    made: list[Dataset] = [TensorDataset(*_points(kind, size, draw)) for size in (*sizes, test)]
    return made[:-1], made[-1]


def one_dataset(kind: str, count: int = 60) -> tuple[Dataset, Dataset]:
    """The same as one data set that the configuration splits."""
    clients, test = datasets(kind, [count])
    return clients[0], test


class Noisy(Dataset):
    """Items that change from one reading to the next."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return torch.rand(2), place % CLASSES


def noisy() -> tuple[list[Dataset], Dataset]:
    return [Noisy()], Noisy()
