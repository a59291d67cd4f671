"""The file of a convex problem that `badmm.solve` solves: data, split, likelihood, prior, method, when to stop."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from badmm.checks import implementation
from badmm.data.tables import DATASETS
from badmm.experiments.config.losses import LOSSES, Loss, loss_of
from badmm.experiments.config.schema import Configuration, Positive, Section, check
from badmm.families import registry
from badmm.families.family import Choice
from badmm.methods import EXACT
from badmm.methods.admm import ExactMethod

FILES = (".csv", ".npz")
PRIOR_DEFAULTS = {"mean": 0.0, "precision": 1.0}


def _auto_or(low: float, high: float) -> BeforeValidator:
    bounds = f"in ({low:g}, {high:g}]" if high < float("inf") else f"> {low:g}"

    def check_value(value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "auto" or (number and low < value <= high):
            return value
        raise ValueError(f'"auto" or a number {bounds}')

    return BeforeValidator(check_value)


Penalty = Annotated[float | str, _auto_or(0.0, float("inf"))]
Fraction = Annotated[float | str, _auto_or(0.0, 1.0)]


class Data(Section):
    """Where the data come from and how they are prepared; preparation is fitted on the training part."""

    source: str
    """`diabetes`, `breast_cancer` or `digits` (shipped with scikit-learn), or a path to a .npz or .csv file."""
    target: str = "y"
    """Column (.csv) or array (.npz) that holds the target; the others are features."""
    exposure: str | None = None
    """For `poisson_rate`: the column or array with the exposures (1 where it is left out)."""
    standardize: bool = True
    intercept: bool = True
    components: int | None = Field(None, ge=1)
    """Principal components to keep; all features where it is left out."""
    test_fraction: float = Field(0.0, ge=0, lt=1)
    """Part of the rows to hold out and score; with a client per value of a column, of each client's rows."""

    @property
    def is_file(self) -> bool:
        """Whether the source is a file."""
        return self.source.endswith(FILES)

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        if value not in DATASETS and not value.endswith(FILES):
            raise ValueError(f"one of {', '.join(DATASETS)} or a {' or '.join(FILES)} file")
        return value


class Split(Section):
    """How the training data are assigned to the clients."""

    clients: int | None = Field(None, ge=1)
    kind: Literal["iid", "label", "feature", "column"] = "label"
    column: str | None = None
    """For `kind = "column"`: one client for each value of this column."""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Split:
        if self.kind == "column" and self.column is None:
            raise ValueError('column: expected the name of a column (kind = "column"), got none')
        if self.kind != "column" and self.clients is None:
            raise ValueError(f'clients: expected a number of clients (kind = "{self.kind}"), got none')
        return self


class Prior(Section):
    """The standard parameters of a family's prior, broadcast over the coordinates; the intercept may have a precision
    of its own."""

    @property
    def intercept(self) -> float | None:
        """The precision of the intercept, None where it is that of the others."""
        own: float | None = getattr(self, "intercept_precision", None)
        return own

    def values(self, dim: int, intercepts: int) -> dict[str, Any]:
        """The standard parameters of `dim` coordinates, of which the first `intercepts` are the intercept's."""
        found = self.model_dump(exclude={"intercept_precision"})
        if self.intercept is not None:
            found["precision"] = np.full(dim, found["precision"])
            found["precision"][:intercepts] = self.intercept
        return found


@cache
def prior_of(family: str) -> type[Prior]:
    """The section whose keys are the standard parameters of a family; a Gaussian's have defaults."""
    defaults = PRIOR_DEFAULTS if registry.takes_expectations(family) else {}
    fields: dict[str, Any] = {name: (float, defaults.get(name, ...)) for name in registry.arguments(family)}
    if registry.takes_expectations(family) and registry.varies(family, "precision"):
        fields["intercept_precision"] = (Positive | None, None)
    return create_model(f"{family}_prior", __base__=Prior, **fields)


class Structure(Section):
    """What a family leaves to choose, such as the sizes of its blocks."""


@cache
def structure_of(family: str) -> type[Structure]:
    """The section whose keys are what a family leaves to choose."""
    choice = registry.choice_class(family)
    fields: dict[str, Any] = {} if choice is None else {name: (kind, ...) for name, kind in _hints(choice).items()}
    return create_model(f"{family}_structure", __base__=Structure, **fields)


def _hints(choice: type[Choice]) -> dict[str, Any]:
    """The types of a choice's fields."""
    hints = get_type_hints(choice)
    return {field.name: hints[field.name] for field in dataclasses.fields(choice)}


class MethodSettings(Section):
    """The arguments of `badmm.solve` that choose the algorithm."""

    name: str = "bayes_admm"
    """One of `badmm.methods.EXACT`, or "file.py:Class" for one of your own."""
    rho: Penalty = "auto"
    alpha: Fraction = "auto"
    damping: Penalty = "auto"
    temperature: Positive = 1.0
    expectation: Literal["auto", "quadrature", "delta", "monte_carlo"] = "auto"

    @model_validator(mode="after")
    def _allowed(self) -> MethodSettings:
        chosen = implementation(self.name, EXACT, ExactMethod, "name")
        chosen.policy(1, self.rho, self.alpha, self.damping)  # the method says which values it takes
        return self


class Run(Section):
    """When to stop, and how often to write what a resumed run starts from."""

    rounds: int = Field(100, ge=1)
    tol: float = Field(1e-8, ge=0)
    seed: int = Field(0, ge=0)
    participation: float = Field(1.0, gt=0, le=1)
    """The fraction of the clients that take part in a round."""
    per_round: int | None = Field(None, ge=1)
    """Their number instead."""
    client_tol: Positive | None = None
    client_max_iterations: int | None = Field(None, ge=1)
    checkpoint_every: int = Field(1, ge=1)


class SolverConfig(Configuration):
    """One problem and how to solve it."""

    FREE = frozenset({"run.rounds", "run.tol", "run.checkpoint_every", "data.source"})

    family: str
    structure: SerializeAsAny[Structure] = Field(default_factory=dict, validate_default=True)
    data: Data
    split: Split
    likelihood: SerializeAsAny[Loss]
    prior: SerializeAsAny[Prior] = Field(default_factory=dict, validate_default=True)
    method: MethodSettings = MethodSettings()
    run: Run = Run()

    @field_validator("family")
    @classmethod
    def _family(cls, value: str) -> str:
        if value not in registry.names():
            raise ValueError(f"one of {', '.join(registry.names())}")
        return value

    @field_validator("structure", mode="before")
    @classmethod
    def _structure(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict) or "family" not in info.data:
            return Structure() if isinstance(value, dict) else value
        family = info.data["family"]
        found = check(structure_of(family), value, "structure")
        registry.chosen(family, found.model_dump())  # the family says which values it takes
        return found

    @field_validator("likelihood", mode="before")
    @classmethod
    def _likelihood(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        loss, family = loss_of(value), info.data.get("family")
        if family is not None and loss.rate == registry.takes_expectations(family):
            suited = [kind for kind, (section, _) in LOSSES.items() if section.rate != loss.rate]
            raise ValueError(f"kind: expected one of {', '.join(suited)} (family = {family}), got {loss.kind}")
        return loss

    @field_validator("prior", mode="before")
    @classmethod
    def _prior(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        if "family" not in info.data or "likelihood" not in info.data:
            return Prior()  # what is wrong with those is reported, and the prior's keys depend on them
        family = info.data["family"]
        try:
            prior = check(prior_of(family), value, "prior")
            registry.prior(family, prior.values(1, 0), 1)  # the family says which values it takes
        except ValueError as error:
            first = str(error).splitlines()[0].removeprefix("prior: ")
            raise ValueError(f"{first} (family = {family})") from None
        return prior

    @property
    def chosen(self) -> str | Choice:
        """The argument `family` of `badmm.solve`."""
        return registry.chosen(self.family, self.structure.model_dump())

    def inapplicable(self) -> dict[str, str]:
        """What has no effect with this likelihood, split and source."""
        found: dict[str, str] = {}
        kind, split = self.likelihood.kind, self.split.kind
        if not self.likelihood.exposed:
            found["data.exposure"] = f"likelihood.kind = {kind!r} takes no exposures"
        if self.likelihood.rate:
            why = f"likelihood.kind = {kind!r} has no features"
            found |= dict.fromkeys(("data.standardize", "data.intercept", "data.components"), why)
        if not self.data.intercept:
            found["prior.intercept_precision"] = "data.intercept = false"
        if not self.data.is_file:
            found["data.target"] = f"data.source = {self.data.source!r} has a target of its own"
        found["split.clients" if split == "column" else "split.column"] = f"split.kind = {split!r}"
        return found


def resolve(config: SolverConfig, folder: Path) -> SolverConfig:
    """`config` with a file's name made absolute: it is relative to the configuration."""
    if not config.data.is_file:
        return config
    source = str((folder / config.data.source).resolve())
    return config.model_copy(update={"data": config.data.model_copy(update={"source": source})})
