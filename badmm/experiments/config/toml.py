"""TOML tables: reading with overrides from the command line, writing, and comparison key by key.

`--set section.key=value` overrides a key; the value is read as TOML, or as plain text if it is not valid TOML
(`--set method.rho=auto`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A configuration is invalid; the text has one line per problem: `key: expected ..., got ...`."""


def read(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a TOML file and apply overrides, without checking a schema; raise ConfigError with the file's name."""
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected valid TOML, got a syntax error: {error}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: expected UTF-8 text, got byte {content[error.start]:#04x}") from None
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable TOML file, got: {error}") from None
    for override in overrides:
        _apply(table, override)
    return table


def write(table: Mapping[str, Any]) -> str:
    """Return a table of numbers, text, lists and tables as TOML text, which `read` reads back."""
    return "\n".join(_lines(table, "")) + "\n"


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one table with dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], free: Iterable[str] = ()
) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, old value, new value) of the keys that differ, except those in `free`."""
    old, new = flat(before), flat(after)
    keys = [key for key in {**old, **new} if key not in set(free)]
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _lines(table: Mapping[str, Any], prefix: str) -> list[str]:
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, section in table.items():
        if isinstance(section, dict):
            lines += ["", f"[{prefix}{key}]", *_lines(section, f"{prefix}{key}.")]
    return lines


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's strings and truth values are valid TOML, except for the control character DEL, which TOML escapes
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
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
            raise ConfigError(f"--set: expected a section in {key!r}, got the plain value {name} = {table!r:.80}")
    table[last] = value
