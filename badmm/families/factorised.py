"""Distributions of the families that factorise over coordinates: one class per family, made from generated metadata.

`distribution_class("gamma")` is `badmm.Gamma`: its arguments are the family's standard parameters, checked against
their domains. Mean, variance, densities, quantiles and draws come from the family's kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from inspect import Parameter, Signature
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad_vec
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats.sampling import NumericalInversePolynomial

import badmm_kernels
from badmm.checks import Array, real_array, require
from badmm.families.distributions import Distribution

DOMAINS: dict[str, Callable[[Array], Any]] = {
    "real": np.isfinite,
    "positive": lambda x: x > 0,
    "negative": lambda x: x < 0,
}
"""Tests of a slot's domain by its name."""


class Factorised(Distribution):
    """q(θ) = Π_j q(θ_j) over P independent coordinates; scalars become arrays (1,).

    Raises `ValueError` unless every parameter is in its domain and they are of one shape, `TypeError` for other names.
    """

    ns: ClassVar[Any]
    """The family's kernels and what they say of it."""
    _standard: tuple[Array, ...]

    def __init__(self, *args: ArrayLike, **kwargs: ArrayLike) -> None:
        given = _signature(self.ns).bind(*args, **kwargs).arguments
        arrays = {name: real_array(value, name, (0, 1)) for name, value in given.items()}
        for (name, array), domain in zip(arrays.items(), self.ns.STANDARD_DOMAINS, strict=True):
            require(DOMAINS[domain](array), array, name, domain)
        vectors = {name: array.shape for name, array in arrays.items() if array.shape}
        first = next(iter(vectors), "")
        for name, shape in vectors.items():
            if shape != vectors[first]:
                raise ValueError(f"{name}: expected shape {vectors[first]} to match the {first} parameter, got {shape}")
        size = max(array.size for array in arrays.values())
        self._set(tuple(np.broadcast_to(array, (size,)).copy() for array in arrays.values()))

    def _set(self, standard: tuple[Array, ...]) -> None:
        self.__dict__.update(_standard=standard, **dict(zip(self.ns.STANDARD, standard, strict=True)))

    @classmethod
    def of(cls, *standard: Array) -> Factorised:
        """A distribution from standard parameters (P,) that need no check."""
        self = cls.__new__(cls)
        self._set(standard)
        return self

    def parameters(self) -> dict[str, Array]:
        """The standard parameters by name, (P,) each."""
        return dict(zip(self.ns.STANDARD, self._standard, strict=True))

    @cached_property
    def natural(self) -> tuple[Array, ...]:
        """λ, one array (P,) per slot."""
        return tuple(np.asarray(slot) for slot in self.ns.natural_from_standard(*self._standard))

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
        mu = np.asarray(self.ns.expectation_from_natural(*self.natural)[slot])
        return np.asarray(mu / self.ns.STATISTICS[slot][1])

    @property
    def mean(self) -> Array:
        """E[θ] (P,): an expectation parameter where θ is a statistic, else by quadrature."""
        return self.expected("theta") if self._affine is not None else self._moment(lambda theta: theta)

    @property
    def variance(self) -> Array:
        """Var[θ] (P,): an entry of the Fisher information where θ is a statistic, else by quadrature."""
        if self._affine is None:
            mean = self.mean
            return self._moment(lambda theta: (theta - mean) ** 2)
        unit = [np.zeros(self.dim) for _ in self.natural]
        unit[self._affine][:] = 1.0
        parts = self.ns.whiten(self.natural, tuple(unit))
        return np.asarray(sum(part**2 for part in parts) / self.ns.STATISTICS[self._affine][1] ** 2)

    @property
    def _affine(self) -> int | None:
        """The slot whose statistic is a multiple of θ."""
        names = [name for name, _ in self.ns.STATISTICS]
        return names.index("theta") if "theta" in names else None

    def log_density(self, theta: ArrayLike) -> Array:
        """log q(θ_j) for θ (P,) or (n, P); −inf outside the support."""
        points = np.broadcast_arrays(np.asarray(theta, dtype=np.float64), self._standard[0])[0]
        low, high = self.ns.SUPPORT
        inside = (points > low) & (points < high)
        safe = np.where(inside, points, self._inner_point)
        values = self.ns.log_density(np.ascontiguousarray(safe), *self.natural)[0]
        return np.where(inside, values, -np.inf)

    @property
    def _inner_point(self) -> float:
        return float(_from_line(0.0, *self.ns.SUPPORT)[0])

    def _moment(self, function: Any) -> Array:
        """E[f(θ)] (P,) by adaptive quadrature over the line that the support is mapped to."""

        def integrand(u: float) -> Array:
            theta, log_slope = _from_line(np.full(self.dim, u), *self.ns.SUPPORT)
            return np.asarray(function(theta) * np.exp(self.log_density(theta) + log_slope))

        value, _ = quad_vec(integrand, -np.inf, np.inf, epsabs=1e-12, epsrel=1e-10)
        return np.asarray(value)

    def quantile(self, probability: ArrayLike) -> Array:
        """θ with P(θ_j ≤ θ) = probability in (0, 1), (..., P) for probabilities (...), to about 1e-9 in probability."""
        asked = np.asarray(probability, dtype=np.float64)
        rows = [_quantiles(self._marginal(j), asked, self.ns.SUPPORT) for j in range(self.dim)]
        return np.stack(rows, axis=-1)

    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws (count, P) by inversion of uniforms from PCG64 under this seed."""
        uniform = np.random.default_rng(seed).random((count, self.dim))
        return np.stack(
            [_quantiles(self._marginal(j), uniform[:, j], self.ns.SUPPORT) for j in range(self.dim)], axis=-1
        )

    def _marginal(self, j: int) -> Factorised:
        return type(self).of(*(slot[j : j + 1] for slot in self._standard))


class _OnTheLine:
    """The density of one coordinate on the real line, 1 at its mode: what SciPy's inversion takes."""

    def __init__(self, marginal: Factorised) -> None:
        self.marginal = marginal
        self.top = 0.0
        self.mode = float(minimize_scalar(lambda u: -self.logpdf(u)).x)
        self.top = self.logpdf(self.mode)

    def logpdf(self, u: float) -> float:
        theta, log_slope = _from_line(np.array([u]), *self.marginal.ns.SUPPORT)
        density = float(self.marginal.log_density(theta)[0])
        # the ends of the number range have no mass
        return density + float(log_slope[0]) - self.top if np.isfinite(density) else -1e300

    def pdf(self, u: float) -> float:
        return float(np.exp(self.logpdf(u)))


def _quantiles(marginal: Factorised, probability: Array, support: tuple[float, float]) -> Array:
    density = _OnTheLine(marginal)
    inversion = NumericalInversePolynomial(density, center=density.mode, u_resolution=1e-11)
    return _from_line(np.asarray(inversion.ppf(probability)), *support)[0]


def _from_line(u: Any, low: float, high: float) -> tuple[Any, Any]:
    """(θ, log |dθ/du|) of a smooth map from the real line onto (low, high)."""
    with np.errstate(over="ignore", under="ignore"):
        if np.isfinite(low) and np.isfinite(high):
            return low + (high - low) * expit(u), np.log(high - low) - np.logaddexp(0, u) - np.logaddexp(0, -u)
        if np.isfinite(low):
            return low + np.exp(u), u
        if np.isfinite(high):
            return high - np.exp(u), u
        return u, np.zeros_like(u)


def class_name(family: str) -> str:
    """The name of a family's class: "inverse_gaussian" is InverseGaussian."""
    return "".join(part.capitalize() for part in family.split("_"))


@cache
def distribution_class(family: str) -> type[Factorised]:
    """The class of a factorising family's distributions."""
    ns = badmm_kernels.load(family)
    arguments = ", ".join(ns.STANDARD)
    text = (
        f"{class_name(family)}({arguments}): independent coordinates θ of the {family} family.\n\n{Factorised.__doc__}"
    )
    body = {"ns": ns, "__doc__": text, "__module__": "badmm", "__signature__": _signature(ns)}
    return type(class_name(family), (Factorised,), body)


def _signature(ns: Any) -> Signature:
    return Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ns.STANDARD])
