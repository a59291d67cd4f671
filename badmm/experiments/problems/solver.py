"""From a configuration to what `badmm.solve` takes: data read, prepared, held out, assigned to clients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badmm.data import files, tables as data
from badmm.experiments import predictive
from badmm.experiments.config import ConfigError
from badmm.experiments.config.losses import Loss
from badmm.experiments.config.solver import SolverConfig
from badmm.families import registry
from badmm.families.distributions import Distribution, Gaussian

Array = NDArray[Any]
MOST_CLASSES = 1000
"""Classes of a softmax regression: θ has features × classes coordinates, and identifiers are no labels."""


@dataclass(frozen=True)
class Rows:
    """What became of the rows: how many each client has, by its name, and how many are held out of each."""

    read: int
    used: Mapping[str, int]
    held_out: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"read": self.read, "used": dict(self.used), "held_out": dict(self.held_out)}

    def __str__(self) -> str:
        used = list(self.used.values())
        out = sum(self.held_out.values())
        sizes = f"{min(used)}" if min(used) == max(used) else f"{min(used)} to {max(used)}"
        return f"{self.read} rows: {sum(used)} used by {len(used)} clients ({sizes} each), {out} held out"


@dataclass(frozen=True)
class Problem:
    """Clients' likelihoods and the prior; held-out rows, empty where none are held out."""

    config: SolverConfig
    clients: list[Any]
    prior: Distribution
    features: tuple[str, ...]
    test_X: Array
    test_y: Array
    num_classes: int
    rows: Rows
    preparation: Mapping[str, list[float]]
    """[center, scale] of every column: a feature is (column − center) / scale. Empty for principal components."""
    fingerprint: str
    """SHA-256 of the table as it was read."""
    columns: tuple[str, ...]
    """The columns that are read: features, target, exposures and what names the clients."""
    events: int | None
    """Events among the rows that are used, where the likelihood has some."""

    @property
    def coordinates(self) -> list[str]:
        """A name for every coordinate of θ; softmax has one for each feature and class, features first."""
        if self.config.likelihood.kind != "softmax_regression":
            return list(self.features)
        return [f"{feature}, class {label}" for feature in self.features for label in range(self.num_classes)]

    def scores(self, posterior: Distribution) -> dict[str, dict[str, float]]:
        """Held-out scores of the averaged and of the plug-in prediction, where the likelihood has them."""
        score = _SCORES.get(self.config.likelihood.kind)
        if len(self.test_y) == 0 or not isinstance(posterior, Gaussian) or score is None:
            return {}
        ways = (("averaged", True), ("plug-in", False))
        return {name: score(self, posterior, averaged).as_dict() for name, averaged in ways}


def _linear(problem: Problem, posterior: Gaussian, averaged: bool) -> predictive.Scores:
    variance = problem.config.likelihood.noise_variance  # type: ignore[attr-defined]
    return predictive.linear_scores(problem.test_X, problem.test_y, posterior, variance, averaged=averaged)


def _logistic(problem: Problem, posterior: Gaussian, averaged: bool) -> predictive.Scores:
    probability = predictive.logistic_probability(problem.test_X, posterior, averaged=averaged)
    return predictive.class_scores(probability, problem.test_y)


def _softmax(problem: Problem, posterior: Gaussian, averaged: bool) -> predictive.Scores:
    classes = problem.num_classes
    probability = predictive.softmax_probability(problem.test_X, posterior, classes, averaged=averaged)
    return predictive.class_scores(probability, problem.test_y)


_SCORES: dict[str, Callable[[Problem, Gaussian, bool], predictive.Scores]] = {
    "linear_regression": _linear,
    "logistic_regression": _logistic,
    "softmax_regression": _softmax,
}


def build(config: SolverConfig) -> Problem:
    """Read and prepare the data of a configuration and assign it to clients.

    Rows are held out at random with `split.seed`: of all rows before they are assigned, but with one client per value
    of a column of each client's rows, so that no client loses its last one. Preparation is fitted on the other rows.
    Raises ValueError naming the key, file or argument that does not fit.
    """
    table = _read(config)
    y, num_classes = _target(config, table)
    groups = table.extra[config.split.column] if config.split.column is not None else None
    training, test = _hold_out(config, len(y), groups)
    names: tuple[str, ...] = ()
    X: Array = np.empty((len(y), 0))
    preparation: dict[str, list[float]] = {}
    if not config.likelihood.rate:
        fitted = _preparation(config, table, training)
        names, X = fitted.names, fitted(table.X)
        if config.data.components is None:
            pairs = zip(fitted.center.tolist(), fitted.scale.tolist(), strict=True)
            preparation = {name: list(pair) for name, pair in zip(table.names, pairs, strict=True)}
    parts = [training[part] for part in _parts(config, X[training], y[training], groups, training)]
    exposure = table.extra[config.data.exposure] if config.data.exposure is not None else np.ones(len(y))

    def client(rows: NDArray[np.intp]) -> Any:
        return _client(config.likelihood, X[rows], y[rows], exposure[rows], num_classes)

    clients = [_placed(client, rows, config.data.source, table) for rows in parts]
    dim = int(clients[0].dim)
    prior = registry.prior(config.family, config.prior.values(dim, dim // max(1, len(names))), dim)
    rows_of = _rows(len(y), parts, test, groups)
    held = (X[test], y[test])
    columns, events = (*table.names, config.data.target, *table.extra), config.likelihood.events(y[training])
    found: Any = (num_classes, rows_of, preparation, _fingerprint(table), columns, events)
    return Problem(config, clients, prior, names, *held, *found)


def _read(config: SolverConfig) -> files.Table:
    if config.data.is_file:
        exposure = [name for name in (config.data.exposure,) if name is not None]
        sites = [name for name in (config.split.column,) if name is not None]
        return files.read(Path(config.data.source), config.data.target, sites + exposure, numbers=exposure)
    loaded = data.load_dataset(config.data.source)
    if config.split.kind == "column":
        known = ", ".join(data.SPLITS)
        raise ConfigError(f'split.kind: expected one of {known} (data.source is no file), got "column"')
    if loaded.num_classes is None and config.likelihood.classes:
        raise ConfigError(f"data.source: expected class labels ({config.likelihood.kind}), got {config.data.source!r}")
    return files.Table(loaded.X, loaded.y, loaded.names, {})


def _fingerprint(table: files.Table) -> str:
    digest = hashlib.sha256("\n".join(table.names).encode())
    for name, values in {"X": table.X, "y": table.y, **table.extra}.items():
        digest.update(f"\n{name} {values.dtype.kind} {values.shape} ".encode())
        text = values.dtype.kind == "U"
        digest.update("\0".join(values.tolist()).encode() if text else np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _target(config: SolverConfig, table: files.Table) -> tuple[Array, int]:
    """(y, number of classes): labels as integers where the likelihood has classes."""
    if not config.likelihood.classes:
        return table.y, 0
    y = table.y
    most = 2 if config.likelihood.kind == "logistic_regression" else MOST_CLASSES
    wrong = np.flatnonzero((y != np.floor(y)) | (y < 0) | (y >= most))
    if wrong.size:
        allowed = "0 or 1" if most == 2 else f"0, 1, ..., {most - 1} at most"
        raise ConfigError(
            f"data.target: expected labels {allowed} ({config.likelihood.kind}), got {y[wrong[0]]:g} in "
            f"{table.place(int(wrong[0]))}"
        )
    labels = y.astype(np.int64)
    if most == 2:
        return labels, 2
    count = max(2, int(labels.max()) + 1)
    absent = np.setdiff1d(np.arange(count), labels)
    if absent.size:
        raise ConfigError(
            f"data.target: expected classes numbered 0 to C − 1 without gaps, got none of class {absent[0]}"
        )
    return labels, count


def _hold_out(config: SolverConfig, count: int, groups: Array | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row indices (training, test)."""
    fraction, seed = config.data.test_fraction, config.split.seed
    if groups is None or fraction == 0:
        return data.hold_out(count, fraction, seed)
    test = [np.empty(0, dtype=np.intp)]
    for client, rows in enumerate(data.split_by_column(groups)):
        _, out = data.hold_out(len(rows), fraction, (seed, client))
        test.append(rows[out[: len(rows) - 1]])
    held = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(count), held), held


def _rows(count: int, parts: list[NDArray[np.intp]], test: NDArray[np.intp], groups: Array | None) -> Rows:
    names = [str(k) for k in range(len(parts))] if groups is None else [str(groups[part[0]]) for part in parts]
    used = {name: len(part) for name, part in zip(names, parts, strict=True)}
    if groups is None:
        return Rows(count, used, {"all": len(test)} if len(test) else {})
    return Rows(count, used, {name: int(np.sum(groups[test].astype(str) == name)) for name in names if len(test)})


def _preparation(config: SolverConfig, table: files.Table, training: NDArray[np.intp]) -> data.Preparation:
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
    return fitted


def _parts(
    config: SolverConfig, X: Array, y: Array, groups: Array | None, training: NDArray[np.intp]
) -> list[NDArray[np.intp]]:
    if groups is not None:
        return data.split_by_column(groups[training])
    assert config.split.clients is not None
    if config.split.kind == "feature" and X.shape[1] == 0:
        raise ConfigError('split.kind: expected "iid", "label" or "column" for data without features, got "feature"')
    return data.split(config.split.kind, X, y, config.split.clients, config.split.seed)


def _placed(make: Callable[[NDArray[np.intp]], Any], rows: NDArray[np.intp], source: str, table: files.Table) -> Any:
    """`make(rows)`; where it refuses some rows, the error names the first of them in the file."""
    try:
        return make(rows)
    except ValueError as error:
        if " at index " not in str(error):  # a setting's fault, not a row's
            raise
        refused = error
    while len(rows) > 1:
        first, rest = np.array_split(rows, 2)
        try:
            make(first)
            rows = rest
        except ValueError as error:
            rows, refused = first, error
    raise ValueError(f"{source}: {table.place(int(rows[0]))}: {str(refused).removesuffix(' at index 0')}") from refused


def _client(loss: Loss, X: Array, y: Array, exposure: Array, num_classes: int) -> Any:
    return loss.make(X=X, y=y, counts=y, intervals=y, exposure=exposure, num_classes=num_classes)
