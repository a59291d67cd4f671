"""One small file per family; found by name, nothing to register."""

from __future__ import annotations

import importlib
import pkgutil

from ..calculus.family import Family, FamilyError


def load_families() -> dict[str, Family]:
    """Every family under derive/families, by name, in alphabetical order."""
    found: dict[str, Family] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda item: item.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        family: Family = module.FAMILY
        if family.name != info.name:
            raise FamilyError(
                f"families/{info.name}.py: expected FAMILY.name to be the file's name, got {family.name!r}"
            )
        object.__setattr__(family, "module", module.__name__)
        found[family.name] = family
    return found
