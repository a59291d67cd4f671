"""The demo's three problems on real data, with held-out rows and unequal shares of ten clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import badmm
from badmm.checks import Array
from badmm.data import tables as data
from badmm.experiments import predictive
from badmm.experiments.predictive import Scores
from badmm.families import registry
from badmm.likelihoods import Expectation

CLIENTS = 10
TEST_FRACTION = 0.2
COMPONENTS = 10
"""Principal components of the digits, which keep the full family's matrices at 110 × 110."""

TITLES = {
    "diabetes": "diabetes (linear)",
    "breast_cancer": "breast cancer (logistic)",
    "digits": "digits (softmax)",
}
PRIOR_DEVIATION = {"diabetes": 30.0, "breast_cancer": 2.5, "digits": 2.5}
"""Prior standard deviations of the coefficients of standardized features. 2.5 is the logit scale that Gelman, Jakulin,
Pittau and Su (Annals of Applied Statistics, 2008) recommend; diabetes is in units of the target."""


@dataclass(frozen=True)
class DemoProblem:
    """One split of one data set: the clients' likelihoods, the likelihood of the pooled data, and held-out rows."""

    name: str
    title: str
    clients: list[Any]
    central: Any
    train_X: Array
    train_y: NDArray[Any]
    test_X: Array
    test_y: NDArray[Any]
    features: tuple[str, ...]
    prior_precision: float
    num_classes: int | None
    noise_variance: float | None

    @property
    def dimension(self) -> int:
        """The number of coordinates of θ."""
        per_feature = self.num_classes if self.num_classes and self.num_classes > 2 else 1
        return self.train_X.shape[1] * per_feature

    @property
    def prior(self) -> badmm.Gaussian:
        """N(0, I/prior_precision)."""
        return badmm.Gaussian(np.zeros(self.dimension), self.prior_precision)

    def prior_natural(self, family: str) -> tuple[Array, ...]:
        """Return the prior's natural parameter λ_0 in a family, at which every contender starts."""
        return registry.bind(family, self.prior).prior_natural

    def expectation(self, family: str) -> Expectation:
        """Return the rule for E_q: "delta" for classic ADMM and for softmax, else the solver's default."""
        classic = "precision" in registry.fixed(family)
        return "delta" if classic or self.name == "digits" else "auto"

    def scores(self, posterior: Any, *, averaged: bool) -> Scores:
        """Return the held-out scores of the prediction averaged over the posterior, or plugged in at its mean."""
        X, y = self.test_X, self.test_y
        if self.noise_variance is not None:
            return predictive.linear_scores(X, y, posterior, self.noise_variance, averaged=averaged)
        if self.num_classes == 2:
            return predictive.class_scores(predictive.logistic_probability(X, posterior, averaged=averaged), y)
        assert self.num_classes is not None
        probability = predictive.softmax_probability(X, posterior, self.num_classes, averaged=averaged)
        return predictive.class_scores(probability, y)


def make(name: str, seed: int) -> DemoProblem:
    """Return the problem `name` (a key of `TITLES`) with held-out rows and clients drawn by `seed`.

    Clients have unequal shares of labels (`data.split`, kind "label"), or of fifths of the target for linear
    regression. The noise variance of the regression is the residual variance of least squares on the training rows.
    """
    loaded = data.load_dataset(name)
    training, test = data.hold_out(len(loaded.y), TEST_FRACTION, seed)
    components = COMPONENTS if name == "digits" else None
    prepared = data.prepare(loaded.X[training], loaded.names, components=components)
    X, y = prepared(loaded.X[training]), loaded.y[training]
    noise = None
    if loaded.num_classes is None:
        residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        noise = float(residual @ residual / (len(y) - X.shape[1]))

    def likelihood(rows: Any) -> Any:
        if noise is not None:
            return badmm.likelihoods.LinearRegression(X[rows], y[rows], noise)
        assert loaded.num_classes is not None
        if loaded.num_classes == 2:
            return badmm.likelihoods.LogisticRegression(X[rows], y[rows])
        return badmm.likelihoods.SoftmaxRegression(X[rows], y[rows], loaded.num_classes)

    return DemoProblem(
        name=name,
        title=TITLES[name],
        clients=[likelihood(rows) for rows in data.split("label", X[:, 1:], y, CLIENTS, seed)],
        central=likelihood(slice(None)),
        train_X=X,
        train_y=y,
        test_X=prepared(loaded.X[test]),
        test_y=loaded.y[test],
        features=prepared.names,
        prior_precision=PRIOR_DEVIATION[name] ** -2,
        num_classes=loaded.num_classes,
        noise_variance=noise,
    )
