"""Newton's method within a trust region on a client's objective L − ⟨η, μ⟩ + ρ KL(q‖q_g), in local charts.

Every step minimises the quadratic model by preconditioned conjugate gradients up to the region's edge (Steihaug, SIAM
J. Numer. Anal. 1983). Products with the Hessian are finite differences of the gradient, so that any client will do;
where the charts are convex and the loss is, every start leads to the solution, and elsewhere the objective falls along
directions of negative curvature too. Lengths are measured in the preconditioner, near posterior standard deviations:
no step depends on the units of θ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from badmm.checks import Array
from badmm.clients.charts import LocalChart, chart_around
from badmm.clients.problem import ClientProblem, Evaluation
from badmm.families.family import Natural

DIFFERENCE = 1e-7
"""Length of the finite difference in chart units, where the posterior has unit scale."""
PRODUCTS = 60
"""Products with the Hessian that one step may take."""
RADIUS = 10.0
"""The first region's radius."""
SHORTEST, LONGEST = 1e-9, 1e12
"""A region below the first radius holds no step that can be told from rounding; the objective that leads beyond the
second has no minimum."""
LONG = 1.0
"""Steps beyond this are judged by the objective, shorter ones by its slope at both ends, which does not cancel."""
ACCEPTED, GOOD = 0.05, 0.75
"""Shares of the predicted decrease at which a step is taken, and at which a bound one widens the region."""
ChartMaker = Callable[[ClientProblem, Evaluation], LocalChart]


@dataclass
class _Path:
    """The conjugate gradients' iterates x, with B x and ‖x‖ in the preconditioner's norm, from the origin outward."""

    points: list[Array] = field(default_factory=list)
    products: list[Array] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)

    def add(self, point: Array, product: Array, length: float) -> None:
        """The next iterate."""
        self.points.append(point)
        self.products.append(product)
        self.lengths.append(length)

    def within(self, radius: float) -> tuple[Array, Array, float]:
        """x, B x and ‖x‖ where the path leaves the radius, or its end; convex steps lengthen from one to the next."""
        if self.lengths[-1] <= radius:
            return self.points[-1], self.products[-1], self.lengths[-1]
        place = next(i for i, length in enumerate(self.lengths) if length > radius)
        before = self.lengths[place - 1]
        # lengths along a piece lie between its ends' and their interpolation: no root is needed for a trial
        t = (radius - before) / (self.lengths[place] - before)
        point, product = (
            part[place - 1] + t * (part[place] - part[place - 1]) for part in (self.points, self.products)
        )
        return point, product, radius


def newton(
    problem: ClientProblem,
    start: Evaluation,
    max_evaluations: int,
    chart_of: ChartMaker = chart_around,
    tolerance: float = 0.0,
) -> Iterator[Evaluation]:
    """Iterates from `start` with a falling objective; ends where no step lowers it or the evaluations are spent.

    It ends too where the gradient's length in M⁻¹, the Newton step's in posterior standard deviations, is at most
    `tolerance`.
    """
    at, radius = start, RADIUS
    while True:
        chart = chart_of(problem, at)
        f = chart.equations(np.zeros(chart.size), at)
        if float(f @ chart.precondition(f)) <= tolerance**2:
            return
        path = _steihaug(_products(problem, chart, f, max_evaluations), chart.precondition, f, radius)
        found = None
        while found is None:
            if not SHORTEST < radius < LONGEST or problem.evaluations >= max_evaluations:
                return
            x, product, length = path.within(radius)
            predicted = -float(x @ (f + 0.5 * product))
            there = _evaluate(problem, chart, x)
            share = (
                -1.0 if there is None else _decrease(problem, at, there, x, f, length > LONG) / max(predicted, 1e-300)
            )
            if share > ACCEPTED:
                found = there
                if share > GOOD and length >= 0.99 * radius:
                    radius *= 4.0
            if not share > 0.25:
                radius = 0.25 * length
        at = found[0]
        yield at


def _evaluate(problem: ClientProblem, chart: LocalChart, x: Array) -> tuple[Evaluation, Array] | None:
    q = chart.distribution(x)
    if q is None:
        return None
    try:
        natural: Natural = problem.family.natural(q)
    except ValueError:
        # a trial precision that is definite in exact arithmetic but not after rounding
        return None
    at = problem.try_evaluate(natural, q)
    return None if at is None else (at, chart.equations(x, at))


def _decrease(
    problem: ClientProblem, at: Evaluation, there: tuple[Evaluation, Array], x: Array, f: Array, long: bool
) -> float:
    """How far the objective over ρ falls along the step x."""
    if long:
        fall = (problem.objective(at) - problem.objective(there[0])) / problem.rho
        if np.isfinite(fall):
            return fall
    # the trapezoidal rule: exact to the third order in x
    return -0.5 * float(x @ (f + there[1]))


def _products(
    problem: ClientProblem, chart: LocalChart, f: Array, max_evaluations: int
) -> Callable[[Array], Array | None]:
    """v ↦ F′(0) v; None where it cannot be had."""
    hessian = chart.hessian
    if hessian is not None:
        return lambda v: np.asarray(hessian @ v)

    def difference(v: Array) -> Array | None:
        if problem.evaluations >= max_evaluations:
            return None
        step = DIFFERENCE / float(np.linalg.norm(v))
        there = _evaluate(problem, chart, step * v)
        return None if there is None else (there[1] - f) / step

    return difference


def _steihaug(
    product: Callable[[Array], Array | None], precondition: Callable[[Array], Array], f: Array, radius: float
) -> _Path:
    """Conjugate gradients on f·x + ½ x·B x, to the region's edge or a tolerance that tightens with the gradient.

    Lengths follow from the recurrences of Conn, Gould & Toint, Trust-Region Methods, section 7.5.1: M is never applied.
    """
    path = _Path()
    x, Bx, r = np.zeros_like(f), np.zeros_like(f), f
    path.add(x, Bx, 0.0)
    z = precondition(r)
    p = -z
    rz = float(r @ z)
    first, xx, xp, pp = rz, 0.0, 0.0, rz
    # Eisenstat & Walker 1996, in the norm of M⁻¹
    forcing = min(0.1, max(1e-4, np.sqrt(max(first, 0.0)))) ** 2
    for _ in range(min(len(f), PRODUCTS)):
        if not rz > 0 or (rz <= forcing * first and len(path.points) > 1):
            break
        Bp = product(p)
        if Bp is None:
            break
        bend = float(p @ Bp)
        edge = (-xp + np.sqrt(xp * xp + pp * max(radius * radius - xx, 0.0))) / pp
        inside = bend > 0 and rz / bend < edge
        t = rz / bend if inside else edge
        if not np.isfinite(t):
            break
        x, Bx, r = x + t * p, Bx + t * Bp, r + t * Bp
        xx += 2 * t * xp + t * t * pp
        path.add(x, Bx, float(np.sqrt(xx)))
        if not inside:
            break
        z = precondition(r)
        old, rz = rz, float(r @ z)
        beta = rz / old
        xp, pp = beta * (xp + t * pp), rz + beta * beta * pp
        p = beta * p - z
    return path
