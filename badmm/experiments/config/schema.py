"""What every configuration shares: sections, errors that name the key, keys that do not apply, a digest."""

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
    """What every section shares: unknown keys are refused, values are not changed later, `"3"` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Configuration(Section):
    """A whole file."""

    FREE: ClassVar[frozenset[str]] = frozenset()
    """Keys that may differ when a run is resumed: those that no result depends on, and those that say when it ends."""

    name: Name

    def inapplicable(self) -> dict[str, str]:
        """Dotted keys that have no effect beside the other settings, and why; one that is set is refused."""
        return {}

    def may_change(self) -> frozenset[str]:
        """The keys that may differ when this run is resumed."""
        return self.FREE

    @model_validator(mode="after")
    def _applicable(self) -> Configuration:
        for key, why in self.inapplicable().items():
            *sections, last = key.split(".")
            model: Any = self
            for section in sections:
                model = getattr(model, section, None)
            if isinstance(model, BaseModel) and last in model.model_fields_set and getattr(model, last) is not None:
                raise ValueError(f"{key}: expected no such key ({why}), got {getattr(model, last)!r}")
        return self

    def table(self) -> dict[str, Any]:
        """The resolved configuration, every default that applies written out."""
        table = self.model_dump(exclude_none=True)
        for key in self.inapplicable():
            *sections, last = key.split(".")
            part = table
            for section in sections:
                part = part.get(section, {})
            part.pop(last, None)
        return table

    def dump(self) -> str:
        """The resolved configuration as TOML that reads back."""
        return toml.write(self.table())

    def digest(self) -> str:
        """SHA-256 of the keys that may not change when the run is resumed."""
        fixed = {key: value for key, value in toml.flat(self.table()).items() if key not in self.may_change()}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Configuration) -> list[tuple[str, Any, Any]]:
        """(key, here, there) of the keys that differ and may not, in this run's resumption."""
        return toml.differences(self.table(), other.table(), self.may_change() | other.may_change())


_QUOTE = "'"
Schema = TypeVar("Schema", bound=BaseModel)


def check(schema: type[Schema], table: Mapping[str, Any], origin: str) -> Schema:
    """Check a table against a schema; ConfigError with one line per problem."""
    try:
        return schema.model_validate(dict(table))
    except ValidationError as error:
        lines = dict.fromkeys(describe(problem, schema) for problem in error.errors())
        raise ConfigError(f"{origin}: " + f"\n{origin}: ".join(lines)) from None


def describe(problem: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """One pydantic error as `key: expected ..., got ...`."""
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
    """`value`, where it is one of the known names; ValueError that names the key."""
    names = list(known)
    if value not in names:
        raise ValueError(f"{key}: expected one of {', '.join(names)}, got {value!r}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _located(location: tuple[Any, ...], schema: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The keys of an error's location without the tags of unions, and the innermost model that they lead to."""
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
                model, annotation = tagged[0], None  # the tag of a union is no key of the file
                continue
            keys.append(str(part))
        members = _models(annotation)
        if len(members) == 1 and not _is_table(annotation):
            model, annotation = members[0], None
    return keys, model


def _is_table(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation names, in unions, tables and optional fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tags(model: type[BaseModel]) -> set[Any]:
    """The values of a model's literal fields: the tags that it is chosen by."""
    return {value for field in model.model_fields.values() for value in get_args(field.annotation)}
