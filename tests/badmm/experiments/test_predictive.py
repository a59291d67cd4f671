"""Predictions averaged over a posterior against sampling and closed forms; scores against their definitions."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from badmm.experiments import predictive
from badmm.families.distributions import Gaussian


@pytest.fixture
def posterior() -> Gaussian:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4))
    return Gaussian(rng.standard_normal(4), root @ root.T + 0.1 * np.eye(4))


@pytest.mark.parametrize("deviation", [1e-3, 1.0, 3.0, 30.0])
def test_logistic_average_is_the_integral_at_any_width(deviation: float) -> None:
    X, posterior = np.array([[1.0]]), Gaussian(0.7, 1 / deviation**2)
    value = predictive.logistic_probability(X, posterior)[0]
    exact, _ = quad(lambda t: expit(0.7 + deviation * t) * norm.pdf(t), -9, 9, points=[-0.7 / deviation], epsabs=1e-13)
    assert value == pytest.approx(exact, abs=1e-12)


def test_softmax_average_is_between_the_classes_and_seeded(posterior: Gaussian) -> None:
    X = np.random.default_rng(4).standard_normal((6, 2))
    one = predictive.softmax_probability(X, posterior, 2, draws=64, seed=5)
    two = predictive.softmax_probability(X, posterior, 2, draws=64, seed=5)
    assert np.array_equal(one, two)
    np.testing.assert_allclose(one.sum(1), 1, rtol=1e-14)


def test_two_class_softmax_agrees_with_logistic(posterior: Gaussian) -> None:
    X = np.random.default_rng(6).standard_normal((6, 2))
    # the difference of the two classes' weights is linear in θ = (features, classes), so its distribution is Gaussian
    contrast = np.kron(np.eye(2), [[-1.0, 1.0]])
    covariance = contrast @ posterior.covariance @ contrast.T
    exact = predictive.logistic_probability(X, Gaussian(contrast @ posterior.mean, np.linalg.inv(covariance)))
    sampled = predictive.softmax_probability(X, posterior, 2, draws=40_000)[:, 1]
    np.testing.assert_allclose(sampled, exact, atol=5 * 0.5 / np.sqrt(40_000))


def test_class_scores_by_hand() -> None:
    scores = predictive.class_scores(np.array([[0.9, 0.1], [0.35, 0.65], [0.25, 0.75]]), np.array([0, 1, 0]))
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.nll == pytest.approx(-np.mean(np.log([0.9, 0.65, 0.25])))
    assert scores.ece == pytest.approx((0.1 + 0.35 + 0.75) / 3)
    assert set(scores.as_dict()) == {"accuracy", "nll", "ece"}


def test_regression_scores_are_calibrated_for_data_from_the_model() -> None:
    rng = np.random.default_rng(7)
    X, mean = rng.standard_normal((20_000, 2)), np.array([1.0, -1.0])
    theta_noise = rng.standard_normal((20_000, 2)) / np.sqrt(3.0)
    y = np.sum(X * (mean + theta_noise), axis=1) + 0.5 * rng.standard_normal(20_000)
    averaged = predictive.linear_scores(X, y, Gaussian(mean, 3.0), 0.25)
    plugged = predictive.linear_scores(X, y, Gaussian(mean, 3.0), 0.25, averaged=False)
    assert averaged.ece < 0.01 < plugged.ece
    assert averaged.nll < plugged.nll
    assert averaged.rmse == plugged.rmse
