"""Distributions of the families that factorise over coordinates: what their classes, which `classes.py` makes, share.

Arguments are the family's standard parameters, checked against their domains. Mean, variance, densities, quantiles and
draws come from the family's kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import Parameter, Signature
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from badmm.checks import Array, real_array, require
from badmm.families.distributions import Distribution
from badmm.families.inversion import Counting, Inversion, from_line
from badmm_kernels.face.arrays import scalar

DOMAINS: dict[str, Callable[[Array], Any]] = {
    "real": np.isfinite,
    "positive": lambda x: x > 0,
    "negative": lambda x: x < 0,
}
"""Tests of a slot's domain by its name."""
VANISHED = 1e-280
"""θ at which exp(−c/θ) is 0 and c/θ is still a number."""


class Factorised(Distribution):
    """q(θ) = Π_j q(θ_j) over P independent coordinates; scalars become arrays (1,).

    Raises `ValueError` unless every parameter is in its domain and they are of one shape, `TypeError` for other names.
    """

    ns: ClassVar[Any]
    """The family's kernels and what they say of it."""
    fixed: dict[str, float]
    """Parameters that do not vary within the family, the same for all coordinates."""
    _standard: tuple[Array, ...]

    def __init__(self, *args: ArrayLike, **kwargs: ArrayLike) -> None:
        given = signature(self.ns).bind(*args, **kwargs).arguments
        fixed = {name: scalar(name, domain, given.pop(name)) for name, domain in _fixed_domains(self.ns)}
        arrays = {name: real_array(value, name, (0, 1)) for name, value in given.items()}
        for (name, array), domain in zip(arrays.items(), self.ns.STANDARD_DOMAINS, strict=True):
            require(DOMAINS[domain](array), array, name, domain)
        vectors = {name: array.shape for name, array in arrays.items() if array.shape}
        first = next(iter(vectors), "")
        for name, shape in vectors.items():
            if shape != vectors[first]:
                raise ValueError(f"{name}: expected shape {vectors[first]} to match the {first} parameter, got {shape}")
        size = max(array.size for array in arrays.values())
        self._set(tuple(np.broadcast_to(array, (size,)).copy() for array in arrays.values()), fixed)

    def _set(self, standard: tuple[Array, ...], fixed: Mapping[str, float]) -> None:
        named = dict(zip(self.ns.STANDARD, standard, strict=True))
        self.__dict__.update(_standard=standard, fixed=dict(fixed), **named, **fixed)

    @classmethod
    def of(cls, *standard: Array, **fixed: float) -> Factorised:
        """A distribution from standard parameters (P,) and fixed ones that need no check."""
        self = cls.__new__(cls)
        self._set(standard, fixed)
        return self

    def parameters(self) -> dict[str, Array]:
        """The standard parameters by name, (P,) each, and the fixed ones ()."""
        fixed = {name: np.asarray(value) for name, value in self.fixed.items()}
        return dict(zip(self.ns.STANDARD, self._standard, strict=True)) | fixed

    @cached_property
    def natural(self) -> tuple[Array, ...]:
        """λ, one array (P,) per slot."""
        return tuple(np.asarray(slot) for slot in self.ns.natural_from_standard(*self._standard, **self.fixed))

    @property
    def support(self) -> tuple[float, float]:
        """The bounds of θ."""
        return self._bounds(0)

    def _bounds(self, variable: int) -> tuple[float, float]:
        """The bounds of one of the variables of a coordinate."""
        low, high = (self.fixed[b] if isinstance(b, str) else b for b in self.ns.SUPPORT[variable])
        return low, high

    @property
    def dim(self) -> int:
        """P, the number of coordinates."""
        return len(self._standard[0])

    def expected(self, statistic: str) -> Array:
        """E[s(θ)] (P,) of a function s that is among the family's statistics, named as there: "theta", "log(theta)".

        Raises `ValueError` for another function.
        """
        names = [name for name, _ in self.ns.STATISTICS]
        if statistic not in names:
            raise ValueError(f"statistic: expected one of {', '.join(names)} for {self.ns.NAME}, got {statistic!r}")
        slot = names.index(statistic)
        mu = np.asarray(self.ns.expectation_from_natural(*self.natural, **self.fixed)[slot])
        return np.asarray(mu / self.ns.STATISTICS[slot][1])

    @property
    def mean(self) -> Array:
        """E[θ] (P,), infinite where it does not exist: an expectation parameter where θ is a statistic, else by
        quadrature."""
        if self._affine is not None:
            return self.expected("theta")
        found = [q.moment(1) for q in self._marginals]
        return self._completed(found, lambda: self._raw_moment(1))

    @property
    def variance(self) -> Array:
        """Var[θ] (P,), infinite where it does not exist: an entry of the Fisher information where θ is a statistic,
        else by quadrature."""
        if self._affine is None:
            mean = self.mean
            finite = np.where(np.isfinite(mean), mean, 0.0)
            found = [q.moment(2, m) for q, m in zip(self._marginals, finite, strict=True)]
            with np.errstate(invalid="ignore"):
                exact = self._completed(found, lambda: self._raw_moment(2) - mean**2)
            return np.where(np.isnan(exact), np.inf, exact)
        unit = [np.zeros(self.dim) for _ in self.natural]
        unit[self._affine][:] = 1.0
        parts = self.ns.whiten(self.natural, tuple(unit), **self.fixed)
        return np.asarray(sum(part**2 for part in parts) / self.ns.STATISTICS[self._affine][1] ** 2)

    @staticmethod
    def _completed(found: list[float | None], otherwise: Callable[[], Array]) -> Array:
        """The moments found, and the others' where a tail is too heavy for quadrature."""
        if None not in found:
            return np.array(found)
        both = zip(found, otherwise(), strict=True)
        return np.array([other if value is None else value for value, other in both])

    def _raw_moment(self, power: int) -> Array:
        """E[θᵏ] = exp(A(λ + k δ) − A(λ)) with θ = exp⟨δ, T⟩; infinite where λ + k δ is no member of the family."""
        names = [name for name, _ in self.ns.STATISTICS]
        if "log(theta)" not in names:
            return np.full(self.dim, np.inf)
        slot = names.index("log(theta)")
        moved = list(self.natural)
        moved[slot] = moved[slot] + power / self.ns.STATISTICS[slot][1]
        inside = DOMAINS[self.ns.NATURAL_DOMAINS[slot]](moved[slot])
        moved[slot] = np.where(inside, moved[slot], self.natural[slot])
        a, b = (self.ns.log_partition(*(s[:, None] for s in at), axis=-1, **self.fixed) for at in (moved, self.natural))
        return np.where(inside, np.exp(a - b), np.inf)

    @property
    def _affine(self) -> int | None:
        """The slot whose statistic is a multiple of θ."""
        names = [name for name, _ in self.ns.STATISTICS]
        return names.index("theta") if "theta" in names else None

    def log_density(self, theta: ArrayLike) -> Array:
        """log q(θ_j) for θ (P,) or (n, P); −inf outside the support."""
        points = np.broadcast_arrays(np.asarray(theta, dtype=np.float64), self._standard[0])[0]
        low, high = self.support
        if self.ns.DISCRETE:
            inside, inner = (points >= low) & (points <= high) & (points == np.floor(points)), low
        else:
            inside, inner = (points > low) & (points < high), float(from_line(0.0, low, high)[0])
            if "1/theta" in dict(self.ns.STATISTICS):
                inside &= np.abs(points) > VANISHED
        safe = np.where(inside, points, inner)
        return np.where(inside, self._log_density(np.ascontiguousarray(safe)), -np.inf)

    def _log_density(self, theta: Array) -> Array:
        """log q(θ_j) inside the support; −inf where it is below the number range, which the array kernel refuses."""
        try:
            return np.asarray(self.ns.log_density(theta, *self.natural, **self.fixed)[0])
        except ValueError:
            one = np.frompyfunc(self.ns.log_density_f64, 1 + len(self.natural) + len(self.fixed), 1)
            with np.errstate(over="ignore", invalid="ignore"):
                found = one(theta, *self.natural, *self.fixed.values()).astype(np.float64)
            return np.where(np.isfinite(found), found, -np.inf)

    @cached_property
    def _marginals(self) -> list[Any]:
        def log_density(j: int) -> Callable[[Array], Array]:
            marginal = type(self).of(*(slot[j : j + 1] for slot in self._standard), **self.fixed)
            return lambda theta: marginal.log_density(theta[:, None])[:, 0]

        kind: Any = Counting if self.ns.DISCRETE else Inversion
        return [kind(log_density(j), self.support) for j in range(self.dim)]

    def quantile(self, probability: ArrayLike) -> Array:
        """θ (..., P) with P(θ_j ≤ θ) = probability in (0, 1) (...), to about 1e-12 in probability."""
        asked = np.asarray(probability, dtype=np.float64)
        columns = [marginal.quantile(asked.ravel()).reshape(asked.shape) for marginal in self._marginals]
        return np.stack(columns, axis=-1)

    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws (count, P) by inversion of uniforms from PCG64 under this seed."""
        uniform = np.random.default_rng(seed).random((count, self.dim))
        return np.stack([q.quantile(uniform[:, j]) for j, q in enumerate(self._marginals)], axis=-1)


def _fixed_domains(ns: Any) -> tuple[tuple[str, str], ...]:
    return tuple(zip(ns.FIXED, ns.FIXED_DOMAINS, strict=True))


def signature(ns: Any) -> Signature:
    """The arguments of a family's class: standard parameters, then fixed ones."""
    return Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in (*ns.STANDARD, *ns.FIXED)])
