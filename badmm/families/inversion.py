"""One-dimensional densities of any support: moments, quantiles and draws by Gauss–Legendre panels on the real line.

θ = θ(u) maps the line onto the support. Panels halve towards the mode, 20 times on either side of it, so that a tail
4·10⁵ standard deviations long (a gamma of shape 10⁻⁴, in log θ) and the peak are resolved alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from badmm.checks import Array

LEVELS, PARTS = 20, 6
"""Halvings of a side, and panels per halving."""
DEPTH = 45.0
"""Nats below the mode where a tail is cut: e⁻⁴⁵ is beyond double precision."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)
NEWTON_STEPS = 8
SETTLED = 1e-12
"""A Newton step below this share of its panel is the last."""
LOST = 1e-12
"""Less mass than this beyond the number range is rounding."""


def from_line(u: Any, low: float, high: float) -> tuple[Any, Any]:
    """(θ, log |dθ/du|) of a smooth map from the real line onto (low, high)."""
    with np.errstate(over="ignore", under="ignore"):
        if np.isfinite(low) and np.isfinite(high):
            return low + (high - low) * expit(u), np.log(high - low) - np.logaddexp(0, u) - np.logaddexp(0, -u)
        if np.isfinite(low):
            return low + np.exp(u), u
        if np.isfinite(high):
            return high - np.exp(u), u
        return u, np.zeros_like(u)


class Inversion:
    """A density with one mode in u, given by its logarithm at θ (n,), which is −∞ outside the support.

    Mass where θ leaves the number range (log θ < −745 of a gamma of shape 10⁻²) is counted at the end where u = −∞.
    """

    def __init__(self, log_density: Callable[[Array], Array], support: tuple[float, float]) -> None:
        self._given, self.support = log_density, support
        self.mode = float(minimize_scalar(lambda u: -self._log(np.array([u]))[0]).x)
        self.top = float(self._log(np.array([self.mode]))[0])

    def _log(self, u: Array) -> Array:
        theta, slope = from_line(u, *self.support)
        density = self._given(theta)
        # an end of the number range has no mass
        return np.where(np.isfinite(density), density + np.where(np.isfinite(density), slope, 0.0), -1e300)

    def density(self, u: Array) -> Array:
        """The density of u over its value at the mode."""
        return np.asarray(np.exp(self._log(u.ravel()) - self.top)).reshape(u.shape)

    @cached_property
    def edges(self) -> Array:
        """Panels' ends, ascending."""
        lengths: Array = 2.0 ** np.arange(-40.0, 21.0)
        rising = []
        for side in (-1.0, 1.0):
            low = self._log(self.mode + side * lengths) < self.top - DEPTH
            reach = lengths[int(np.argmax(low)) if low.any() else -1]
            halved = reach * 2.0 ** -np.arange(LEVELS, -1.0, -1.0)
            steps = np.linspace(np.concatenate([[0.0], halved[:-1]]), halved, PARTS, endpoint=False).T.ravel()
            rising.append(self.mode + side * np.append(steps, reach))
        return np.concatenate([rising[0][::-1], rising[1][1:]])

    def _rule(self, start: Array, end: Array) -> tuple[Array, Array]:
        """Nodes (n, 10) between start and end, and weight · density there."""
        half = 0.5 * (end - start)
        u = (start + half)[:, None] + half[:, None] * NODES
        return u, half[:, None] * WEIGHTS * self.density(u)

    @cached_property
    def _panels(self) -> tuple[Array, Array]:
        return self._rule(self.edges[:-1], self.edges[1:])

    @cached_property
    def _below(self) -> Array:
        """P(u' ≤ u) at the panels' ends."""
        _, mass = self._panels
        inside = np.exp(self.top) * np.cumsum(mass.sum(axis=1))
        return np.append(0.0, inside) + max(0.0, 1.0 - float(inside[-1]))

    def moment(self, function: Callable[[Array], Array]) -> float:
        """E[f(θ)]."""
        u, mass = self._panels
        inside = mass > 0
        theta, _ = from_line(u[inside], *self.support)
        end, _ = from_line(self.edges[:1], *self.support)
        total = np.exp(self.top) * float(np.sum(mass[inside] * function(theta)))
        return total + float(self._below[0] * function(end)[0]) if self._below[0] > LOST else total

    def quantile(self, probability: Array) -> Array:
        """θ (n,) with P(θ' ≤ θ) = probability (n,), by Newton's method inside a panel."""
        falling = self.support[0] == -np.inf and np.isfinite(self.support[1])  # θ falls in u
        wanted = 1.0 - probability if falling else probability
        below, scale = self._below, np.exp(-self.top)
        panel = np.clip(np.searchsorted(below, wanted, side="right") - 1, 0, len(below) - 2)
        start, end = self.edges[panel], self.edges[panel + 1]
        missing = np.maximum(wanted - below[panel], 0.0) * scale
        whole = np.maximum((below[panel + 1] - below[panel]) * scale, np.finfo(float).tiny)
        u = start + np.minimum(missing / whole, 1.0) * (end - start)
        with np.errstate(over="ignore"):
            for _ in range(NEWTON_STEPS):
                excess = self._rule(start, u)[1].sum(axis=1) - missing
                before, u = u, np.clip(u - excess / np.maximum(self.density(u), np.finfo(float).tiny), start, end)
                if (np.abs(u - before) <= SETTLED * (end - start)).all():
                    break
        return np.asarray(from_line(u, *self.support)[0])
