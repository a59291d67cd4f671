"""The file that `python -m badmm run` reads: its sections, what each key means, and errors that name the key.

A configuration is TOML. `--set section.key=value` overrides a key; the value is read as TOML, and as a plain string
where that fails (`--set method.rho=auto`). Every error is a `ConfigError` whose text is `key: expected ..., got ...`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from badmm.families import registry

RATE_LIKELIHOODS = ("poisson_rate", "exponential_rate")


class ConfigError(ValueError):
    """A configuration that cannot be used; the text has one line a problem: `key: expected ..., got ...`."""


def _registered(name: str) -> str:
    if name not in registry.names():
        raise ValueError(f"one of {', '.join(registry.names())}")
    return name


Family = Annotated[str, AfterValidator(_registered)]


def _auto_or(low: float, high: float) -> BeforeValidator:
    bounds = f"in ({low:g}, {high:g}]" if high < float("inf") else f"> {low:g}"

    def check(value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "auto" or (number and low < value <= high):
            return value
        raise ValueError(f'"auto" or a number {bounds}')

    return BeforeValidator(check)


Penalty = Annotated[float | str, _auto_or(0.0, float("inf"))]
Fraction = Annotated[float | str, _auto_or(0.0, 1.0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """What every section shares: unknown keys are refused, values are not changed later, `"3"` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Schema = TypeVar("Schema", bound=Section)


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
    test_fraction: float = Field(0.2, ge=0, lt=1)


class Split(Section):
    """How the training data are dealt to the clients."""

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


class Likelihood(Section):
    """The clients' loss."""

    kind: Literal[
        "linear_regression",
        "logistic_regression",
        "softmax_regression",
        "poisson_regression",
        "poisson_rate",
        "exponential_rate",
    ]
    noise_variance: Positive = 1.0
    """For `linear_regression` only, in squared units of the target."""


class Prior(Section):
    """`mean` and `precision` for the Gaussian families, else the standard parameters of the family: `shape` and `rate`
    for gamma. The family says which values it takes."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    mean: float = 0.0
    precision: Positive = 1.0

    def of(self, family: str) -> dict[str, float]:
        """The parameters that a family takes, of those given."""
        known = {"mean": self.mean, "precision": self.precision, **self.__pydantic_extra__}
        return {name: known[name] for name in registry.arguments(family) if name in known}


class Method(Section):
    """The arguments of `badmm.solve` that choose the algorithm."""

    name: Literal["bayes_admm", "pvi", "bregman_admm"] = "bayes_admm"
    rho: Penalty = "auto"
    alpha: Fraction = "auto"
    damping: Penalty = "auto"
    temperature: Positive = 1.0
    expectation: Literal["auto", "quadrature", "delta", "monte_carlo"] = "auto"

    @model_validator(mode="after")
    def _damping(self) -> Method:
        # Bregman ADMM's damping has units, so that no bound on it is natural
        if self.name != "bregman_admm" and isinstance(self.damping, float | int) and self.damping > 1:
            raise ValueError(f'damping: expected "auto" or a number in (0, 1], got {self.damping}')
        return self


class Run(Section):
    """When to stop, and how often to write what a resumed run starts from."""

    rounds: int = Field(100, ge=1)
    tol: float = Field(1e-8, ge=0)
    seed: int = Field(0, ge=0)
    client_tol: Positive | None = None
    client_max_iterations: int | None = Field(None, ge=1)
    checkpoint_every: int = Field(1, ge=1)


class Config(Section):
    """One problem and how to solve it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    family: Family
    data: Data
    split: Split
    likelihood: Likelihood
    prior: Prior = Prior()
    method: Method = Method()
    run: Run = Run()

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        rates = self.likelihood.kind in RATE_LIKELIHOODS
        if rates == registry.takes_expectations(self.family):
            suited = [name for name in registry.names() if registry.takes_expectations(name) != rates]
            expected = f"one of {', '.join(suited)}" if rates else "a Gaussian family"
            kind = f"likelihood.kind = {self.likelihood.kind}"
            raise ValueError(f"family: expected {expected} ({kind}), got {self.family}")
        foreign = set(self.prior.__pydantic_extra__) - set(registry.arguments(self.family))
        if foreign:
            known = ", ".join(registry.arguments(self.family))
            raise ValueError(
                f"prior.{min(foreign)}: expected one of {known} (family = {self.family}), got an unknown key"
            )
        registry.prior(self.family, self.prior.of(self.family), 1)
        return self


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration and apply `section.key=value` overrides.

    Raises `ConfigError` for a file that cannot be read, malformed TOML (with line and column), an unknown key, a
    missing key or a value out of its range.
    """
    path = Path(path)
    config = validate(read(path, overrides), str(path))
    if not config.data.source.endswith((".csv", ".npz")):
        return config
    # a file is named relative to the configuration, wherever the command is called and the result is kept
    source = str((path.parent / config.data.source).resolve())
    return config.model_copy(update={"data": config.data.model_copy(update={"source": source})})


def read(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The table of a TOML file with overrides applied, not yet checked against a schema."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected valid TOML, got a syntax error: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a readable TOML file, got: {error}") from None
    for override in overrides:
        _apply(table, override)
    return table


def validate(table: Mapping[str, Any], origin: str = "configuration") -> Config:
    """Check a table against the schema; raises `ConfigError` with one line a problem."""
    return check(Config, table, origin)


def check(schema: type[Schema], table: Mapping[str, Any], origin: str) -> Schema:
    """Check a table against any schema; raises `ConfigError` with one line a problem."""
    try:
        return schema.model_validate(dict(table))
    except ValidationError as error:
        lines = [describe(problem, schema) for problem in error.errors()]
        raise ConfigError(f"{origin}: " + f"\n{origin}: ".join(lines)) from None


def dump(config: Section) -> str:
    """The resolved configuration, every default written out, as TOML that reads back."""
    return "\n".join(_lines(config.model_dump(exclude_none=True), "")) + "\n"


def differences(before: Section, after: Section, free: Iterable[str] = ()) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of the keys that differ, dotted, but for those in `free`."""
    old, new = flat(before.model_dump()), flat(after.model_dump())
    keys = [key for key in {**old, **new} if key not in set(free)]
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A table of tables as one table with dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def _lines(table: Mapping[str, Any], prefix: str) -> list[str]:
    lines = [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, section in table.items():
        if isinstance(section, dict):
            lines += ["", f"[{prefix}{key}]", *_lines(section, f"{prefix}{key}.")]
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML's basic strings escape what JSON escapes
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return repr(value)


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: expected section.key=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.strip().split(".")
    for name in sections:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set: expected a section in {key!r}, got the plain value {name} = {table!r}")
    table[last] = value


def describe(problem: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """One pydantic error as `key: expected ..., got ...`."""
    key = ".".join(str(part) for part in problem["loc"])
    kind, got = problem["type"], problem["input"]
    if kind == "missing":
        return f"{key}: expected a value, got none (the key is required)"
    if kind == "extra_forbidden":
        known = ", ".join(_known_keys(schema, problem["loc"][:-1]))
        return f"{key}: expected one of {known}, got an unknown key"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = message.replace("String should match pattern", "a string that matches")
    if message.startswith(("greater", "less")):
        message = f"a number {message}"
    if kind == "value_error" and ": expected " in message:
        return f"{key}.{message}" if key else message
    return f"{key}: expected {message}, got {got!r}"


def _known_keys(schema: type[BaseModel], location: tuple[str, ...]) -> list[str]:
    model = schema
    for part in location:
        inner = model.model_fields[part].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        model = inner
    return list(model.model_fields)
