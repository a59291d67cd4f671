"""Scores against scikit-learn and hand-made cases; FLOPs against the layers' own counts."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from badmm.experiments import metrics
from badmm.networks import models
from badmm.networks.losses import CROSS_ENTROPY
from badmm.networks.stacked import Stacked

RNG = np.random.default_rng(0)


def held_out(
    labels: np.ndarray, mixes: np.ndarray | None = None, inputs: torch.Tensor | None = None
) -> metrics.HeldOut:
    x = torch.zeros(len(labels), 1) if inputs is None else inputs
    return metrics.HeldOut(x, labels, np.eye(3) if mixes is None else mixes)


def test_accuracy_and_nll_are_scikit_learns() -> None:
    probability = RNG.dirichlet(np.ones(3), size=500)
    labels = RNG.integers(0, 3, 500)
    scores = metrics.scores(held_out(labels), probability)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, probability.argmax(axis=1)), rel=1e-14)
    assert scores["nll"] == pytest.approx(log_loss(labels, probability), rel=1e-12)


def test_ece_has_fifteen_bins_by_the_definition() -> None:
    probability = RNG.dirichlet(np.full(3, 0.4), size=800)
    labels = RNG.integers(0, 3, 800)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & ((confidence < low + 1 / 15) | (low + 1 / 15 > 0.999))
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.scores(held_out(labels), probability)["ece"] == pytest.approx(expected, rel=1e-10)
    diagram = metrics.reliability(held_out(labels), probability)
    gaps = np.abs(np.subtract(diagram["accuracy"], diagram["confidence"]))
    assert np.dot(gaps, diagram["share"]) == pytest.approx(expected, rel=1e-10)
    assert sum(diagram["share"]) == pytest.approx(1.0)


def test_the_worst_client_is_weighted_by_its_classes() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    guess = np.eye(3)[[0, 0, 0, 1, 1, 0]]  # 3 of 4 right in class 0, 1 of 2 in class 1
    mixes = np.array([[1.0, 0.0, 0.0], [0.2, 0.8, 0.0], [0.5, 0.0, 0.5]])
    assert metrics.worst_client(held_out(labels, mixes), guess) == pytest.approx(0.2 * 0.75 + 0.8 * 0.5)
    only_absent = np.array([[0.0, 0.0, 1.0]])
    assert np.isnan(metrics.worst_client(held_out(labels, only_absent), guess))


def test_a_network_that_overflows_has_no_scores() -> None:
    probability = np.full((4, 3), 1 / 3)
    probability[2] = np.nan
    assert all(np.isnan(value) for value in metrics.scores(held_out(np.zeros(4, int)), probability).values())
    assert metrics.reliability(held_out(np.zeros(4, int)), probability)["bin"] == []


def test_averaging_is_over_probabilities() -> None:
    stack = Stacked(models.MLP((4, 5, 3)).double(), CROSS_ENTROPY)
    x, labels = torch.rand(7, 4, dtype=torch.float64), RNG.integers(0, 3, 7)
    draws = torch.randn(6, stack.size, dtype=torch.float64)
    where = held_out(labels, inputs=x)
    expected = torch.stack([stack.outputs(theta, x).softmax(dim=1) for theta in draws]).mean(dim=0)
    np.testing.assert_allclose(metrics.averaged(where, stack, draws), expected.detach().numpy(), rtol=1e-12)


def test_flops_are_those_of_the_matrix_products() -> None:
    """Dense: 2ab forward, 2ab for the weights, 2ab for the inputs except in the first layer."""
    stack = Stacked(models.MLP((784, 200, 100, 10)), CROSS_ENTROPY)
    expected = 2 * (2 * 784 * 200 + 3 * (200 * 100 + 100 * 10))
    assert metrics.point_flops(stack, torch.zeros(3, 784)) == expected
    conv = Stacked(models.AcarNet(), CROSS_ENTROPY)
    dense = 3 * (1600 * 384 + 384 * 192 + 192 * 10)
    convolutions = 2 * 28**2 * 64 * 75 + 3 * 10**2 * 64 * 1600
    assert metrics.point_flops(conv, torch.zeros(2, 3, 32, 32)) == 2 * (dense + convolutions)
