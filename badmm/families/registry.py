"""Finds a family's structure and its distribution class by the family's name: nothing is listed here.

A family that factorises follows from its generated metadata. A matrix structure is the file
`badmm/families/<family>.py` with its class as `STRUCTURE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import badmm_kernels
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.factorised import class_name, distribution_class
from badmm.families.factorising import FactorisingFamily
from badmm.families.family import Family
from badmm.families.gaussian import FactorisingGaussian, GaussianFamily

EXPECTATIONS = ("expected_gradient", "expected_hessian")
"""LOSS_DERIVATIVES of the families to which Bonnet and Price apply."""


def names() -> tuple[str, ...]:
    """Every family that kernels exist for."""
    return badmm_kernels.FAMILIES


def _namespace(name: str) -> Any:
    if name.endswith(".py"):
        return badmm_kernels.load(name)
    if name not in names():
        raise ValueError(f"family: expected one of {', '.join(names())}, got {name!r}")
    return badmm_kernels.load(name)


@cache
def structure(name: str) -> type[Family]:
    """The structure of a family; raises `ValueError` for an unknown name."""
    ns = _namespace(name)
    if name in names() and find_spec(f"badmm.families.{name}") is not None:
        found: type[Family] = import_module(f"badmm.families.{name}").STRUCTURE
        return found
    coupled = [slot for slot, domain in zip(ns.NATURAL, ns.NATURAL_DOMAINS, strict=True) if domain == "spd"]
    if coupled:
        raise ValueError(f"family: expected a structure badmm/families/{name}.py for the matrix {coupled[0]}, got none")
    return FactorisingGaussian if ns.LOSS_DERIVATIVES == EXPECTATIONS else FactorisingFamily


def bind(name: str, prior: Distribution) -> Family:
    """A family with its prior; raises `ValueError` for an unknown name or a prior that is not of the family."""
    return structure(name)(_namespace(name), prior)


def takes_expectations(name: str) -> bool:
    """Whether the family's clients are asked for E[ℓ], E[∇ℓ], E[∇²ℓ]."""
    return structure(name).takes_expectations


def distribution(name: str) -> type[Distribution]:
    """The class of a family's distributions."""
    return Gaussian if issubclass(structure(name), GaussianFamily) else distribution_class(name)


def exported(name: str) -> type[Distribution] | None:
    """The distribution class of this name that `badmm` exports beside `Gaussian`; None where there is none."""
    for family in names():
        if class_name(family) == name and not takes_expectations(family):
            return distribution(family)
    return None


def fixed(name: str) -> tuple[str, ...]:
    """The parameters that do not vary within a family: the isotropic Gaussian's precision."""
    found: tuple[str, ...] = _namespace(name).FIXED
    return found


def arguments(name: str) -> tuple[str, ...]:
    """The names of a prior's parameters."""
    ns = _namespace(name)
    return (*ns.STANDARD, *ns.FIXED)


def prior(name: str, values: Mapping[str, float], dim: int) -> Distribution:
    """A prior with the same parameters in each of `dim` coordinates.

    Raises `ValueError` for a missing or another name, and for a value outside its domain.
    """
    wanted = arguments(name)
    if set(values) != set(wanted):
        given = ", ".join(values) or "none"
        raise ValueError(f"prior: expected {' and '.join(wanted)} (family = {name}), got {given}")
    first = wanted[0]
    spread = {key: np.full(dim, value) if key == first else value for key, value in values.items()}
    return distribution(name)(**spread)
