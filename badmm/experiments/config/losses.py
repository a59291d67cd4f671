"""The section `likelihood` of a convex problem's configuration: one of the package's losses, or a user's own.

A user's likelihood is a class whose constructor has the parameters X and y, or y alone for a rate, and perhaps
`exposure` and `num_classes`. Its other parameters, which need type hints, are the keys of the section.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import create_model

from badmm import likelihoods
from badmm.checks import implementation
from badmm.experiments.config.schema import Positive, Section, check
from badmm.experiments.config.toml import ConfigError

DATA = ("X", "y", "counts", "intervals", "exposure", "num_classes", "weights", "offset")
"""Parameters of likelihoods that are data."""


class Loss(Section):
    """A likelihood: whether its targets are classes, and whether it has features or is a rate alone."""

    classes: ClassVar[bool] = False
    rate: ClassVar[bool] = False
    exposed: ClassVar[bool] = False
    """Whether the loss has exposures."""
    kind: str

    def make(self, **data: Any) -> Any:
        """Return the likelihood of a client from these settings and the data that its constructor accepts."""
        taken = {name: data[name] for name in inspect.signature(_class_of(self.kind)).parameters if name in data}
        return _class_of(self.kind)(**taken, **self.model_dump(exclude={"kind"}))

    def events(self, y: NDArray[Any]) -> int | None:
        """Rows of the rarest class, classes counted from 0 and two at least; None for targets without classes."""
        return int(np.bincount(y.astype(np.int64), minlength=2).min()) if self.classes else None


class LinearRegression(Loss):
    """Least squares; the variance of the noise in squared units of the target."""

    kind: Literal["linear_regression"]
    noise_variance: Positive = 1.0


class LogisticRegression(Loss):
    """Two classes, 0 and 1."""

    classes = True
    kind: Literal["logistic_regression"]


class SoftmaxRegression(Loss):
    """Classes 0, 1, ..., C − 1."""

    classes = True
    kind: Literal["softmax_regression"]


class Counts(Loss):
    """A loss of counts."""

    def events(self, y: NDArray[Any]) -> int:
        """The sum of the counts."""
        return int(y.sum())


class PoissonRegression(Counts):
    """Counts with features."""

    kind: Literal["poisson_regression"]


class PoissonRate(Counts):
    """Counts of one rate."""

    rate, exposed = True, True
    kind: Literal["poisson_rate"]


class ExponentialRate(Loss):
    """Intervals of one rate."""

    rate = True
    kind: Literal["exponential_rate"]

    def events(self, y: NDArray[Any]) -> int:
        """Every interval ends with one."""
        return len(y)


LOSSES: dict[str, tuple[type[Loss], type[Any]]] = {
    "linear_regression": (LinearRegression, likelihoods.LinearRegression),
    "logistic_regression": (LogisticRegression, likelihoods.LogisticRegression),
    "softmax_regression": (SoftmaxRegression, likelihoods.SoftmaxRegression),
    "poisson_regression": (PoissonRegression, likelihoods.PoissonRegression),
    "poisson_rate": (PoissonRate, likelihoods.PoissonRate),
    "exponential_rate": (ExponentialRate, likelihoods.ExponentialRate),
}
"""The sections and classes of the package's likelihoods, by kind."""


def loss_of(table: Mapping[str, Any]) -> Loss:
    """Return the section of a table; raise ValueError, whose text starts with the key, for an unknown kind or key."""
    kind = table.get("kind")
    if kind is None:
        raise ValueError("kind: expected a value, got none (the key is required)")
    try:
        return check(LOSSES[kind][0] if kind in LOSSES else _own(kind), table, "likelihood")
    except ConfigError as error:
        raise ValueError(str(error).splitlines()[0].removeprefix("likelihood: ")) from None


def _class_of(kind: str) -> type[Any]:
    known = {name: loss for name, (_, loss) in LOSSES.items()}
    return implementation(kind, known, object, "kind")


@cache
def _own(kind: str) -> type[Loss]:
    """Return the section of a user's likelihood, from its constructor."""
    loss = _class_of(kind)
    parameters, hints = inspect.signature(loss).parameters, get_type_hints(loss.__init__)
    settings: dict[str, Any] = {"kind": (Literal[kind], kind)}
    for name, parameter in parameters.items():
        if name not in DATA:
            default = ... if parameter.default is parameter.empty else parameter.default
            settings[name] = (hints.get(name, Any), default)
    section = create_model(loss.__name__, __base__=Loss, **settings)
    section.rate, section.exposed = "X" not in parameters, "exposure" in parameters
    section.classes = "num_classes" in parameters
    return section
