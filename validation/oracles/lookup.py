"""Oracles found by name: one file per family, optimizer and likelihood, beside each other in a folder per kind."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from badmm_kernels import registry

from .family import FamilyOracle


class NoOracleError(LookupError):
    """Something registered has no oracle; the message names it and the file that is expected."""


def module(kind: str, name: str) -> ModuleType:
    """The module `oracles/KIND/NAME.py`; NoOracleError where there is none."""
    path = f"{__package__}.{kind}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise NoOracleError(f"expected an oracle in validation/oracles/{kind}/{name}.py, found none") from None


def family(name: str) -> FamilyOracle:
    """The oracle of a family, its fixed numbers at their defaults."""
    found = module("families", name).ORACLE
    assert isinstance(found, FamilyOracle), f"validation/oracles/families/{name}.py: ORACLE: expected a FamilyOracle"
    return found


def file_of(class_name: str) -> str:
    """The file name that a class stands for: LinearRegression becomes linear_regression."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


def structured(structure: str) -> tuple[str, ...]:
    """The registered families whose oracle has this structure, "coordinates" or "matrix"."""
    found = []
    for name in registry.FAMILIES:
        try:
            found += [name] if family(name).structure == structure else []
        except NoOracleError:  # the validation fails on it by name
            continue
    return tuple(found)
