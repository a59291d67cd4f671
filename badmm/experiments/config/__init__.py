"""Configurations: TOML files, read into one checked model.

A file with a section `model` trains networks (`NetworkConfig`); any other file is a convex problem (`SolverConfig`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from badmm.experiments.config.schema import Configuration, check
from badmm.experiments.config.solver import SolverConfig, resolve
from badmm.experiments.config.toml import ConfigError, read

__all__ = ["ConfigError", "Configuration", "SolverConfig", "load", "read", "validate"]


def load(path: str | Path, overrides: Iterable[str] = ()) -> Configuration:
    """Read a configuration and apply `section.key=value` overrides.

    Raises ConfigError for a file that cannot be read, malformed TOML (with line and column), an unknown or missing key,
    a value out of its range, and a key that has no effect with the other settings.
    """
    path = Path(path)
    return validate(read(path, overrides), str(path), path.parent)


def validate(table: Mapping[str, Any], origin: str = "configuration", folder: Path | None = None) -> Configuration:
    """Check a table, whose paths are relative to `folder`; raise ConfigError with one line per problem."""
    folder = Path.cwd() if folder is None else folder
    table = {key: _located(value, folder) for key, value in table.items()}
    if "model" not in table:
        return resolve(check(SolverConfig, table, origin), folder)
    from badmm.experiments.config import networks  # needs torch, which convex problems do not

    return networks.resolve(check(networks.NetworkConfig, table, origin), folder)


def _located(value: Any, folder: Path) -> Any:
    """A part of a table with every "file.py:Class" made absolute: it is relative to the configuration."""
    if isinstance(value, Mapping):
        return {key: _located(part, folder) for key, part in value.items()}
    if isinstance(value, str) and re.fullmatch(r".+\.py:\w+", value):
        return str((folder / value).resolve())
    return value
