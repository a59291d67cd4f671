"""A user's own data as tensors: torch datasets of (input, target), one per client or one to be split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset


@dataclass(frozen=True)
class OwnData:
    """Training and test points as tensors (N, ...), and the rows of each client, or None where they are to be split."""

    inputs: Tensor
    targets: Tensor
    rows: tuple[Tensor, ...] | None
    test_inputs: Tensor
    test_targets: Tensor


def gather(made: Any, key: str = "data.factory") -> OwnData:
    """What a factory returned, (clients, test): a dataset for each client, or one dataset, and one to test on.

    Every item is read once. ValueError, starting with `key`, for anything else, for items of unequal shapes, and for a
    dataset whose items change from one reading to the next: augmentation belongs into the network.
    """
    if not isinstance(made, tuple) or len(made) != 2:
        raise ValueError(f"{key}: expected (clients, test), a dataset per client and one to test on, got {_kind(made)}")
    clients, test = made
    whole = isinstance(clients, Dataset)
    parts = [clients] if whole else clients
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(p, Dataset) for p in (*parts, test)):
        raise ValueError(f"{key}: expected torch datasets, got {_kind(clients)} and {_kind(test)}")
    read = [_tensors(part, f"{key}: client {k}") for k, part in enumerate(parts)]
    test_inputs, test_targets = _tensors(test, f"{key}: test")
    shapes = {(*x.shape[1:], "|", *y.shape[1:]) for x, y in (*read, (test_inputs, test_targets))}
    if len(shapes) > 1:
        raise ValueError(f"{key}: expected points of one shape at all clients, got {sorted(map(str, shapes))}")
    inputs, targets = (torch.cat([pair[place] for pair in read]) for place in (0, 1))
    rows = tuple(torch.arange(len(inputs)).split([len(x) for x, _ in read]))
    return OwnData(inputs, targets, None if whole else rows, test_inputs, test_targets)


def _tensors(data: Dataset[Any], where: str) -> tuple[Tensor, Tensor]:
    if not hasattr(data, "__len__") or len(data) < 1:
        raise ValueError(f"{where}: expected a dataset with a length of at least 1, got {_kind(data)}")
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return data.tensors[0], data.tensors[1]
    first, again = data[0], data[0]
    if not isinstance(first, tuple | list) or len(first) != 2:
        raise ValueError(f"{where}: expected items (input, target), got {_kind(first)}")
    pairs = [tuple(torch.as_tensor(value) for value in data[place]) for place in range(len(data))]
    if not all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(first, again, strict=True)):
        raise ValueError(
            f"{where}: expected items that stay the same, got one that differs between two readings; items are read "
            "once, so that random augmentation belongs into the network's forward pass"
        )
    try:
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])
    except RuntimeError as error:
        raise ValueError(f"{where}: expected items of one shape, got others ({error})") from error


def _kind(value: Any) -> str:
    return type(value).__name__
