"""Finds a family's structure and its distribution class by the family's name: nothing is listed here.

A family that factorises follows from its generated metadata. A matrix structure is the file
`badmm/families/structures/<family>.py` with its class as `STRUCTURE`. One that leaves something to choose (the sizes of
its blocks) has a dataclass `CHOICE` of that, which `badmm.solve` takes in place of the name; one without generated
kernels has its own as `KERNELS`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

import badmm_kernels
from badmm.families import structures
from badmm.families.classes import class_name
from badmm.families.distributions import Distribution
from badmm.families.factorising import FactorisingFamily
from badmm.families.family import Choice, FamilyGeometry
from badmm.families.gaussian import FactorisingGaussian

EXPECTATIONS = ("expected_gradient", "expected_hessian")
"""LOSS_DERIVATIVES of the families to which Bonnet and Price apply."""
STRUCTURES = tuple(sorted(info.name for info in pkgutil.iter_modules(structures.__path__)))
"""The families with a file under `structures/`."""


def names() -> tuple[str, ...]:
    """Every family that kernels or a structure exist for."""
    return tuple(sorted({*badmm_kernels.FAMILIES, *STRUCTURES}))


def _file(name: str) -> Any:
    """The module of a structure."""
    return import_module(f"{structures.__name__}.{name}")


def _namespace(name: str) -> Any:
    if name.endswith(".py"):
        return badmm_kernels.load(name)
    if name not in names():
        raise ValueError(f"family: expected one of {', '.join(names())}, got {name!r}")
    return badmm_kernels.load(name) if name in badmm_kernels.FAMILIES else _file(name).KERNELS


@cache
def structure(name: str) -> type[FamilyGeometry]:
    """The structure of a family; raises `ValueError` for an unknown name."""
    ns = _namespace(name)
    if name in STRUCTURES:
        found: type[FamilyGeometry] = _file(name).STRUCTURE
        return found
    coupled = [slot for slot, domain in zip(ns.NATURAL, ns.NATURAL_DOMAINS, strict=True) if domain == "spd"]
    if coupled:
        file = f"badmm/families/structures/{name}.py"
        raise ValueError(f"family: expected a structure {file} for the matrix {coupled[0]}, got none")
    return FactorisingGaussian if ns.LOSS_DERIVATIVES == EXPECTATIONS else FactorisingFamily


def choice_class(name: str) -> type[Choice] | None:
    """The dataclass of what a family leaves to choose; None where that is nothing."""
    found: type[Choice] | None = getattr(_file(name), "CHOICE", None) if name in STRUCTURES else None
    return found


def chosen(name: str, options: Mapping[str, Any]) -> str | Choice:
    """The argument `family` of a name and what is chosen in it; raises `ValueError` for a choice that is none."""
    found = choice_class(name)
    return name if found is None else found(**options)


def bind(family: str | Choice, prior: Distribution) -> FamilyGeometry:
    """A family with its prior; raises `ValueError` for an unknown name or a prior that is not of the family."""
    if isinstance(family, Choice):
        return family.bind(prior)
    if not isinstance(family, str):
        raise ValueError(
            f"family: expected a name or a choice such as badmm.BlockDiagonalGaussian, got {type(family).__name__}"
        )
    kind = structure(family)
    open_choice = choice_class(family)
    if open_choice is not None:
        options = ", ".join(f"{field}=..." for field in open_choice.__dataclass_fields__)
        raise ValueError(f"family: expected badmm.{open_choice.__name__}({options}), got {family!r} alone")
    return kind(_namespace(family), prior)


def takes_expectations(name: str) -> bool:
    """Whether the family's clients are asked for E[ℓ], E[∇ℓ], E[∇²ℓ]."""
    return structure(name).takes_expectations


def distribution(name: str) -> type[Distribution]:
    """The class of a family's distributions."""
    return structure(name).distribution(_namespace(name))


def exported(name: str) -> type[Distribution] | type[Choice] | None:
    """What `badmm` exports under a family's class name: its distributions, or what it leaves to choose; else None.

    Distributions of the Gaussian families are `badmm.Gaussian`, whatever the family.
    """
    for family in names():
        if class_name(family) == name:
            return choice_class(family) or (None if takes_expectations(family) else distribution(family))
    return None


def fixed(name: str) -> tuple[str, ...]:
    """The parameters that do not vary within a family: the isotropic Gaussian's precision."""
    found: tuple[str, ...] = _namespace(name).FIXED
    return found


def arguments(name: str) -> tuple[str, ...]:
    """The names of a prior's parameters."""
    ns = _namespace(name)
    return (*ns.STANDARD, *ns.FIXED)


def varies(name: str, parameter: str) -> bool:
    """Whether a standard parameter may differ between coordinates: it is no fixed one of the family."""
    return parameter in arguments(name) and parameter not in fixed(name)


def prior(name: str, values: Mapping[str, Any], dim: int) -> Distribution:
    """A prior with the same parameters in each of `dim` coordinates, or with those of an array (dim,).

    Raises `ValueError` for a missing or another name, and for a value outside its domain.
    """
    wanted = arguments(name)
    if set(values) != set(wanted):
        given = ", ".join(values) or "none"
        raise ValueError(f"prior: expected {' and '.join(wanted)} (family = {name}), got {given}")
    first = wanted[0]
    spread = {key: np.full(dim, value) if key == first else value for key, value in values.items()}
    return distribution(name)(**spread)
