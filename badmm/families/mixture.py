"""Families of two variables a coordinate, the first Gaussian given the second: their first variable's distribution.

q(x) = ∫ N(x; m(τ), 1/s(τ)) q(τ) dτ, a mixture of Gaussians over panels of τ; m, s and log q(τ) are the family's
kernels `conditional` and `log_marginal`.
"""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import toms748
from scipy.special import logsumexp, ndtr

from badmm.checks import Array
from badmm.families.factorised import Factorised
from badmm.families.inversion import NODES, WEIGHTS, Inversion, from_line, panels

DEPTH = 150.0
"""Nats below τ's mode where the mixture is cut: a density of x is right down to e⁻¹⁵⁰ of its top."""
FURTHEST = 1e300
"""The largest |x| that a quantile is looked for at."""


class Mixture(Factorised):
    """q(x) = Π_j q(x_j) over P independent coordinates, the second variable of each integrated out.

    `second` is that variable's marginal, by coordinate. Raises `ValueError` unless every parameter is in its domain and
    they are of one shape, `TypeError` for other names.
    """

    def _given(self, j: int, second: Array) -> tuple[Array, Array]:
        """Mean and precision (n,) of x_j given τ_j (n,); no numbers where τ is at an end of the number range."""
        inside = (np.abs(second) > np.finfo(float).tiny) & (np.abs(second) < np.finfo(float).max)
        safe = np.where(inside, second, from_line(0.0, *self._bounds(1))[0])
        found = self.ns.conditional(safe, *self._repeated(j, second), **self.fixed)
        mean, precision = (np.where(inside, value, np.nan) for value in found)
        return mean, precision

    def _conditional_variance(self, j: int, second: Array) -> Array:
        return np.asarray(1.0 / self._given(j, second)[1])

    def _repeated(self, j: int, like: Array) -> list[Array]:
        """λ of one coordinate at every place of an array."""
        return [np.full(like.shape, slot[j]) for slot in self.natural]

    @cached_property
    def second(self) -> list[Inversion]:
        """The marginal of τ, by coordinate."""

        def log_density(j: int, tau: Array) -> Array:
            low, high = self._bounds(1)
            inside = (tau > low) & (tau < high) & np.isfinite(tau)
            safe = np.where(inside, tau, from_line(0.0, low, high)[0])
            value = np.asarray(self.ns.log_marginal(safe, *self._repeated(j, tau), **self.fixed)[0])
            return np.where(inside, value, -np.inf)

        return [Inversion(partial(log_density, j), self._bounds(1)) for j in range(self.dim)]

    @cached_property
    def _parts(self) -> list[tuple[Array, Array, Array]]:
        """(log weights, means, precisions) of the mixture, by coordinate."""
        found = []
        for j, marginal in enumerate(self.second):
            edges = panels(marginal.log_height, marginal.mode, DEPTH)
            half = 0.5 * np.diff(edges)
            u = ((edges[:-1] + half)[:, None] + half[:, None] * NODES).ravel()
            weights = np.log((half[:, None] * WEIGHTS).ravel()) + marginal.log_height(u)
            means, precisions = self._given(j, from_line(u, *self._bounds(1))[0])
            kept = (weights > -FURTHEST) & np.isfinite(means) & (precisions > 0)
            found.append((weights[kept] - logsumexp(weights[kept]), means[kept], precisions[kept]))
        return found

    @property
    def mean(self) -> Array:
        """E[m(τ)] (P,): the mean of x where it exists, else its center."""
        return np.array([float(np.exp(weights) @ means) for weights, means, _ in self._parts])

    @property
    def variance(self) -> Array:
        """E[1/s(τ)] + Var[m(τ)] (P,), infinite where it does not exist."""
        found = []
        for j, (marginal, (weights, means, _)) in enumerate(zip(self.second, self._parts, strict=True)):
            spread = marginal.expectation(partial(self._conditional_variance, j))
            share = np.exp(weights)
            found.append(np.inf if spread is None else spread + float(share @ (means - share @ means) ** 2))
        return np.array(found)

    def log_density(self, theta: ArrayLike) -> Array:
        """log q(x_j) for x (P,) or (n, P)."""
        points = np.broadcast_arrays(np.asarray(theta, dtype=np.float64), self._standard[0])[0]
        columns = []
        for j, (weights, means, precisions) in enumerate(self._parts):
            gap = points[..., j, None] - means
            normal = 0.5 * (np.log(precisions / (2.0 * np.pi)) - precisions * gap**2)
            columns.append(logsumexp(weights + normal, axis=-1))
        return np.stack(columns, axis=-1)

    def quantile(self, probability: ArrayLike) -> Array:
        """x (..., P) with P(x_j' ≤ x_j) = probability in (0, 1) (...)."""
        asked = np.asarray(probability, dtype=np.float64)
        return np.stack([self._quantiles(j, asked.ravel()).reshape(asked.shape) for j in range(self.dim)], axis=-1)

    def _quantiles(self, j: int, asked: Array) -> Array:
        weights, means, precisions = self._parts[j]
        share, roots = np.exp(weights), np.sqrt(precisions)
        center, scale = float(share @ means), float(1.0 / (share @ roots))

        def miss(z: float, p: float) -> float:
            below = float(share @ ndtr(roots * (center + scale * z - means)))
            return below - p if p <= 0.5 else (1.0 - p) - float(share @ ndtr(roots * (means - center - scale * z)))

        found = []
        for p in asked:
            reach = 1.0
            while miss(-reach, p) > 0 or miss(reach, p) < 0:
                reach *= 4.0
                if reach > FURTHEST:
                    break
            ends = miss(-reach, p), miss(reach, p)
            found.append(toms748(miss, -reach, reach, (p,), xtol=1e-300, rtol=1e-14) if ends[0] < 0 < ends[1] else
                         -reach if ends[0] >= 0 else reach)  # fmt: skip
        return center + scale * np.array(found)

    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws of x (count, P), with PCG64 under this seed."""
        return self.sample_jointly(count, seed)[0]

    def sample_jointly(self, count: int, seed: int = 0) -> tuple[Array, Array]:
        """`count` draws of (x, τ), each (count, P): τ by inversion of uniforms, x given it."""
        rng = np.random.default_rng(seed)
        uniform, noise = rng.random((count, self.dim)), rng.standard_normal((count, self.dim))
        tau = np.stack([q.quantile(uniform[:, j]) for j, q in enumerate(self.second)], axis=-1)
        given = [self._given(j, np.maximum(tau[:, j], np.finfo(float).tiny)) for j in range(self.dim)]
        columns = [mean + noise[:, j] / np.sqrt(precision) for j, (mean, precision) in enumerate(given)]
        return np.stack(columns, axis=-1), tau
