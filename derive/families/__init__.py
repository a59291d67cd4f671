"""One small file per family; found by name, nothing to register."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from ..calculus.family import Family, FamilyError


def family_names() -> list[str]:
    """The families under derive/families, in alphabetical order; no file is read."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__))


def load_families(names: Iterable[str] | None = None) -> dict[str, Family]:
    """The named families (default all), by name; FamilyError names the file of one that cannot be read."""
    return {name: load_family(name) for name in (family_names() if names is None else names)}


def load_family(name: str) -> Family:
    """One family from its file."""
    try:
        module = importlib.import_module(f"{__name__}.{name}")
        family: Family = module.FAMILY
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise FamilyError(f"families/{name}.py: expected a FAMILY, got {type(error).__name__}: {first}") from error
    if family.name != name:
        raise FamilyError(f"families/{name}.py: expected FAMILY.name to be the file's name, got {family.name!r}")
    object.__setattr__(family, "module", module.__name__)
    return family
