"""One-dimensional densities of any support: moments, quantiles and draws by Gauss–Legendre panels on the real line.

θ = θ(u) maps the line onto the support. Panels halve towards the mode, 20 times on either side of it, so that a tail
4·10⁵ standard deviations long (a gamma of shape 10⁻⁴, in log θ) and the peak are resolved alike. A moment has panels of
its own beside the density's, towards the mode of its integrand: where that does not fall the moment is infinite, and a
heavy tail is not cut where the density alone is negligible. A moment is divided by the mass that the same nodes find,
where the panels hold all of it: the rounding of a log-density of 10⁹ nats cancels.
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
COARSE = np.sinh(np.linspace(-8.0, 8.0, 321))
"""Where a mode is looked for first: up to ±1490, closer together near 0."""
REACHES: Array = 2.0 ** np.arange(-40.0, 21.0)
"""Lengths of a side that are tried."""
FEW, LARGEST_COUNT = 4096.0, 2.0**50
"""Values that are listed without a search for the mode, and the largest one that is looked for."""
FIRST_REACH = 16.0
"""Counts on either side of the mode that are looked at first."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)
NEWTON_STEPS = 8
FALLEN, LAST = 36.0, 700.0
"""Nats that a moment's integrand has fallen at the last u with e^±u in the number range: e⁻³⁶ is its relative rest."""
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


def panels(log_height: Callable[[Array], Array], mode: float, depth: float = DEPTH) -> Array:
    """Ends of panels, ascending, that halve towards the mode and reach to where the height is e^−depth of its top."""
    top = float(log_height(np.array([mode]))[0])
    rising = []
    for side in (-1.0, 1.0):
        low = log_height(mode + side * REACHES) < top - depth
        reach = REACHES[int(np.argmax(low)) if low.any() else -1]
        halved = reach * 2.0 ** -np.arange(LEVELS, -1.0, -1.0)
        steps = np.linspace(np.concatenate([[0.0], halved[:-1]]), halved, PARTS, endpoint=False).T.ravel()
        rising.append(mode + side * np.append(steps, reach))
    return np.concatenate([rising[0][::-1], rising[1][1:]])


def mode_of(log_height: Callable[[Array], Array]) -> float:
    """The maximum of a function of the line with one mode: coarsely on both sides of 0, then by Brent's method."""
    at = int(np.argmax(log_height(COARSE)))
    low, high = COARSE[max(at - 1, 0)], COARSE[min(at + 1, len(COARSE) - 1)]
    found = minimize_scalar(lambda u: -log_height(np.array([u]))[0], bounds=(low, high), options={"xatol": 1e-9})
    return float(found.x)


class Inversion:
    """A density with one mode in u, given by its logarithm at θ (n,), which is −∞ outside the support.

    Mass where θ leaves the number range (log θ < −745 of a gamma of shape 10⁻²) is counted at the end where u = −∞.
    """

    def __init__(self, log_density: Callable[[Array], Array], support: tuple[float, float]) -> None:
        self._given, self.support = log_density, support
        self.mode = mode_of(self.log_height)
        self.top = float(self.log_height(np.array([self.mode]))[0])

    def log_height(self, u: Array) -> Array:
        """The log-density of u."""
        theta, slope = from_line(u, *self.support)
        density = self._given(theta)
        # an end of the number range has no mass
        return np.where(np.isfinite(density), density + np.where(np.isfinite(density), slope, 0.0), -1e300)

    def density(self, u: Array) -> Array:
        """The density of u over its value at the mode."""
        return np.asarray(np.exp(self.log_height(u.ravel()) - self.top)).reshape(u.shape)

    @cached_property
    def edges(self) -> Array:
        """Panels' ends, ascending."""
        return panels(self.log_height, self.mode)

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

    def moment(self, power: int, center: float = 0.0) -> float | None:
        """E[(θ − center)ᵏ]; None where its integrand does not fall within the number range."""
        return self.expectation(
            lambda theta: (theta - center) ** power, lambda theta: power * np.log(np.abs(theta - center))
        )

    def expectation(
        self, function: Callable[[Array], Array], log_size: Callable[[Array], Array] | None = None
    ) -> float | None:
        """E[function(θ)], `log_size` its log |function| where that is known beyond the number range; None where its
        integrand does not fall within it."""
        size = log_size or (lambda theta: np.log(np.abs(function(theta))))

        def log_height(u: Array) -> Array:
            theta, _ = from_line(u, *self.support)
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                value = size(theta) + self.log_height(u)
            return np.where(np.isfinite(value), value, -1e300)

        mode = mode_of(log_height)
        edges = panels(log_height, mode)
        top = float(log_height(np.array([mode]))[0])
        if (log_height(np.clip(edges[[0, -1]], -LAST, LAST)) > top - FALLEN).any():
            return None
        edges = np.unique(np.concatenate([edges, self.edges]))
        half = 0.5 * np.diff(edges)
        u = (edges[:-1] + half)[:, None] + half[:, None] * NODES
        theta, _ = from_line(u.ravel(), *self.support)
        with np.errstate(over="ignore", invalid="ignore"):
            density = np.exp(self.log_height(u.ravel()))
            terms = function(theta) * density
        terms = np.where(np.isfinite(terms), terms, 0.0).reshape(u.shape)
        weights = half[:, None] * WEIGHTS
        mass = float(np.sum(weights * density.reshape(u.shape))) if self._is_whole else 1.0
        return float(np.sum(weights * terms)) / mass

    @cached_property
    def _is_whole(self) -> bool:
        """Whether the panels hold all of the mass, so that what it lacks of 1 is rounding of the log-density."""
        return bool((self.log_height(np.clip(self.edges[[0, -1]], -LAST, LAST)) < self.top - FALLEN).all())

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


class Counting:
    """A discrete distribution on the whole numbers of [low, high], given by its log-probabilities at θ (n,): sums."""

    def __init__(self, log_probability: Callable[[Array], Array], support: tuple[float, float]) -> None:
        self._given, self.support = log_probability, support

    @cached_property
    def values(self) -> tuple[Array, Array]:
        """(θ, P(θ)), the θ that matter, ascending."""
        low, high = self.support
        if high - low < FEW:
            theta = np.arange(low, high + 1.0)
        else:
            middle = self._mode()
            reach = [self._reach(middle, side) for side in (-1.0, 1.0)]
            theta = np.arange(max(low, middle - reach[0]), min(high, middle + reach[1]) + 1.0)
        mass = np.exp(self._given(theta))
        return theta, mass / mass.sum()

    def _mode(self) -> float:
        """The most probable θ: the log-probability rises before it and falls after it.

        Doubling bounds it, as far out what neighbours differ by is less than rounding; halving finds it.
        """
        low, high = self._bound(-1.0), self._bound(1.0)
        while low < high:
            middle = np.floor(0.5 * (low + high))
            here, after = self._given(np.array([middle, middle + 1.0]))
            low, high = (middle + 1.0, high) if after > here else (low, middle)
        return float(low)

    def _bound(self, side: float) -> float:
        """A θ beyond which the log-probability does not rise, by doubling from the θ nearest to 0."""
        low, high = max(self.support[0], -LARGEST_COUNT), min(self.support[1], LARGEST_COUNT)
        start, step = min(max(0.0, low), high), side
        while low <= start + 2.0 * step <= high:
            here, after = self._given(start + step * np.array([1.0, 2.0]))
            if after <= here:
                break
            step *= 2.0
        return min(max(start + 2.0 * step, low), high)

    def _reach(self, middle: float, side: float) -> float:
        """How far from the mode probabilities matter."""
        top, step = self._given(np.array([middle]))[0], FIRST_REACH
        while self.support[0] <= middle + side * step <= self.support[1]:
            if self._given(np.array([middle + side * step]))[0] < top - DEPTH:
                break
            step *= 2.0
        return step

    def moment(self, power: int, center: float = 0.0) -> float:
        """E[(θ − center)ᵏ]."""
        theta, mass = self.values
        return float(np.sum(mass * (theta - center) ** power))

    def quantile(self, probability: Array) -> Array:
        """The least θ (n,) with P(θ' ≤ θ) ≥ probability (n,)."""
        theta, mass = self.values
        return np.asarray(theta[np.minimum(np.searchsorted(np.cumsum(mass), probability), len(theta) - 1)])
