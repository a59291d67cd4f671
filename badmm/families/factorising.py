"""Families that factorise over coordinates: all that the solver needs, from the generated metadata and kernels.

Domain, margin, metric and chart follow from the domains of the natural parameter's slots, each the whole line or a half
of it, and from the kernel `whiten`; where inequalities couple slots, from the standard parameters' domains and the
kernel `margin`. A new family needs nothing here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.families.classes import class_name, distribution_class
from badmm.families.distributions import Distribution
from badmm.families.factorised import DOMAINS, Factorised
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
        """Whether every slot is finite and in its domain, and the stated inequalities hold."""
        slots = zip(natural, self.ns.NATURAL_DOMAINS, strict=True)
        signed = all(bool(np.isfinite(slot).all() and DOMAINS[domain](slot).all()) for slot, domain in slots)
        return signed and (not self.ns.INEQUALITIES or self._has_standard(natural))

    def _has_standard(self, natural: Natural) -> bool:
        """Whether standard parameters belong to λ: they are tested where they are computed."""
        try:
            self.ns.standard_from_natural(*natural, **self.fixed)
        except ValueError:
            return False
        return True

    def required_rho(self, natural_global: Natural, dual: Natural, growth: Growth, enough: float = -np.inf) -> float:
        """max −(η + growth)/λ_g over the slots that are half lines, and the margins of the inequalities."""
        moved = tuple(map(np.add, dual, growth)) if isinstance(growth, tuple) else dual
        slots = zip(natural_global, moved, self.ns.NATURAL_DOMAINS, strict=True)
        needs = [float(np.max(-eta / slot)) for slot, eta, domain in slots if domain in SIGNS]
        if self.ns.INEQUALITIES:
            needs += [float(np.max(margin)) for margin in self.ns.margin(natural_global, moved, **self.fixed)]
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
        """log λ in the slots that are half lines, λ in units of 1/√F elsewhere; so the standard parameters, where
        inequalities couple slots."""
        assert isinstance(reference, Factorised)
        return (StandardChart if self.ns.INEQUALITIES else SlotChart)(self, reference)


class SlotChart(Chart):
    """Unconstrained coordinates x of λ, slot by slot, so that every vector is a point of the domain."""

    def __init__(self, family: FactorisingFamily, reference: Factorised) -> None:
        self.family = family
        self._units = [np.ones(reference.dim)] * len(self._domains)
        self._units = [1.0 / np.linalg.norm(root, axis=0) for root in self.roots(reference.natural)]

    @property
    def _domains(self) -> tuple[str, ...]:
        """Of the parameters that the coordinates are of."""
        found: tuple[str, ...] = self.family.ns.NATURAL_DOMAINS
        return found

    def _parameters(self, natural: Natural) -> Natural:
        """Those of λ."""
        return natural

    def _natural(self, parameters: Natural) -> Natural | None:
        """λ of them; None outside the number range."""
        return parameters

    def _change(self, parameters: Natural, change: Natural) -> Natural:
        """dλ of a change of them."""
        return change

    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""
        assert isinstance(q, Factorised)
        return self.of_natural(q.natural)

    def of_natural(self, natural: Natural) -> Array:
        """The point of λ."""
        slots = zip(self._parameters(natural), self._domains, self._units, strict=True)
        return np.concatenate([np.log(np.abs(s)) if domain in SIGNS else s / unit for s, domain, unit in slots])

    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None where the exponential leaves the number range."""
        slots = zip(np.split(x, len(self._units)), self._domains, self._units, strict=True)
        with np.errstate(over="ignore", under="ignore"):
            found = tuple(SIGNS[domain] * np.exp(s) if domain in SIGNS else s * unit for s, domain, unit in slots)
        natural = self._natural(found)
        q = None if natural is None else self.family.inside(natural)
        return None if natural is None or q is None else (natural, q)

    def columns(self, natural: Natural) -> list[Natural]:
        """dλ/dx_j at λ, for the coordinate x_j of every parameter: the parameter itself under a logarithm."""
        parameters = self._parameters(natural)
        found = []
        for j, (own, domain, unit) in enumerate(zip(parameters, self._domains, self._units, strict=True)):
            step = own if domain in SIGNS else np.broadcast_to(unit, own.shape)
            change = tuple(step.copy() if i == j else np.zeros_like(own) for i in range(len(parameters)))
            found.append(self._change(parameters, change))
        return found

    def roots(self, natural: Natural) -> Array:
        """Lᵀ dλ/dx_j, F(λ) = LLᵀ: (coordinates j, components, P)."""
        ns, fixed = self.family.ns, self.family.fixed
        return np.stack([np.stack(arrays(ns.whiten(natural, column, **fixed))) for column in self.columns(natural)])


class StandardChart(SlotChart):
    """Unconstrained coordinates of the standard parameters."""

    @property
    def _domains(self) -> tuple[str, ...]:
        found: tuple[str, ...] = self.family.ns.STANDARD_DOMAINS
        return found

    def _parameters(self, natural: Natural) -> Natural:
        return arrays(self.family.ns.standard_from_natural(*natural, **self.family.fixed))

    def _natural(self, parameters: Natural) -> Natural | None:
        try:
            return arrays(self.family.ns.natural_from_standard(*parameters, **self.family.fixed))
        except ValueError:
            return None

    def _change(self, parameters: Natural, change: Natural) -> Natural:
        return arrays(self.family.ns.natural_change(*parameters, change, **self.family.fixed))
