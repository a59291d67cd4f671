"""Likelihoods: losses, expected gradients and Hessians against autograd and definitions; argument errors."""

from typing import Any

import numpy as np
import pytest
import torch

from badmm import Gamma, Gaussian
from badmm.likelihoods import (
    ExponentialRate,
    GaussianLikelihood,
    LinearRegression,
    LogisticRegression,
    PoissonRate,
    PoissonRegression,
    Quadratic,
    SoftmaxRegression,
)

RNG = np.random.default_rng(5)
X = RNG.normal(size=(12, 3))
THETA = np.array([0.4, -1.1, 0.7])
BINARY = (RNG.random(12) < 0.5).astype(int)
COUNTS = RNG.poisson(2.0, size=12)
LABELS = RNG.integers(0, 4, size=12)
TARGET = RNG.normal(size=12)
H = X.T @ X


def torch_loss(name: str, theta: torch.Tensor) -> torch.Tensor:
    features = torch.tensor(X)
    if name == "quadratic":
        return 0.5 * theta @ torch.tensor(H) @ theta - torch.tensor(THETA) @ theta
    if name == "softmax":
        logits = features @ theta.reshape(3, 4)
        return torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), reduction="sum")
    a = features @ theta
    if name == "linear":
        return -torch.distributions.Normal(a, 0.3**0.5, validate_args=False).log_prob(torch.tensor(TARGET)).sum()
    if name == "logistic":
        return torch.nn.functional.binary_cross_entropy_with_logits(a, torch.tensor(BINARY).double(), reduction="sum")
    y = torch.tensor(COUNTS).double()
    return torch.sum(torch.exp(a) - y * a + torch.lgamma(y + 1))


LIKELIHOODS: dict[str, GaussianLikelihood] = {
    "quadratic": Quadratic(H, THETA),
    "linear": LinearRegression(X, TARGET, 0.3),
    "logistic": LogisticRegression(X, BINARY),
    "poisson": PoissonRegression(X, COUNTS),
    "softmax": SoftmaxRegression(X, LABELS, 4),
}


def point(name: str) -> np.ndarray:
    return np.linspace(-1, 1.2, 12) if name == "softmax" else THETA


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_delta_method_is_the_loss_with_its_derivatives_at_the_mean(name: str) -> None:
    theta = torch.tensor(point(name), requires_grad=True)
    loss = torch_loss(name, theta)
    gradient = torch.autograd.grad(loss, theta)[0].numpy()
    hessian = torch.autograd.functional.hessian(lambda t: torch_loss(name, t), theta).numpy()
    value, g, curvature = LIKELIHOODS[name].configured("delta").expectations(Gaussian(point(name), np.eye(len(theta))))
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    assert g == pytest.approx(gradient, rel=1e-10, abs=1e-12)
    assert curvature == pytest.approx(hessian, rel=1e-10, abs=1e-12)
    assert LIKELIHOODS[name].loss(point(name)) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_diagonal_precision_gets_the_diagonal_of_the_hessian(name: str) -> None:
    q = Gaussian(point(name), np.linspace(1, 2, len(point(name))))
    value, g, diagonal = LIKELIHOODS[name].expectations(q)
    whole = LIKELIHOODS[name].curvature(q)
    assert (value, *g) == pytest.approx((whole[0], *whole[1]), rel=1e-13)
    assert diagonal == pytest.approx(np.diag(whole[2]), rel=1e-12)


@pytest.mark.parametrize("name", ["quadratic", "linear", "logistic", "poisson"])
@pytest.mark.parametrize("precision", [4.0, np.array([3.0, 5.0, 9.0]), H + 3 * np.eye(3)], ids=["iso", "diag", "full"])
def test_expectations_match_a_large_sample(name: str, precision: Any) -> None:
    q = Gaussian(THETA, precision)
    exact = LIKELIHOODS[name].configured("quadrature").curvature(q)
    draws = q.sample(20_000, seed=1)
    theta = torch.tensor(draws)
    losses = torch.vmap(lambda t: torch_loss(name, t))(theta).numpy()
    gradients = torch.vmap(torch.func.grad(lambda t: torch_loss(name, t)))(theta).numpy()
    assert abs(losses.mean() - exact[0]) < 5 * losses.std() / np.sqrt(len(draws)) + 1e-9
    spread = gradients.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(gradients.mean(axis=0) - exact[1]) < 5 * spread + 1e-9).all()


@pytest.mark.parametrize("name", ["logistic", "poisson"])
def test_gradient_and_hessian_are_derivatives_of_the_expected_loss(name: str) -> None:
    likelihood, precision, h = LIKELIHOODS[name], H + np.eye(3), 1e-5
    _, g, hessian = likelihood.expectations(Gaussian(THETA, precision))
    for i, unit in enumerate(np.eye(3)):
        up = likelihood.expectations(Gaussian(THETA + h * unit, precision))
        down = likelihood.expectations(Gaussian(THETA - h * unit, precision))
        assert (up[0] - down[0]) / (2 * h) == pytest.approx(g[i], rel=1e-7, abs=1e-7)
        assert (up[1] - down[1]) / (2 * h) == pytest.approx(hessian[i], rel=1e-7, abs=1e-7)


def test_monte_carlo_is_seeded_and_approaches_quadrature() -> None:
    likelihood = LIKELIHOODS["logistic"]
    q = Gaussian(THETA, H)
    one, same = (likelihood.configured("monte_carlo", 3).expectations(q) for _ in range(2))
    other = likelihood.configured("monte_carlo", 4).expectations(q)
    assert one[0] == same[0] and (one[1] == same[1]).all()
    assert one[0] != other[0]
    assert one[0] == pytest.approx(likelihood.expectations(q)[0], rel=0.05)


def test_losses_stay_finite_at_extreme_predictors() -> None:
    q = Gaussian(np.array([500.0, -500.0, 0.0]), 1.0)
    for name in ("logistic", "linear"):
        value, g, hessian = LIKELIHOODS[name].expectations(q)
        assert np.isfinite(value) and np.isfinite(g).all() and np.isfinite(hessian).all()
    assert np.isfinite(LIKELIHOODS["softmax"].expectations(Gaussian(np.linspace(-800, 800, 12), 1.0))[0])


def test_rates_are_conjugate_updates() -> None:
    counts = PoissonRate([2, 0, 5], [1.0, 2.0, 0.5])
    q = Gamma(3.0, 2.0)
    assert [float(s[0]) for s in counts.natural_gradient(q)] == [-7.0, -3.5]
    intervals = ExponentialRate([[0.5, 1.0], [0.25, 2.0]])
    assert [s.tolist() for s in intervals.natural_gradient(Gamma([1.0, 1.0], 1.0))] == [[-2.0, -2.0], [-0.75, -3.0]]
    draws = torch.tensor(q.sample(200_000, seed=2)[:, 0])
    sampled = (
        -torch.distributions.Poisson(draws[:, None] * torch.tensor([1.0, 2.0, 0.5]))
        .log_prob(torch.tensor([2.0, 0.0, 5.0]))
        .sum(1)
    )
    assert counts.expected_loss(q) == pytest.approx(float(sampled.mean()), abs=5 * float(sampled.std()) / 200_000**0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogisticRegression(X, [0, 1, 1, 2] + [0] * 8), r"y: expected labels in \{0, 1\}, got 2 at index 3"),
        (lambda: LogisticRegression(X, BINARY[:5]), r"y: expected shape \(12,\)"),
        (lambda: LogisticRegression(X[0], BINARY), "X: expected 2 axes"),
        (
            lambda: LogisticRegression(np.where(X[1, 2] == X, np.nan, X), BINARY),
            r"X: expected finite, got nan at index \(1, 2\)",
        ),
        (lambda: SoftmaxRegression(X, [4] + [0] * 11, 4), r"y: expected labels in \{0, ..., 3\}, got 4 at index 0"),
        (lambda: SoftmaxRegression(X, [0] * 12, 1), "num_classes: expected at least 2, got 1"),
        (lambda: PoissonRegression(X, [0.5] + [1] * 11), "y: expected non-negative whole numbers, got 0.5 at index 0"),
        (lambda: PoissonRate([1, -1]), "counts: expected non-negative whole numbers, got -1.0 at index 1"),
        (lambda: PoissonRate([1, 1], [1.0, 0.0]), "exposure: expected positive, got 0.0 at index 1"),
        (lambda: ExponentialRate([1.0, 0.0]), "intervals: expected positive, got 0.0 at index 1"),
        (lambda: LinearRegression(X, TARGET, 0.0), "noise_variance: expected a positive number, got 0.0"),
        (lambda: Quadratic([[1.0, 2.0], [0.0, 1.0]], [0.0, 0.0]), "hessian: expected a symmetric matrix"),
        (lambda: LIKELIHOODS["softmax"].configured("quadrature"), "expectation: expected auto, delta or monte_carlo"),
        (lambda: Gaussian([0.0, 0.0], [1.0, -0.3]), "precision: expected positive, got -0.3 at index 1"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "precision: expected a positive definite matrix"),
        (lambda: Gaussian([0.0, 0.0], [1.0, 1.0, 1.0]), "precision: expected a scalar or shape"),
        (lambda: Gamma([1.0, 0.0], 1.0), "shape: expected positive, got 0.0 at index 1"),
    ],
)
def test_bad_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
