"""The estimators are scikit-learn's by its own checks, and equal its pooled fits whatever the sites."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6", reason="needs scikit-learn 1.6")

from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from badmm.glm.estimators import (
    FederatedLinearRegression,
    FederatedLogisticRegression,
    FederatedPoissonRegressor,
)

RNG = np.random.default_rng(4)
X = RNG.normal(size=(200, 4)) * [1.0, 10.0, 0.1, 1.0] + [0.0, 50.0, 0.0, 1.0]
A = X @ [0.8, -0.05, 3.0, 0.4] + 2.0
SITES = RNG.choice(["a", "b", "c", "d"], 200)
WEIGHTS = RNG.uniform(0.2, 2.0, 200)


# a Poisson response is a count, and the checks give regressors real numbers
@parametrize_with_checks([FederatedLogisticRegression(), FederatedLinearRegression()])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sites", [None, SITES])
def test_two_classes_equal_scikit_learns(sites: Any, intercept: bool) -> None:
    y = np.where(RNG.random(200) < 1 / (1 + np.exp(-A)), "yes", "no")
    ours = FederatedLogisticRegression(0.3, fit_intercept=intercept).fit(X, y, sites, WEIGHTS)
    theirs = LogisticRegression(C=1 / 0.3, fit_intercept=intercept, solver="newton-cholesky", tol=1e-10)
    theirs.fit(X, y, WEIGHTS)
    assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-5)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-4)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(X), abs=1e-5)
    assert ours.n_sites_ == (1 if sites is None else 4)


def test_more_classes_equal_scikit_learns() -> None:
    y = np.array(["red", "green", "blue"])[np.digitize(A + RNG.logistic(size=200), [0.0, 2.0])]
    ours = FederatedLogisticRegression(0.5).fit(X, y, SITES)
    theirs = LogisticRegression(C=2.0, solver="newton-cg", tol=1e-8, max_iter=2000).fit(X, y)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(X), abs=1e-4)
    assert (ours.predict(X) == theirs.predict(X)).mean() > 0.99


def test_ridge_and_poisson_equal_scikit_learns() -> None:
    y = A + RNG.normal(size=200)
    ours, theirs = FederatedLinearRegression(2.0).fit(X, y, SITES, WEIGHTS), Ridge(2.0).fit(X, y, WEIGHTS)
    assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-7)
    assert ours.predict(X) == pytest.approx(theirs.predict(X), abs=1e-6)
    counts = RNG.poisson(np.exp(0.3 * A))
    mine = FederatedPoissonRegressor(2.0).fit(X, counts, SITES)
    peer = PoissonRegressor(alpha=2.0 / 200, tol=1e-10, max_iter=2000, solver="newton-cholesky").fit(X, counts)
    assert mine.coef_ == pytest.approx(peer.coef_, abs=1e-5)
    assert mine.predict(X) == pytest.approx(peer.predict(X), rel=1e-4)


def test_sites_are_a_label_per_row() -> None:
    with pytest.raises(ValueError, match=r"sites: expected a label per row, shape \(200,\), got \(3,\)"):
        FederatedLinearRegression().fit(X, A, [1, 2, 3])


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_row_without_a_site_is_refused(missing: Any) -> None:
    labels = np.array([*SITES[:-1], missing], dtype=object)
    with pytest.raises(ValueError, match="sites: expected a label per row, got none in row 199"):
        FederatedLinearRegression().fit(X, A, labels)
    with pytest.raises(ValueError, match="sites: expected a label per row, got none in row 199"):
        FederatedLinearRegression().fit(X, A, [*np.ones(199), np.nan])


def test_columns_far_from_zero_and_columns_of_zeros_equal_scikit_learns() -> None:
    far = np.hstack([X + 1e7, np.zeros((200, 1))])
    ours, theirs = FederatedLinearRegression(2.0).fit(far, A, SITES), Ridge(2.0).fit(np.hstack([X, far[:, 4:]]), A)
    assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-6)
    with pytest.raises(ValueError, match="X: expected terms that are not 0 in every row, got 'column 4'"):
        FederatedLinearRegression(0.0).fit(far, A, SITES)


def test_too_few_rounds_are_told() -> None:
    with pytest.warns(ConvergenceWarning, match="not converged"):
        FederatedLogisticRegression(max_rounds=1).fit(X, A > 0, SITES)
