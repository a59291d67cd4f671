"""The file of a federated run of networks: data, split, network, local training, and the methods to compare.

A table `methods.LABEL` holds the settings of a method (`badmm.methods`); LABEL is the method unless its key `method`
says so (a name, or "file.py:Class" for one of your own), and its table `local` overrides the section `local` for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import Field, SerializeAsAny, ValidationError, create_model, field_validator, model_validator

from badmm.checks import implementation
from badmm.clients.federation import LocalSettings
from badmm.experiments import config as configuration
from badmm.experiments.config import toml
from badmm.experiments.config.schema import Configuration, Positive, Section, describe, one_of
from badmm.experiments.config.toml import ConfigError
from badmm.methods import NETWORKS
from badmm.networks import factories
from badmm.networks.losses import LOSSES
from badmm.rounds.network_method import NetworkMethod


class Data(Section):
    """Which images, or a user's own data, and what part of them."""

    source: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"] = "digits"
    root: str | None = None
    """Folder laid out as torchvision does, relative to the configuration; else the variable BADMM_DATA_ROOT."""
    factory: str | None = None
    """"package.module:name" for a function that returns (clients, test), in place of a source; see `data.datasets`."""
    options: dict[str, Any] = {}
    """The factory's keywords."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Part of the training points to use, drawn at random."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """Part of those to keep from the clients."""
    evaluate: Literal["test", "validation"] = "test"
    """What to score on; "validation" never looks at the test images."""

    @model_validator(mode="after")
    def _validation(self) -> Data:
        if self.evaluate == "validation" and self.validation_fraction == 0:
            raise ValueError('validation_fraction: expected more than 0 (evaluate = "validation"), got 0')
        return self


class Split(Section):
    """How the training images are assigned to the clients; see `badmm.data.splits`, and for "file" `.partition`."""

    clients: int | None = Field(None, ge=1)
    kind: Literal["iid", "dirichlet", "shards", "file"] = "dirichlet"
    file: str | None = None
    """A .csv that names each training point's client, relative to the configuration."""
    size_concentration: Positive = 1.0
    class_concentration: Positive = 0.5
    minimum: int = Field(1, ge=1)
    classes: int = Field(2, ge=1)
    points: int = Field(600, ge=1)
    reuse: bool = False

    @model_validator(mode="after")
    def _required(self) -> Split:
        key = "file" if self.kind == "file" else "clients"
        if getattr(self, key) is None:
            raise ValueError(f"{key}: expected a value (kind = {self.kind!r}), got none")
        return self


SPLIT_KEYS = {
    "iid": ("clients",),
    "dirichlet": ("clients", "size_concentration", "class_concentration", "minimum"),
    "shards": ("clients", "classes", "points", "reuse"),
    "file": ("file",),
}
"""The keys that each kind of split reads."""


class Model(Section):
    """The network, by `name` or from a `factory`, and what is trained; `hidden` and `activation` are for the MLP."""

    name: Literal["mlp", "linear", "cifarnet", "acarnet", "resnet20"] | None = None
    hidden: list[int] = [200, 100]
    activation: Literal["sigmoid", "relu", "tanh"] = "sigmoid"
    factory: str | None = None
    """"package.module:name" in place of a name: a function that returns a `torch.nn.Module`."""
    options: dict[str, Any] = {}
    """The factory's keywords."""
    loss: str = "cross_entropy"
    """"cross_entropy", "squared_error", or "package.module:name": losses (N,) of outputs and targets (N, ...)."""
    metrics: dict[str, str] = {}
    """The user's own scores: a name, and "package.module:name" of a function of outputs and targets (N, ...)."""
    buffers: Literal["refuse", "average", "local"] = "refuse"
    """What becomes of buffers that training changes (batch normalisation's); see `badmm.networks.traits.Policy`."""
    autocast: Literal["bfloat16"] | None = None
    """The type that passes are computed in, parameters stay as they are; none where left out."""

    @model_validator(mode="after")
    def _one(self) -> Model:
        if (self.name is None) == (self.factory is None):
            got = "neither" if self.name is None else f"name = {self.name!r} and factory = {self.factory!r}"
            raise ValueError(f"name: expected either name or factory, got {got}")
        if self.loss not in LOSSES and ":" not in self.loss:
            expected = f'{", ".join(LOSSES)} or "package.module:name"'
            raise ValueError(f"loss: expected {expected}, got {self.loss!r}")
        return self


class Local(Section):
    """Local training in a round; see `badmm.clients.federation.LocalSettings`. `batch_size` 0: all points at once;
    `clip` inf: none, where the section `local` has one."""

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | Literal["auto"] = "auto"
    """"auto": the step whose first round has the least training loss, found by some trial rounds."""
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    clip: Positive | None = None
    schedule: Literal["constant", "cosine"] = "constant"

    @field_validator("lr", mode="before")
    @classmethod
    def _lr(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != "auto" and not (number and 0 < value < math.inf):
            raise ValueError('a positive number or "auto"')
        return value if value == "auto" else float(value)

    @field_validator("clip", mode="before")
    @classmethod
    def _clip(cls, value: Any) -> Any:
        return None if value == math.inf else value

    def settings(self) -> LocalSettings:
        """What a federation trains with; where `lr` is "auto", the step is for the run to find."""
        given = self.model_dump(exclude={"lr"} if self.lr == "auto" else set())
        return LocalSettings(**{**given, "batch_size": self.batch_size or None})


class Run(Section):
    """How long, with which seeds, where, and what is scored."""

    rounds: int = Field(100, ge=1)
    horizon: int | None = Field(None, ge=1)
    """Rounds that a decaying step size is made for; `rounds` where left out. A run may stop before."""
    seeds: list[int] = Field([0], min_length=1)
    checkpoint_every: int = Field(1, ge=1)
    participation: float = Field(1.0, gt=0, le=1)
    """Part of the clients that is asked in a round."""
    posterior_samples: int = Field(32, ge=0)
    """Draws that predictions are averaged over, for methods with a posterior; 0: none."""
    stack: int = Field(8, ge=1)
    """Clients that train together, at most; results depend on it by rounding only. A stack is one core's work."""
    threads: int | None = Field(None, ge=1)
    """Cores to use: so many stacks train at once, and scoring uses as many. No result of training depends on it. Small
    networks are quickest with 1; all cores where left out."""
    device: str = "cpu"
    """"cpu", "cuda" or "cuda:N"."""
    dtype: Literal["float32", "float64"] = "float32"
    tensorboard: bool = False
    """Write TensorBoard event files too; needs the package."""

    @model_validator(mode="after")
    def _horizon(self) -> Run:
        if self.horizon is not None and self.horizon < self.rounds:
            raise ValueError(f"horizon: expected at least rounds = {self.rounds}, got {self.horizon}")
        return self

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
            raise ValueError(f'"cpu", "cuda" or "cuda:N", got {value!r}')
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int]) -> list[int]:
        if min(value) < 0 or len(set(value)) < len(value):
            raise ValueError(f"different integers of at least 0, got {value}")
        return value


class Report(Section):
    """What the summary shows."""

    rounds: list[int] = [10, 25, 50]
    """Rounds to show beside the last one."""
    reference: str | None = None
    """The label that differences are taken to; the first method where it is left out."""

    @field_validator("rounds")
    @classmethod
    def _rounds(cls, value: list[int]) -> list[int]:
        if any(index < 1 for index in value):
            raise ValueError(f"integers of at least 1, got {value}")
        return value


class Tune(Section):
    """What `badmm tune` tries: for every method all combinations of the values in its grid.

    `grid.LABEL` mirrors `methods.LABEL` (keys of its table `local` included), with a list of values for each key.
    """

    score: Literal["accuracy", "nll", "prediction_nll"] = "accuracy"
    """Chosen by the mean over seeds after the last round: accuracy or NLL at the mean, or NLL of the prediction."""
    rounds: int | None = Field(None, ge=1)
    """`run.rounds` where it is left out."""
    seeds: list[int] | None = Field(None, min_length=1)
    """`run.seeds` where it is left out."""
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Part of the training images to keep from the clients and to choose on."""
    unequal: bool = False
    """Allow grids of different sizes."""
    grid: dict[str, dict[str, Any]] = Field(min_length=1)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int] | None) -> list[int] | None:
        return None if value is None else Run(seeds=value).seeds

    @field_validator("grid")
    @classmethod
    def _grid(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for label, table in value.items():
            for key, values in toml.flat(table).items():
                if not isinstance(values, list) or not values or len({repr(v) for v in values}) < len(values):
                    raise ValueError(f"{label}.{key}: expected a list of different values, got {values!r}")
        return value


class MethodTable(Section):
    """The settings of one method, every default written out: the method's own fields and its local training."""

    method: str
    local: Local

    def make(self) -> NetworkMethod:
        """The method with these settings."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in ("method", "local")}
        return _class_of(self.method)(**own)


def _class_of(kind: str) -> type[NetworkMethod]:
    found = implementation(kind, NETWORKS, NetworkMethod, "method")  # type: ignore[type-abstract]
    if not hasattr(found, "__dataclass_fields__"):
        raise ValueError(f"method: expected a dataclass, whose fields are the settings, got {found.__name__}")
    return found


@cache
def _table_of(kind: str) -> type[MethodTable]:
    """The table of a method: its dataclass's fields, with their types and defaults, checked strictly."""
    hints = get_type_hints(_class_of(kind))
    own: dict[str, Any] = {"method": (Literal[kind], kind)}
    for field in fields(_class_of(kind)):  # type: ignore[arg-type]
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        own[field.name] = (hints[field.name], ... if default is MISSING else default)
    return create_model(f"{kind}_table", __base__=MethodTable, **own)


def method_table(label: str, table: dict[str, Any], shared: Local) -> MethodTable:
    """A method's table with every default; ValueError whose text starts at the label."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", label):
        raise ValueError(f"{label}: expected a name of letters, digits, - and _, got {label!r}")
    try:
        kind = table.get("method", label)
        model = _table_of(kind)
        local = table.get("local", {})
        merged = {**shared.model_dump(), **local} if isinstance(local, dict) else local
        resolved = model.model_validate({**table, "method": kind, "local": merged})
        resolved.make().check(resolved.local.settings())
    except ValidationError as error:
        raise ValueError(f"{label}.{describe(error.errors()[0], model)}") from None
    except ValueError as error:
        raise ValueError(f"{label}.{error}") from None
    return resolved


class NetworkConfig(Configuration):
    """One federated problem and the methods to compare on it; `methods` is resolved, every default written out."""

    FREE = frozenset({"run.checkpoint_every", "run.tensorboard", "run.threads", "data.root", "split.file"})

    data: Data = Data()
    split: Split | None = None
    """How one data set is assigned to clients; left out where `data.factory` gives a data set per client."""
    model: Model
    local: Local = Local()
    run: Run = Run()
    report: Report = Report()
    methods: dict[str, SerializeAsAny[MethodTable]] = Field(min_length=1)
    tune: Tune | None = None

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, dict):
            return value
        shared = info.data.get("local", Local())
        found = {}
        for label, table in value.items():
            if not isinstance(table, dict | MethodTable):
                raise ValueError(f"{label}: expected a table, got {table!r}")
            found[label] = table if isinstance(table, MethodTable) else method_table(label, table, shared)
        return found

    @model_validator(mode="after")
    def _labels(self) -> NetworkConfig:
        if self.split is None and self.data.factory is None:
            raise ValueError("split: expected a value, got none (the key is required)")
        for label in self.tune.grid if self.tune else ():
            if label not in self.methods:
                raise ValueError(f"tune.grid.{label}: expected one of {', '.join(self.methods)}, got an unknown method")
        if self.report.reference is not None:
            one_of(self.report.reference, self.methods, "report.reference")
        return self

    def inapplicable(self) -> dict[str, str]:
        """What has no effect with this split and network."""
        found: dict[str, str] = {}
        if self.split is not None:
            others = {key for keys in SPLIT_KEYS.values() for key in keys} - set(SPLIT_KEYS[self.split.kind])
            found |= {f"split.{key}": f"split.kind = {self.split.kind!r}" for key in sorted(others)}
        if self.model.name != "mlp":
            why = "model.factory" if self.model.name is None else f"model.name = {self.model.name!r}"
            found |= dict.fromkeys(("model.hidden", "model.activation"), why)
        if self.model.factory is None:
            found["model.options"] = f"model.name = {self.model.name!r}"
        if self.data.factory is None:
            found["data.options"] = f"data.source = {self.data.source!r}"
        else:
            found |= dict.fromkeys(("data.source", "data.root"), "data.factory")
        return found

    def own_code(self) -> bool:
        """Whether the configuration names functions of the user's."""
        model = self.model
        return bool(self.data.factory or model.factory or model.metrics or model.loss not in LOSSES)

    def may_change(self) -> frozenset[str]:
        """A cosine schedule depends on the horizon, by default the number of rounds."""
        constant = all(table.local.schedule == "constant" for table in self.methods.values())
        return self.FREE | ({"run.rounds"} if constant or self.run.horizon is not None else set())

    def with_methods(self, labels: Iterable[str]) -> NetworkConfig:
        """The configuration of some of the methods; `ConfigError` for one that it does not have."""
        chosen = list(labels)
        for label in chosen or [""]:
            if label not in self.methods:
                raise ConfigError(f"--methods: expected some of {', '.join(self.methods)}, got {label!r}")
        tables = {label: table for label, table in self.methods.items() if label in chosen}
        reference = self.report.reference if self.report.reference in tables else None
        return self.model_copy(
            update={"methods": tables, "report": self.report.model_copy(update={"reference": reference})}
        )

    def only(self, label: str, seed: int) -> NetworkConfig:
        """The configuration of one method and one seed; how results are reported and tuned is no part of it."""
        run, table = self.run.model_copy(update={"seeds": [seed]}), self.methods[label]
        return self.model_copy(update={"methods": {label: table}, "run": run, "report": Report(), "tune": None})


def resolve(config: NetworkConfig, folder: Path) -> NetworkConfig:
    """`config` with the paths of images and partition made absolute: they are relative to the file, like factories."""
    factories.search([Path.cwd(), folder.resolve()] if config.own_code() else [])
    if config.data.root is not None:
        config = _moved(config, "data", "root", folder)
    return config if config.split is None or config.split.file is None else _moved(config, "split", "file", folder)


def _moved(config: NetworkConfig, section: str, key: str, folder: Path) -> NetworkConfig:
    part = getattr(config, section)
    path = str((folder / getattr(part, key)).resolve())
    return config.model_copy(update={section: part.model_copy(update={key: path})})


def load(path: str | Path, overrides: Iterable[str] = ()) -> NetworkConfig:
    """Read a configuration as `badmm.experiments.config.load` does; ConfigError for one of a convex problem."""
    config = configuration.load(path, overrides)
    if not isinstance(config, NetworkConfig):
        raise ConfigError(f"{path}: model: expected a section with a network, got none")
    return config
