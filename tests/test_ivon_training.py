"""badmm.ivon.IVON trains a small network: accuracy and NLL beside Adam's."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from badmm.ivon import IVON
from tests.test_ivon import train


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = torch.tensor(images[order] / 16, dtype=torch.float32), torch.tensor(labels[order])
    return x[:1000], y[:1000], x[1000:], y[1000:]


def fit(kind: str, seed: int, digits: tuple[Tensor, ...]) -> tuple[float, float]:
    """Test accuracy and NLL after 40 epochs: Adam, or IVON averaged over 32 samples of its posterior.

    Step sizes (and IVON's h_0) were chosen on a part of the training data.
    """
    x, y, x_test, y_test = digits
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer: Any
    if kind == "adam":
        optimizer = torch.optim.Adam(network.parameters(), 2e-2)
    else:
        optimizer = IVON(network.parameters(), 2.0, 1000.0, beta2=0.9995, seed=seed)
    for _ in range(40):
        parts = [(x[part], y[part]) for part in torch.randperm(len(x)).split(50)]
        if kind == "ivon":
            train(network, optimizer, parts)
            continue
        for inputs, labels in parts:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    with torch.no_grad():
        probability = network(x_test).softmax(1)
        if kind == "ivon":
            probability = torch.zeros_like(probability)
            for _ in range(32):
                with optimizer.sampled_params():
                    probability += network(x_test).softmax(1) / 32
    nll = nn.functional.nll_loss(probability.log(), y_test)
    return float((probability.argmax(1) == y_test).float().mean()), float(nll)


def test_it_trains_digits_as_well_as_adam_with_a_lower_nll(digits: tuple[Tensor, ...]) -> None:
    scores = {kind: np.array([fit(kind, seed, digits) for seed in range(5)]) for kind in ("adam", "ivon")}
    assert scores["ivon"][:, 0].mean() >= scores["adam"][:, 0].mean(), scores
    assert scores["ivon"][:, 1].mean() < scores["adam"][:, 1].mean(), scores
