"""What the solver needs of a family beside its kernels: the one interface of every covariance structure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from badmm.checks import Array
from badmm.families.distributions import Distribution

Natural = tuple[Array, ...]
"""λ, one float64 array per slot; a structure may use a subclass that carries what it has computed."""
Growth = Natural | Array | None
"""How a loss may help the domain: −∇L where ∇L is constant, G∞ with ℓ ≥ ½θᵀG∞θ − O(‖θ‖), or None."""


class Chart(ABC):
    """Coordinates x of a family's members, in which iterates are mixed: every x near the domain's is in the domain."""

    @abstractmethod
    def vector(self, q: Distribution) -> Array:
        """The point of a distribution."""

    @abstractmethod
    def point(self, x: Array) -> tuple[Natural, Distribution] | None:
        """λ and the distribution of a point; None outside the domain."""


@dataclass(frozen=True)
class Choice(ABC):
    """A family together with what it leaves to choose, such as the sizes of its blocks: an argument `family`."""

    @abstractmethod
    def bind(self, prior: Distribution) -> FamilyGeometry:
        """The family with its prior; raises `ValueError` for a choice that does not fit it."""


class FamilyGeometry(ABC):
    """A family's kernels bound to one prior. Natural parameters hold one float64 array per slot.

    Raises `ValueError` for a prior that is not of the family.
    """

    takes_expectations: ClassVar[bool] = False
    """Whether ∇_μ L follows from E[∇ℓ] and E[∇²ℓ] (Bonnet, Price), which clients are then asked for."""
    keeps_curvature = False
    """Whether a member can hold a loss's whole curvature E[∇²ℓ]."""
    mixing_memory = 20
    """Rounds whose dual lines are worth remembering."""
    mixed_damping = 1.0
    """The dual damping γ at which dual lines of earlier rounds are mixed."""

    def __init__(self, ns: Any, prior: Distribution) -> None:
        self.ns, self.name = ns, str(ns.NAME)
        self.fixed: dict[str, float] = {}
        """Parameters that do not vary within the family, which its kernels take by keyword."""
        self.prior = self.adopt(prior)
        self.dim = self.prior.dim
        self.prior_natural = self.natural(self.prior)
        self.shapes = tuple(slot.shape for slot in self.prior_natural)

    @classmethod
    @abstractmethod
    def distribution(cls, ns: Any) -> type[Distribution]:
        """The class of the family's members, where `ns` are its kernels."""

    @abstractmethod
    def adopt(self, prior: Distribution) -> Distribution:
        """The prior in the family's own structure, its fixed parameters noted; raises `ValueError` for another kind."""

    @abstractmethod
    def natural(self, distribution: Any) -> Natural:
        """λ of a distribution of this family."""

    @abstractmethod
    def posterior(self, natural: Natural) -> Distribution:
        """The distribution with natural parameter λ; raises `ValueError` outside the domain."""

    @abstractmethod
    def in_domain(self, natural: Natural) -> bool:
        """Whether λ is finite and in the domain."""

    @abstractmethod
    def required_rho(self, natural_global: Natural, dual: Natural, growth: Growth, enough: float = -np.inf) -> float:
        """The domain's margin: the infimum of the ρ for which ρ λ_g + η (+ the loss's growth) is in the domain.

        It may be negative; −inf where every λ is in the domain. `enough` is returned where the infimum lies below it
        and it is cheaper to see that than to find the infimum.
        """

    @abstractmethod
    def whiten(self, natural: Natural, directions: Natural) -> Array:
        """Changes of λ (n, ...) as rows (n, size) whose 2-norm is the Fisher metric's at λ."""

    @abstractmethod
    def fisher_bound(self, natural: Natural) -> float:
        """An upper bound on the largest eigenvalue of F(λ) = ∇²A(λ), in μ's units over λ's."""

    @abstractmethod
    def chart(self, reference: Distribution) -> Chart:
        """Coordinates with unit scales near a reference."""

    def parameter(self, slots: Sequence[Array]) -> Natural:
        """λ in the family's own type, which may carry what is computed from it."""
        return tuple(slots)

    def inside(self, natural: Natural) -> Distribution | None:
        """The distribution with natural parameter λ; None outside the domain."""
        return self.posterior(natural) if self.in_domain(natural) else None

    def trial_points(self) -> AbstractContextManager[None]:
        """A context for the points that a solver tries, on its thread: no warning about what it does not return."""
        return nullcontext()

    def expectation(self, natural: Natural) -> Natural:
        """μ of one λ, or of a stack of them."""
        return arrays(self.ns.expectation_from_natural(*natural, **self.fixed))

    def log_partition(self, natural: Natural) -> float:
        """A(λ)."""
        return float(self.ns.log_partition(*natural, **self.fixed))

    def natural_gradient(self, q: Distribution, gradient: Array, hessian: Array | None) -> Natural:
        """∇_μ L from E[∇ℓ] (d,) and the structure's part of E[∇²ℓ], where the family takes them."""
        raise NotImplementedError(f"{self.name}: its clients give natural gradients")

    def kl(self, q: Natural, p: Natural) -> float:
        """KL(q‖p) in nats."""
        return float(self.ns.kl(q, p, **self.fixed))

    def linear(self, coefficients: Mapping[str, Array]) -> Natural | None:
        """∇_μ E[ℓ] of a loss ℓ(θ) = Σ_s ⟨c_s, s(θ)⟩ + const, by function s; None where E[ℓ] is not linear in μ.

        A function is named as in the kernels' STATISTICS: "theta", "log(theta)"; "theta*theta.T" has a matrix (d, d).
        """
        known = dict(self.ns.STATISTICS)
        rest = {name: value for name, value in coefficients.items() if name not in known}
        if any(np.any(value) for value in rest.values()):
            return None
        zeros = zip(self.ns.STATISTICS, self.shapes, strict=True)
        return tuple(np.asarray(coefficients.get(name, np.zeros(shape))) / factor for (name, factor), shape in zeros)

    @cached_property
    def message_doubles(self) -> int:
        """Numbers in one λ as sent."""
        return len(self.pack(self.prior_natural))

    def pack(self, natural: Natural) -> Array:
        """λ as one vector of its distinct entries: what is sent."""
        return np.concatenate([slot.ravel() for slot in natural])

    def unpack(self, message: Array) -> Natural:
        """λ from what `pack` made; ValueError for another size."""
        self._check_size(message)
        return self.parameter(self._slots(message))

    def _check_size(self, message: Array) -> None:
        if message.shape != (self.message_doubles,):
            size = self.message_doubles
            raise ValueError(f"natural: expected a vector of {size} numbers, got shape {message.shape}")

    def pack_sum(self, total: Natural, at: Natural) -> Array:
        """What clients send of a sum of contributions, linear in it; `at` is λ_g, which both sides know."""
        return self.pack(total)

    def unpack_sum(self, message: Array, at: Natural, rest: Natural) -> Natural:
        """The sum from what `pack_sum` made at λ_g, which the server adds to the `rest` of its line.

        Raises `ValueError` for another size.
        """
        return self.unpack(message)

    def closest(self, natural: Natural, before: Natural) -> Natural:
        """The member of the family that stands for the server's line λ, with the least KL(q‖λ); λ itself where all of
        the domain is the family. `before` is λ_g of the last round.
        """
        return natural

    def _slots(self, message: Array) -> Natural:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = np.split(message, ends)
        return tuple(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def symmetrised(self, stacked: Natural) -> Natural:
        """Stacks of λ with a leading axis, symmetric to the last bit where they are so but for rounding."""
        return stacked

    def stack(self, naturals: Sequence[Natural]) -> Natural:
        """One natural-shaped tuple with a leading client axis."""
        return tuple(np.stack([natural[slot] for natural in naturals]) for slot in range(len(self.shapes)))


def arrays(values: Any) -> Natural:
    """A kernel's result as float64 arrays."""
    return tuple(np.asarray(value, dtype=np.float64) for value in values)
