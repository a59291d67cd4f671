"""Solves a client's problem to a stated tolerance without leaving the domain.

1. ∇L constant: one application of the map is the solution, and no evaluation. A loss taken at the mean (delta
   method): Newton's method on the mean (`badmm.clients.at_mean`); the precision follows.
2. Far from the solution, natural-gradient steps within a trust region of the Fisher metric that lower the objective.
3. Anderson(8) on the map in (m, S), with backtracking to a damped plain step where the step grows.
4. Where 3 stalls, once more from the Laplace approximation of the problem (`badmm.clients.laplace`).
5. Where that stalls, Newton's method within a trust region in (m, Cholesky factor), a convex problem for convex ℓ
   (`badmm.clients.newton`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from badmm.checks import Array, LostClientError
from badmm.clients.anderson import Anderson
from badmm.clients.at_mean import MeanSearch
from badmm.clients.charts import chart_around
from badmm.clients.coordinates import ChartedProblem
from badmm.clients.laplace import laplace
from badmm.clients.newton import newton
from badmm.clients.problem import ClientProblem, Evaluation, NotFiniteError, Slope
from badmm.clients.tolerance import FAR, LOST_RESIDUAL, ROUNDINGS, SMALL, STALLED, Tolerance
from badmm.families.distributions import Distribution, Gaussian
from badmm.families.family import Natural
from badmm.families.gaussian import GaussianFamily

ANDERSON_ITERATIONS = 40
"""Evaluations after which mixing is given up for Newton's method."""
RADIUS = 10.0
"""The length, in the same unit, that failing steps of natural-gradient descent come down to quickly."""
LONGEST = 1e3
"""The length of a first step that takes the whole curvature into the precision: one of Newton's, but not from where a
loss is e¹⁰⁰."""
NEAR = 1e-2
"""A residual below this is close enough to start Newton's method from."""
CONTRACTS = 0.5
"""Residuals that have always fallen by at least this factor foretell the next one."""
STALLS = 12
"""Mixed steps in a row that do not halve the residual."""
SLOWER = 3.0
"""The bound on a residual over what is foretold; of 4,320 problems the largest ratio was 2.5."""
Point = tuple[Natural, Distribution]
Tried = tuple[Evaluation, Array | None]
"""A point that was evaluated, and the step of the map there."""
DETOUR = 2.0
"""No displacement is longer than this times the steps that led there, in posterior standard deviations of each."""


@dataclass(frozen=True)
class ClientSolution:
    """λ_k, the residual it was solved to, the evaluations of the client it took, and what happened.

    A residual that is foretold and not evaluated is reported as a bound, `SLOWER` times as large.
    `inexact` is the residual where more evaluations would lower it, 0 at the absolute tolerance or the rounding floor.
    """

    natural: Natural
    residual: float
    evaluations: int
    events: tuple[str, ...] = ()
    inexact: float = 0.0


def solve_client(problem: ClientProblem, tolerance: Tolerance, start: Slope | None = None) -> ClientSolution:
    """λ_k of one client to the tolerance, from `start` (default: its evaluation at λ_g).

    Raises `LostClientError` where no solution is found and `ClientError` for what the client does wrong. Not reaching
    the tolerance within the evaluations that it allows is no error but an event of the solution.
    """
    if problem.bound.constant is not None:
        return _linear(problem)
    with problem.family.trial_points():  # what is returned is checked again by the server's step
        return _search(problem, tolerance, start)


def _search(problem: ClientProblem, tolerance: Tolerance, start: Slope | None) -> ClientSolution:
    at = _first(problem) if start is None else start
    if not problem.bound.sees_covariance and isinstance(problem.family, GaussianFamily):
        by_mean = MeanSearch(problem, tolerance, at)
        if (found := by_mean.run()) is not None:
            inexact = found.residual if found.early else 0.0
            return ClientSolution(found.natural, found.residual, problem.evaluations, (), inexact)
        at = by_mean.known or at
    at = at if isinstance(at, Evaluation) else problem.evaluate(at.natural, at.posterior)
    search = _Search(problem, tolerance, at)
    name = f"client {problem.bound.index}"
    events: list[str] = []
    if not search.solved():
        search.mix(search.descend())
    if not search.solved():
        search.restart()
    if not search.solved():
        events.append(f"{name}: Newton fallback after {problem.evaluations} evaluations")
        search.polish()
    if not search.solved():
        if search.residual > LOST_RESIDUAL:
            _check_lost(problem, search, tolerance)
        events.append(
            f"{name}: stopped after {problem.evaluations} evaluations at residual "
            f"{search.residual:.2g} (tolerance {tolerance.absolute:.2g})"
        )
    inexact = 0.0 if search.solved() and not search.stopped_early else search.residual
    return ClientSolution(search.natural, search.residual, problem.evaluations, tuple(events), inexact)


def _linear(problem: ClientProblem) -> ClientSolution:
    constant = problem.bound.constant
    assert constant is not None
    slots = problem.family.ns.client_map(problem.natural_global, problem.dual, constant, problem.rho)
    natural = problem.family.parameter([np.asarray(slot) for slot in slots])
    if not problem.family.in_domain(natural):
        raise _lost(problem, "its solution is outside the domain")
    return ClientSolution(natural, 0.0, 0)


def _check_lost(problem: ClientProblem, search: _Search, tolerance: Tolerance) -> None:
    """Raise `LostClientError` with the reason, unless the best point is one that the rounds can go on from.

    That is so at the rounding floor, where a Newton step in units of the loss's own curvature is short, and where the
    evaluations ran out while the objective still fell: the next round has a better λ_g.
    """
    found = f"no solution found (residual {search.residual:.2g})"
    if problem.bound.required_rho(problem.natural_global, problem.dual) >= problem.rho:
        raise _lost(problem, found)
    if problem.evaluations >= tolerance.max_evaluations:
        return
    chart = chart_around(problem, search.best)
    slope = chart.equations(np.zeros(chart.size), search.best)
    left = float(np.sqrt(slope @ chart.precondition(slope)))
    if min(left, search.residual / ROUNDINGS - problem.rounding(search.best)) > LOST_RESIDUAL:
        raise _lost(problem, f"{found}: no step lowers its objective, whose loss and derivatives do not fit each other")


def _lost(problem: ClientProblem, what: str) -> LostClientError:
    needed = problem.bound.required_rho(problem.natural_global, problem.dual)
    return LostClientError(problem.bound.index, what, problem.rho, needed)


def _first(problem: ClientProblem) -> Evaluation:
    """The client at λ_g; a loss that overflows there is met with ever larger precisions."""
    natural = problem.natural_global
    try:
        return problem.evaluate(natural)
    except NotFiniteError:
        q = problem.family.posterior(natural)
        if not isinstance(problem.family, GaussianFamily) or not problem.family.precision_varies:
            raise
        assert isinstance(q, Gaussian)
        for power in (1, 2, 4, 8, 16, 32, 64, 128):
            at = problem.try_at(Gaussian.of(q.mean, q.operator.scaled(10.0**power)))
            if at is not None:
                return at
        raise


class _Search:
    """The iterate, the best one so far, and the two ways to the next."""

    def __init__(self, problem: ClientProblem, tolerance: Tolerance, at: Evaluation) -> None:
        self.problem, self.tolerance, self.max_evaluations = problem, tolerance, tolerance.max_evaluations
        self.coordinates = ChartedProblem(problem, at.posterior)
        self.best, self.residual = at, np.inf
        self._solved = self.stopped_early = False
        self._foreseen: Natural | None = None
        self.anchor = at
        self.target: Natural = at.natural
        self.goal: Distribution | None  # of the last step
        # the last residual, the factors by which residuals fell near the solution, the length of the steps from λ_g
        self.latest = np.inf
        self.rates: list[float] = []
        self._path = 0.0 if at.natural is problem.natural_global else np.inf
        self._note(at)

    def _note(self, at: Evaluation) -> None:
        """Remember the best point, and whether it meets the tolerance."""
        self.target = self.problem.target(at)
        before, self.latest = self.latest, self.problem.residual(at, self.target)
        residual = self.latest
        if 0 < before < np.inf:
            self.rates.append(residual / min(FAR, before))  # what is far is measured in another metric
        if residual < self.residual or not np.isfinite(self.residual):
            self.best, self.residual = at, residual
        if not self._solved and self._meets(at, residual, residual > STALLED * before):
            self.best, self.residual, self._solved = at, residual, True
        self._path += residual

    def solved(self) -> bool:
        """Whether some point met the tolerance; `best` is the first that did."""
        return self._solved

    @property
    def natural(self) -> Natural:
        """The solution: the best point, or the one after it that needed no evaluation."""
        return self.best.natural if self._foreseen is None else self._foreseen

    def _meets(self, at: Evaluation, residual: float, stalled: bool) -> bool:
        if residual <= self.tolerance.absolute:
            return True
        self.stopped_early = self._is_early(residual, at, at.natural)
        if self.stopped_early:
            return True
        suspect = residual < (LOST_RESIDUAL if stalled else SMALL)
        return suspect and residual <= ROUNDINGS * self.problem.rounding(at)

    def _is_early(self, residual: float, at: Evaluation, natural: Natural) -> bool:
        """Whether a residual at λ is within the relative tolerance of its displacement, in the metric of a point near.

        A displacement counts up to `FAR`: the next rounds begin with what is left. The steps that led there bound it,
        and cost nothing to add up.
        """
        relative = self.tolerance.relative
        if residual > relative * min(FAR, DETOUR * self._path):
            return False
        return residual <= relative * self.problem.displacement(at, natural)

    def _foresees(self, at: Evaluation, point: Point | None) -> bool:
        """Whether the next point, from the one just noted, is within the tolerance by the fall of the residuals."""
        if point is None or not self.rates or not (rate := max(self.rates)) <= CONTRACTS:
            return False
        natural, _ = point
        if not self._is_early(rate * self.latest, at, natural):
            return False
        self.best, self.residual, self._foreseen = at, min(1.0, SLOWER * rate) * self.latest, natural
        self._solved = self.stopped_early = True
        return True

    def _step(self, at: Evaluation) -> Array | None:
        """map(x) − x at the point last noted."""
        self.goal = self.coordinates.goal(at, self.target)
        if self.goal is None:
            return None
        return self.coordinates.vector(self.goal) - self.coordinates.vector(at.posterior)

    def restart(self) -> None:
        """Anderson mixing from the Laplace approximation, where the family has one."""
        q = self.anchor.posterior
        if self.problem.evaluations >= self.max_evaluations or not isinstance(q, Gaussian):
            return
        at = laplace(self.problem, q, self.max_evaluations)
        if at is None:
            return
        self.coordinates = ChartedProblem(self.problem, at.posterior)
        self.anchor, self._path = at, np.inf
        self._note(at)
        self.rates.clear()
        self.mix(at)

    def descend(self) -> Evaluation:
        """Steps of the map that lower L − ⟨η, μ⟩ + ρ KL until the residual is small; the last point, just noted.

        No step is longer than the region's radius, in posterior standard deviations of where it starts, after the first
        one that fails; from far beyond RADIUS it comes down to that by square roots.
        """
        at, radius = self.best, LONGEST if self.problem.family.keeps_curvature else RADIUS
        value = self.problem.objective(at) if self.latest > FAR else np.nan
        limit = min(ANDERSON_ITERATIONS, self.max_evaluations)
        while self.latest > FAR and np.isfinite(value) and self.problem.evaluations < limit and radius > NEAR:
            f = self._step(at)
            if f is None:
                break
            size = float(np.linalg.norm(f))
            t = min(1.0, radius / size)
            point = self.coordinates.point(self.coordinates.vector(at.posterior) + t * f)
            there = None if point is None else self.problem.try_evaluate(*point)
            if there is None or not (lower := self.problem.objective(there)) < value:
                radius = min(0.25 * t * size, float(np.sqrt(RADIUS * t * size)))
                continue
            at, value = there, lower
            self.coordinates = ChartedProblem(self.problem, at.posterior)
            if t < 1.0:
                radius *= 4.0
            self._note(at)
            if self.solved():
                break
            self._keep_near_rate()
        self.anchor = at
        return at

    def _keep_near_rate(self) -> None:
        """Forget by what factors residuals fell, but for the last one where it led near: the next is smaller."""
        self.rates = self.rates[-1:] if self.latest <= FAR else []

    def mix(self, at: Evaluation) -> None:
        """Anderson mixing from a point just noted, until the tolerance or where it stalls."""
        limit = min(self.problem.evaluations + ANDERSON_ITERATIONS, self.max_evaluations)
        f = self._step(at)
        if f is None:
            return
        mixing, stalled = Anderson(len(f)), 0
        while f is not None and not self.solved() and self.problem.evaluations < limit and stalled < STALLS:
            x = self.coordinates.vector(at.posterior)
            mixed = mixing.propose(x, f)
            point = self.coordinates.point(mixed) if mixing.remembers else self._point(self.goal)
            if self._foresees(at, point):
                return
            before, moved = self.residual, self._try(point)
            if not self._accepts(moved, float(np.linalg.norm(f))):
                mixing.reset()
                moved = self._damped(x, f, limit)
            if moved is None:
                return
            at, f = moved
            # at the rounding floor the residual stops falling; Newton's method would not lower it either
            stalled = stalled + 1 if self.residual >= 0.5 * before else 0

    def _damped(self, x: Array, f: Array, limit: int) -> Tried | None:
        """A shortened step of the map that leads to a shorter one; None where none does."""
        damping, size = 1.0, float(np.linalg.norm(f))
        while damping > 1e-2 and self.problem.evaluations < limit:
            tried = self._try(self.coordinates.point(x + damping * f))
            if self._accepts(tried, size * (1 - 0.1 * damping)):
                return tried
            damping *= 0.4
        return None

    def _accepts(self, tried: Tried | None, size: float) -> bool:
        """Whether the point met the tolerance or its step of the map is shorter than `size`."""
        if tried is None or self.solved():
            return self.solved()
        return tried[1] is not None and float(np.linalg.norm(tried[1])) < size

    def _point(self, goal: Distribution | None) -> Point | None:
        return None if goal is None else (self.problem.family.natural(goal), goal)

    def _try(self, point: Point | None) -> Tried | None:
        at = None if point is None else self.problem.try_evaluate(*point)
        if at is None:
            return None
        self._note(at)
        return at, self._step(at)

    def polish(self) -> None:
        """Newton's method until the tolerance, the limit, or no further decrease."""
        start = self.best if self.residual < NEAR else self.anchor
        self._path = np.inf
        for at in newton(self.problem, start, self.max_evaluations):
            self._note(at)
            if self.solved():
                return
