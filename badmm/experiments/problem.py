"""From a configuration to what `badmm.solve` takes: data read, prepared, held out, dealt to clients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badmm import likelihoods
from badmm.data import files
from badmm.data import tables as data
from badmm.experiments import predictive
from badmm.experiments.config import RATE_LIKELIHOODS, Config, ConfigError
from badmm.families import registry
from badmm.families.distributions import Distribution, Gaussian

Array = NDArray[Any]

_CLASSES = ("logistic_regression", "softmax_regression")


@dataclass(frozen=True)
class Problem:
    """Clients' likelihoods and the prior; held-out rows, empty where none are held out."""

    config: Config
    clients: list[Any]
    prior: Distribution
    features: tuple[str, ...]
    test_X: Array
    test_y: Array
    num_classes: int

    @property
    def coordinates(self) -> list[str]:
        """A name for every coordinate of θ; softmax has one for each feature and class, features first."""
        if self.config.likelihood.kind != "softmax_regression":
            return list(self.features)
        return [f"{feature}, class {label}" for feature in self.features for label in range(self.num_classes)]

    def scores(self, posterior: Distribution) -> dict[str, dict[str, float]]:
        """Held-out scores of the averaged and of the plug-in prediction, where the likelihood has them."""
        kind = self.config.likelihood.kind
        if len(self.test_y) == 0 or not isinstance(posterior, Gaussian) or kind == "poisson_regression":
            return {}
        return {
            name: self._score(kind, posterior, averaged).as_dict()
            for name, averaged in (("averaged", True), ("plug-in", False))
        }

    def _score(self, kind: str, posterior: Gaussian, averaged: bool) -> predictive.Scores:
        X, y = self.test_X, self.test_y
        if kind == "linear_regression":
            variance = self.config.likelihood.noise_variance
            return predictive.linear_scores(X, y, posterior, variance, averaged=averaged)
        if kind == "logistic_regression":
            return predictive.class_scores(predictive.logistic_probability(X, posterior, averaged=averaged), y)
        probability = predictive.softmax_probability(X, posterior, self.num_classes, averaged=averaged)
        return predictive.class_scores(probability, y)


def build(config: Config) -> Problem:
    """Read and prepare the data of a configuration and deal it to clients.

    Rows are held out at random with `split.seed`, before the split; preparation is fitted on the other rows. Raises
    ValueError naming the key, file or argument that does not fit.
    """
    table = _read(config)
    kind = config.likelihood.kind
    y = table.y
    num_classes = 0
    if kind in _CLASSES:
        y = _labels(y)
        num_classes = max(2, int(y.max()) + 1)
    training, test = data.hold_out(len(y), config.data.test_fraction, config.split.seed)
    names: tuple[str, ...] = ()
    X: Array = np.empty((len(y), 0))
    if kind not in RATE_LIKELIHOODS:
        names, X = _prepared(config, table, training)
    groups = table.extra.get(config.split.column or "")
    parts = [training[part] for part in _parts(config, X[training], y[training], groups, training)]
    exposure = table.extra.get(config.data.exposure or "", np.ones(len(y)))
    clients = [_likelihood(config, X[rows], y[rows], exposure[rows], num_classes) for rows in parts]
    dimension = int(clients[0].dim)
    return Problem(config, clients, _prior(config, dimension), names, X[test], y[test], num_classes)


def _read(config: Config) -> files.Table:
    if config.data.source in data.DATASETS:
        loaded = data.load_dataset(config.data.source)
        if config.split.kind == "column":
            raise ConfigError(
                f'split.kind: expected one of {", ".join(data.SPLITS)} (data.source is no file), got "column"'
            )
        if loaded.num_classes is None and config.likelihood.kind in _CLASSES:
            raise ConfigError(
                f"data.source: expected class labels ({config.likelihood.kind}), got {config.data.source!r}"
            )
        return files.Table(loaded.X, loaded.y, loaded.names, {})
    apart = tuple(name for name in (config.split.column, config.data.exposure) if name is not None)
    if not config.data.source.endswith((".csv", ".npz")):
        known = ", ".join(data.DATASETS)
        raise ConfigError(f"data.source: expected one of {known} or a .csv or .npz file, got {config.data.source!r}")
    return files.read(Path(config.data.source), config.data.target, apart)


def _prepared(config: Config, table: files.Table, training: NDArray[np.intp]) -> tuple[tuple[str, ...], Array]:
    options = config.data
    fitted = data.prepare(
        table.X[training],
        table.names,
        standardize=options.standardize,
        components=options.components,
        intercept=options.intercept,
    )
    if not fitted.names:
        raise ConfigError("data: expected at least one feature or intercept = true, got neither")
    return fitted.names, fitted(table.X)


def _parts(
    config: Config, X: Array, y: Array, groups: Array | None, training: NDArray[np.intp]
) -> list[NDArray[np.intp]]:
    if groups is not None:
        return data.split_by_column(groups[training])
    assert config.split.clients is not None
    if config.split.kind == "feature" and X.shape[1] == 0:
        raise ConfigError('split.kind: expected "iid", "label" or "column" for data without features, got "feature"')
    return data.split(config.split.kind, X, y, config.split.clients, config.split.seed)


def _labels(y: Array) -> NDArray[np.int64]:
    wrong = np.flatnonzero((y != np.floor(y)) | (y < 0))
    if wrong.size:
        raise ConfigError(f"data.target: expected labels 0, 1, ..., got {y[wrong[0]]} in data row {wrong[0]}")
    return y.astype(np.int64)


def _likelihood(config: Config, X: Array, y: Array, exposure: Array, num_classes: int) -> Any:
    match config.likelihood.kind:
        case "linear_regression":
            return likelihoods.LinearRegression(X, y, config.likelihood.noise_variance)
        case "logistic_regression":
            return likelihoods.LogisticRegression(X, y)
        case "softmax_regression":
            return likelihoods.SoftmaxRegression(X, y, num_classes)
        case "poisson_regression":
            return likelihoods.PoissonRegression(X, y)
        case "poisson_rate":
            return likelihoods.PoissonRate(y, exposure)
        case _:
            return likelihoods.ExponentialRate(y)


def _prior(config: Config, dimension: int) -> Distribution:
    return registry.prior(config.family, config.prior.of(config.family), dimension)
