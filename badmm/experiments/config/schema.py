"""Base of all configurations: sections, errors that name the key, keys that do not apply, a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from badmm.experiments.config import toml
from badmm.experiments.config.toml import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """A section: unknown keys are refused, values are immutable, and `"3"` is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Configuration(Section):
    """A configuration file."""

    FREE: ClassVar[frozenset[str]] = frozenset()
    """Keys that may differ when a run is resumed: they do not affect results, or set when the run ends."""

    name: Name

    def inapplicable(self) -> dict[str, str]:
        """Return dotted keys without effect under the other settings, with the reason; setting one is an error."""
        return {}

    def may_change(self) -> frozenset[str]:
        """Return the keys that may differ when this run is resumed."""
        return self.FREE

    @model_validator(mode="after")
    def _applicable(self) -> Configuration:
        for key, why in self.inapplicable().items():
            *sections, last = key.split(".")
            model: Any = self
            for section in sections:
                model = getattr(model, section, None)
            if isinstance(model, BaseModel) and last in model.model_fields_set and getattr(model, last) is not None:
                raise ValueError(f"{key}: expected no such key ({why}), got {_short(getattr(model, last))}")
        return self

    def table(self) -> dict[str, Any]:
        """Return the resolved configuration with all applicable defaults."""
        table = self.model_dump(exclude_none=True)
        for key in self.inapplicable():
            *sections, last = key.split(".")
            part = table
            for section in sections:
                part = part.get(section, {})
            part.pop(last, None)
        return table

    def dump(self) -> str:
        """Return the resolved configuration as TOML, which `load` reads back."""
        return toml.write(self.table())

    def digest(self) -> str:
        """Return the SHA-256 of the keys that must not change when the run is resumed."""
        fixed = {key: value for key, value in toml.flat(self.table()).items() if key not in self.may_change()}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Configuration) -> list[tuple[str, Any, Any]]:
        """Return (key, value here, value in `other`) of the keys that differ and must not."""
        return toml.differences(self.table(), other.table(), self.may_change() | other.may_change())


_QUOTE = "'"
Schema = TypeVar("Schema", bound=BaseModel)


def check(schema: type[Schema], table: Mapping[str, Any], origin: str) -> Schema:
    """Check a table against a schema; raise ConfigError with one line per problem."""
    try:
        return schema.model_validate(dict(table))
    except ValidationError as error:
        lines = dict.fromkeys(describe(problem, schema) for problem in error.errors())
        raise ConfigError(f"{origin}: " + f"\n{origin}: ".join(lines)) from None


def describe(problem: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """Return a pydantic error as `key: expected ..., got ...`."""
    location, model = _located(problem["loc"], schema)
    key = ".".join(location)
    kind, got = problem["type"], problem["input"]
    if kind == "missing":
        return f"{key}: expected a value, got none (the key is required)"
    if kind == "extra_forbidden":
        return f"{key}: expected one of {', '.join(model.model_fields)}, got an unknown key"
    if kind == "union_tag_not_found":
        return (
            f"{key}.{problem['ctx']['discriminator'].strip(_QUOTE)}: expected a value, got none (the key is required)"
        )
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        tags = context["expected_tags"].replace("'", "")
        return f"{key}.{context['discriminator'].strip(_QUOTE)}: expected one of {tags}, got {context['tag']!r}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = message.replace("String should match pattern", "a string that matches")
    if message.startswith(("greater", "less")):
        message = f"a number {message}"
    if kind == "value_error" and ": expected " in message:
        return f"{key}.{message}" if key else message
    return f"{key}: expected {message}, got {_short(got)}"


def one_of(value: str, known: Iterable[str], key: str) -> str:
    """Return `value` if it is one of the known names, else raise ValueError with the key."""
    names = list(known)
    if value not in names:
        raise ValueError(f"{key}: expected one of {', '.join(names)}, got {value!r}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _located(location: tuple[Any, ...], schema: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Return the keys of an error's location without union tags, and the innermost model on that path."""
    keys: list[str] = []
    model, annotation = schema, None
    for part in location:
        if part in model.model_fields and annotation is None:
            keys.append(str(part))
            annotation = model.model_fields[part].annotation
        else:
            members = _models(annotation)
            tagged = [m for m in members if part in _tags(m)]
            if len(members) > 1 and tagged:
                model, annotation = tagged[0], None  # the tag of a union is not a key of the file
                continue
            keys.append(str(part))
        members = _models(annotation)
        if len(members) == 1 and not _is_table(annotation):
            model, annotation = members[0], None
    return keys, model


def _is_table(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models of an annotation, including those in unions, tables and optional fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tags(model: type[BaseModel]) -> set[Any]:
    """Return the values of a model's literal fields, which are its tags in a union."""
    return {value for field in model.model_fields.values() for value in get_args(field.annotation)}
