"""One client's problem in one round: what the user's object returned, checked, and the residual of its solution.

λ_k = λ_g + (η_k − ∇L_k(μ(λ_k))) / ρ        argmin L_k(μ) − ⟨η_k, μ⟩ + ρ KL(q‖q_g)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from badmm.checks import Array, ClientError
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.family import FamilyGeometry, Growth, Natural
from badmm.families.gaussian import GaussianFamily

MATRIX_LIMIT = 1024
"""Largest d for which a whole Hessian is asked for where the family itself needs only its diagonal."""
EPSILON = float(np.finfo(np.float64).eps)
OVERFLOW = 1e100
"""Derivatives beyond this are refused like infinities: their products with means and 1/ρ would be."""


class NotFiniteError(ClientError):
    """A client returned an infinity or a NaN: refused at a trial point, an error at every start."""


@dataclass(frozen=True)
class Slope:
    """A client's loss and E[∇ℓ] (d,), None from one that gives natural gradients, at one λ, over the temperature."""

    natural: Natural
    posterior: Distribution
    loss: float
    gradient: Array | None


@dataclass(frozen=True)
class Evaluation(Slope):
    """A client's loss and derivatives at one λ, divided by the temperature.

    `curvature` E[∇²ℓ] (d, d) where it is known as a whole, and `hessian`, its part in the structure of the precision,
    are None for clients that give natural gradients.
    """

    hessian: Array | None
    curvature: Array | None
    family: FamilyGeometry
    given: Natural | None = None

    @cached_property
    def natural_gradient(self) -> Natural:
        """∇_μ L, as given or by Bonnet and Price."""
        if self.given is not None:
            return self.given
        assert self.gradient is not None
        return self.family.natural_gradient(self.posterior, self.gradient, self.hessian)


class BoundClient:
    """A user's client together with its index, the family and the temperature; every output is checked."""

    def __init__(self, index: int, client: Any, family: FamilyGeometry, temperature: float) -> None:
        self.index, self.client, self.family, self.temperature = index, client, family, temperature
        self.gives_expectations = family.takes_expectations and callable(getattr(client, "expectations", None))
        if not self.gives_expectations and not callable(getattr(client, "natural_gradient", None)):
            needed = "expectations(posterior) or natural_gradient(posterior)"
            needed = needed if family.takes_expectations else "natural_gradient(posterior)"
            raise ValueError(
                f"clients: expected objects with {needed} for family {family.name!r}, "
                f"got {type(client).__name__} at index {index}"
            )
        dim = getattr(client, "dim", None)
        if dim is not None and dim != family.dim:
            raise ValueError(
                f"clients: expected parameters of length {family.dim} (the prior's), got {dim} at index {index}"
            )
        self.constant = self._constant()
        self.growth = self._growth()
        self.sees_covariance = self.constant is None and not getattr(client, "at_mean", False)
        """Whether ∇L may depend on more than the posterior's mean."""
        knows_whole = hasattr(client, "curvature") and family.dim <= MATRIX_LIMIT
        self.gives_slope = (
            not self.sees_covariance
            and isinstance(family, GaussianFamily)
            and callable(getattr(client, "gradient", None))
            and (knows_whole or family.hessian_shape == (family.dim, family.dim))
        )
        """Whether Newton's method on the mean is to be had, and E[∇ℓ] without E[∇²ℓ]."""

    def _constant(self) -> Natural | None:
        give = getattr(self.client, "constant_natural_gradient", None)
        value = give(self.family) if give is not None else None
        return None if value is None else self._natural(value)

    def _growth(self) -> Growth:
        """What the existence condition may add to ρ λ_g + η for this client, over the temperature."""
        if self.constant is not None:
            return tuple(-slot for slot in self.constant)
        give = getattr(self.client, "growth", None)
        value = give(self.family) if give is not None else None
        return None if value is None else np.asarray(value, dtype=np.float64) / self.temperature

    def required_rho(self, natural_global: Natural, dual: Natural, enough: float = -np.inf) -> float:
        """The infimum of the penalties at which this client's problem meets the existence condition.

        `enough` may stand for an infimum below it.
        """
        return self.family.required_rho(natural_global, dual, self.growth, enough)

    def evaluate(self, natural: Natural, posterior: Distribution | None = None) -> Evaluation:
        """Call the client at λ; raises `ClientError` with its index for what is wrong with the answer."""
        q = self.family.posterior(natural) if posterior is None else posterior
        if self.constant is None and self.gives_expectations:
            return self._from_expectations(natural, q)
        gradient = self.constant
        if gradient is None:
            gradient = self._natural(self._call("natural_gradient", q))
        return Evaluation(natural, q, self.loss(q), None, None, None, self.family, gradient)

    def slope(self, natural: Natural, posterior: Distribution) -> Slope:
        """Call the client at λ for no more than its loss and E[∇ℓ], where it can do with less than all derivatives."""
        if not self.gives_slope:
            return self.evaluate(natural, posterior)
        answer = self._call("gradient", posterior)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ClientError(self.index, f"gradient: expected (loss, gradient), got {type(answer).__name__}")
        loss = self._finite(answer[0], "gradient: expected_loss", [()])
        return Slope(natural, posterior, float(loss), self._gradient(answer[1], "gradient"))

    def loss(self, posterior: Distribution) -> float:
        """E[ℓ]/τ; NaN where the client gives no loss."""
        if self.gives_expectations:
            return float(self._call("expectations", posterior)[0]) / self.temperature
        if hasattr(self.client, "expected_loss"):
            return float(self._call("expected_loss", posterior)) / self.temperature
        return float("nan")

    def _from_expectations(self, natural: Natural, q: Distribution) -> Evaluation:
        assert isinstance(q, Gaussian) and isinstance(self.family, GaussianFamily)
        d, wanted = q.dim, self.family.hessian_shape
        # a whole Hessian makes the mean's step a Newton step even where the family keeps only the diagonal
        whole = wanted != (d, d) and hasattr(self.client, "curvature") and d <= MATRIX_LIMIT
        name = "curvature" if whole else "expectations"
        answer = self._call(name, q)
        if not isinstance(answer, tuple) or len(answer) != 3:
            raise ClientError(self.index, f"{name}: expected (loss, gradient, hessian), got {type(answer).__name__}")
        loss = self._finite(answer[0], f"{name}: expected_loss", [()])
        gradient = self._gradient(answer[1], name)
        own = curvature = None
        if answer[2] is not None or self.family.precision_varies:
            hessian = self._hessian(answer[2], name, (d, d) if whole else wanted)
            own = q.operator.own_part(hessian)
            curvature = hessian if hessian.shape == (d, d) else None
        return Evaluation(natural, q, float(loss), gradient, own, curvature, self.family)

    def _gradient(self, value: Any, name: str) -> Array:
        return self._finite(value, f"{name}: expected_gradient", [(self.family.dim,)], OVERFLOW)

    def _hessian(self, value: Any, name: str, shape: tuple[int, ...]) -> Array:
        hessian = self._finite(value, f"{name}: expected_hessian", [shape], OVERFLOW)
        if len(shape) == 2 and not np.array_equal(hessian, hessian.T):
            if np.abs(hessian - hessian.T).max() > 1e-8 * np.abs(hessian).max():
                raise ClientError(self.index, f"{name}: expected_hessian: expected a symmetric matrix")
            hessian = 0.5 * (hessian + hessian.T)
        return hessian

    def _natural(self, value: Any) -> Natural:
        shapes = self.family.shapes
        if not isinstance(value, tuple | list) or len(value) != len(shapes):
            got = f"{len(value)} slots" if isinstance(value, tuple | list) else type(value).__name__
            raise ClientError(self.index, f"natural_gradient: expected a tuple of {len(shapes)} arrays, got {got}")
        return tuple(
            self._finite(slot, f"natural_gradient[{i}]", [shape])
            for i, (slot, shape) in enumerate(zip(value, shapes, strict=True))
        )

    def _finite(self, value: Any, name: str, shapes: list[tuple[int, ...]], most: float = np.inf) -> Array:
        """A finite array of one of the shapes, over the temperature; no entry is larger than `most`."""
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ClientError(self.index, f"{name}: expected real numbers, got {type(value).__name__}") from error
        if array.shape not in shapes:
            raise ClientError(self.index, f"{name}: expected shape {shapes[0]}, got {array.shape}")
        largest = float(max(array.max(initial=0.0), -array.min(initial=0.0)))  # NaN where any entry is
        if not largest < np.inf:
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise NotFiniteError(self.index, f"{name}: expected finite values, got {array[index]} at index {index}")
        if largest > most * self.temperature:
            raise NotFiniteError(self.index, f"{name}: expected values below {most:g}, got {largest:g}")
        return array / self.temperature

    def _call(self, name: str, posterior: Distribution) -> Any:
        try:
            return getattr(self.client, name)(posterior)
        except Exception as error:
            raise ClientError(self.index, f"{name} raised {type(error).__name__}: {error}") from error


class ClientProblem:
    """The fixed-point equation of one client in one round, counting its evaluations."""

    def __init__(self, bound: BoundClient, natural_global: Natural, dual: Natural, rho: float) -> None:
        family = bound.family
        self.bound, self.family = bound, family
        self.natural_global, self.dual, self.rho = family.parameter(natural_global), dual, rho
        self.evaluations = 0
        self.slopes = 0
        """Of the evaluations, those of E[∇ℓ] alone."""
        # λ_c = λ_g + η/ρ, where a client without a loss would go; it may lie outside the domain
        cavity = family.ns.cavity(self.natural_global, dual, rho)
        self.cavity = family.parameter([np.asarray(slot) for slot in cavity])

    def evaluate(self, natural: Natural, posterior: Distribution | None = None) -> Evaluation:
        """The client at λ, counted."""
        self.evaluations += 1
        return self.bound.evaluate(natural, posterior)

    def try_slope(self, q: Distribution) -> Slope | None:
        """The client's loss and E[∇ℓ] at a trial distribution, counted; None where its answer is not finite."""
        self.evaluations += 1
        self.slopes += self.bound.gives_slope
        try:
            return self.bound.slope(self.family.natural(q), q)
        except NotFiniteError:
            return None

    def try_evaluate(self, natural: Natural, posterior: Distribution | None = None) -> Evaluation | None:
        """The client at a trial λ, or None outside the domain and where its answer is not finite."""
        q = self.family.inside(natural) if posterior is None else posterior
        if q is None:
            return None
        try:
            return self.evaluate(natural, q)
        except NotFiniteError:
            return None

    def try_at(self, q: Distribution) -> Evaluation | None:
        """The client at a trial distribution, or None where its answer is not finite."""
        return self.try_evaluate(self.family.natural(q), q)

    def target(self, at: Evaluation) -> Natural:
        """λ_g + (η − ∇L)/ρ: the map whose fixed point is the solution; may lie outside the domain."""
        slots = self.family.ns.client_map(self.natural_global, self.dual, at.natural_gradient, self.rho)
        return self.family.parameter([np.asarray(slot) for slot in slots])

    def objective(self, at: Slope) -> float:
        """L − ⟨η, μ⟩ + ρ KL(q‖q_g) up to a constant: L + ρ (⟨λ − λ_c, μ⟩ − A(λ)), λ_c the cavity.

        Of a Gaussian with a loss taken at its mean, L + ρ (½ mᵀS_c m − ξ_cᵀm): the curvature that its precision takes
        from the loss is not that of L in the precision.
        """
        if not self.bound.sees_covariance and isinstance(self.family, GaussianFamily):
            xi, precision = self.family.canonical(self.cavity)
            mean = at.posterior.mean
            return at.loss + self.rho * float(mean @ (0.5 * precision.matvec(mean) - xi))
        mu = self.family.expectation(at.natural)
        inner = sum(
            float(np.sum((here - cavity) * slot))
            for here, cavity, slot in zip(at.natural, self.cavity, mu, strict=True)
        )
        return at.loss + self.rho * (inner - self.family.log_partition(at.natural))

    def residual(self, at: Evaluation, target: Natural) -> float:
        """‖map(λ) − λ‖ in the Fisher metric at λ, in posterior standard deviations: zero at the solution."""
        return self._length(at, tuple(goal - here for goal, here in zip(target, at.natural, strict=True)))

    def displacement(self, at: Evaluation, natural: Natural) -> float:
        """‖λ − λ_g‖ in the Fisher metric at a point near λ: how far the client moves, its share of the gap."""
        return self._length(at, tuple(here - old for here, old in zip(natural, self.natural_global, strict=True)))

    def rounding(self, at: Evaluation) -> float:
        """The length of one rounding error of each term of the map: no residual falls below a few of these.

        A Gaussian's mean is one of them: an error of ε |m| changes E[∇ℓ] by as much as ε |E[∇²ℓ]| |m|.
        """
        terms = zip(self.natural_global, self.dual, at.natural_gradient, strict=True)
        sizes = [EPSILON * (np.abs(g) + (np.abs(e) + np.abs(slope)) / self.rho) for g, e, slope in terms]
        if at.hessian is not None and isinstance(at.posterior, Gaussian):
            size, operator = np.abs(at.posterior.mean), at.posterior.operator
            whole = at.curvature
            moved = operator.times(np.abs(at.hessian), size) if whole is None else np.abs(whole) @ size
            sizes[0] = sizes[0] + EPSILON * moved / self.rho
        total = 0.0
        for place, size in enumerate(sizes):
            # slot by slot: errors of ξ and S m do not cancel
            change = [np.zeros_like(other) for other in sizes]
            change[place] = size * _signs(size.shape)
            total += self._length(at, tuple(change))
        return total

    def _length(self, at: Evaluation, change: Natural) -> float:
        if not all(np.isfinite(slot).all() for slot in change):
            return float("inf")
        with np.errstate(over="ignore"):
            whitened = self.family.whiten(at.natural, tuple(slot[None] for slot in change))
            length = float(np.linalg.norm(whitened))
        return length if np.isfinite(length) else float("inf")


@cache
def _signs(shape: tuple[int, ...]) -> Array:
    """Fixed signs in no order, symmetric for a matrix: what rounding errors look like."""
    index = np.arange(shape[0])
    mixed = index if len(shape) == 1 else index[:, None] * index + index[:, None] + index
    return np.where(mixed * 2654435761 % 65537 % 2, 1.0, -1.0)
