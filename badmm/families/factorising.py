"""Families that factorise over coordinates: all that the solver needs, from the generated metadata and kernels.

Domain, margin, metric and chart follow from the domains of the natural parameter's slots, each the whole line or a half
of it, and from the kernel `whiten`. A new family needs nothing here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Distribution
from badmm.families.factorised import DOMAINS, Factorised, class_name, distribution_class
from badmm.families.family import Chart, FamilyGeometry, Growth, Natural, arrays

SIGNS = {"positive": 1.0, "negative": -1.0}
"""Slots of half a line by the sign of their entries; the others are whole lines."""


class FactorisingFamily(FamilyGeometry):
    """One coordinate's family, P times over."""

    @classmethod
    def distribution(cls, ns: Any) -> type[Distribution]:
        """The class made from the family's metadata."""
        return distribution_class(ns)

    def adopt(self, prior: Distribution) -> Distribution:
        """The prior itself, where it is of the family's class."""
        wanted = distribution_class(self.ns)
        if not isinstance(prior, wanted):
            expected = f"badmm.{class_name(self.name)} for family {self.name!r}"
            raise ValueError(f"prior: expected {expected}, got {type(prior).__name__}")
        self.fixed = prior.fixed
        return prior

    def natural(self, distribution: Any) -> Natural:
        """λ of a distribution of this family."""
        found: Natural = distribution.natural
        return found

    def posterior(self, natural: Natural) -> Distribution:
        """The distribution with natural parameter λ; raises `ValueError` outside the domain."""
        standard = arrays(self.ns.standard_from_natural(*natural, **self.fixed))
        return distribution_class(self.ns).of(*standard, **self.fixed)

    def in_domain(self, natural: Natural) -> bool:
        """Whether every slot is finite and in its domain."""
        slots = zip(natural, self.ns.NATURAL_DOMAINS, strict=True)
        return all(bool(np.isfinite(slot).all() and DOMAINS[domain](slot).all()) for slot, domain in slots)

    def required_rho(self, natural_global: Natural, dual: Natural, growth: Growth, enough: float = -np.inf) -> float:
        """max −(η + growth)/λ_g over the slots that are half lines."""
        extra = growth if isinstance(growth, tuple) else tuple(np.zeros(shape) for shape in self.shapes)
        slots = zip(natural_global, dual, extra, self.ns.NATURAL_DOMAINS, strict=True)
        needs = [float(np.max(-(eta + more) / slot)) for slot, eta, more, domain in slots if domain in SIGNS]
        return max(needs, default=-np.inf)

    def whiten(self, natural: Natural, directions: Natural) -> Array:
        """Lᵀ dλ, F = LLᵀ per coordinate, by the family's kernel."""
        return np.concatenate(arrays(self.ns.whiten(natural, directions, **self.fixed)), axis=1)

    def _fisher_diagonal(self, natural: Natural) -> list[Array]:
        """The diagonal entries of each coordinate's F, one array per slot: F_jj = ‖Lᵀ e_j‖²."""
        found = []
        for j in range(len(natural)):
            unit = tuple(np.full_like(slot, float(i == j)) for i, slot in enumerate(natural))
            found.append(np.sum(np.square(self.ns.whiten(natural, unit, **self.fixed)), axis=0))
        return found

    def fisher_bound(self, natural: Natural) -> float:
        """The largest trace of a coordinate's F."""
        return float(np.max(np.sum(self._fisher_diagonal(natural), axis=0)))

    def chart(self, reference: Distribution) -> Chart:
        """log λ in the slots that are half lines, λ in units of 1/√F elsewhere."""
        assert isinstance(reference, Factorised)
        return SlotChart(self, reference)


class SlotChart(Chart):
    """Unconstrained coordinates x of λ, slot by slot, so that every vector is a point of the domain."""

    def __init__(self, family: FactorisingFamily, reference: Factorised) -> None:
        self.family = family
        diagonals = family._fisher_diagonal(reference.natural)
        self._units = [1.0 / np.sqrt(entries) for entries in diagonals]

    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""
        assert isinstance(q, Factorised)
        return self.of_natural(q.natural)

    def of_natural(self, natural: Natural) -> Array:
        """The point of λ."""
        slots = zip(natural, self.family.ns.NATURAL_DOMAINS, self._units, strict=True)
        return np.concatenate([np.log(np.abs(s)) if domain in SIGNS else s / unit for s, domain, unit in slots])

    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None where the exponential leaves the number range."""
        slots = zip(np.split(x, len(self._units)), self.family.ns.NATURAL_DOMAINS, self._units, strict=True)
        with np.errstate(over="ignore", under="ignore"):
            natural = tuple(SIGNS[domain] * np.exp(s) if domain in SIGNS else s * unit for s, domain, unit in slots)
        q = self.family.inside(natural)
        return None if q is None else (natural, q)

    def derivative(self, natural: Natural) -> Natural:
        """dλ/dx at λ: λ itself for a logarithm."""
        slots = zip(natural, self.family.ns.NATURAL_DOMAINS, self._units, strict=True)
        return tuple(slot if domain in SIGNS else unit for slot, domain, unit in slots)
