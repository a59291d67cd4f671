"""Solves a client's problem to a stated tolerance without leaving the domain.

1. ∇L constant: one application of the map is the solution.
2. Anderson(8) on the map in (m, S), with backtracking to a damped plain step where the step grows.
3. Where 2 stalls, once more from the Laplace approximation of the problem (`badmm.clients.laplace`).
4. Where that stalls, Newton's method in (m, Cholesky factor), a convex problem for convex ℓ (`badmm.clients.newton`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from badmm.checks import Array, LostClientError
from badmm.clients.anderson import Anderson
from badmm.clients.coordinates import Coordinates
from badmm.clients.laplace import laplace
from badmm.clients.newton import newton
from badmm.clients.problem import ClientProblem, Evaluation, NotFiniteError
from badmm.families.distributions import Gaussian
from badmm.families.family import Natural
from badmm.families.gaussian import GaussianFamily

ANDERSON_ITERATIONS = 40
"""Evaluations after which mixing is given up for Newton's method."""
NEAR = 1e-2
"""A relative residual below this is close enough to start Newton's method from."""
LOST_RESIDUAL = 1e-3
"""A relative residual above this after all attempts counts as no solution."""


@dataclass(frozen=True)
class ClientSolution:
    """λ_k, the relative residual it was solved to, the evaluations of the client it took, and what happened."""

    natural: Natural
    residual: float
    iterations: int
    events: tuple[str, ...] = ()


def solve_client(
    problem: ClientProblem, tol: float, max_iterations: int, start: Natural | None = None
) -> ClientSolution:
    """λ_k of one client to a relative residual of `tol`, from `start` (default λ_g).

    Raises `LostClientError` where no solution is found and `ClientError` for what the client does wrong. Not reaching
    `tol` within `max_iterations` evaluations is no error but an event of the solution.
    """
    if problem.bound.constant is not None:
        return _linear(problem)
    with warnings.catch_warnings():
        # trial points may be nearly singular; what is returned is checked again by the server's step
        warnings.filterwarnings("ignore", message=".*nearly singular", category=RuntimeWarning)
        return _search(problem, tol, max_iterations, start)


def _search(problem: ClientProblem, tol: float, max_iterations: int, start: Natural | None) -> ClientSolution:
    at = _first(problem, start)
    search = _Search(problem, tol, max_iterations, at)
    events: list[str] = []
    if not search.mix() and not search.restart():
        events.append(f"client {problem.bound.index}: Newton fallback after {problem.evaluations} evaluations")
        search.polish()
    if search.residual > tol:
        if search.residual > LOST_RESIDUAL:
            raise _lost(problem, f"no solution found (residual {search.residual:.2g})")
        events.append(
            f"client {problem.bound.index}: stopped after {problem.evaluations} evaluations at residual "
            f"{search.residual:.2g} (tolerance {tol:.2g})"
        )
    return ClientSolution(search.best.natural, search.residual, problem.evaluations, tuple(events))


def _linear(problem: ClientProblem) -> ClientSolution:
    constant = problem.bound.constant
    assert constant is not None
    slots = problem.family.ns.client_map(problem.natural_global, problem.dual, constant, problem.rho)
    natural = problem.family.parameter([np.asarray(slot) for slot in slots])
    if not problem.family.in_domain(natural):
        raise _lost(problem, "its solution is outside the domain")
    return ClientSolution(natural, 0.0, 1)


def _lost(problem: ClientProblem, what: str) -> LostClientError:
    needed = problem.bound.required_rho(problem.natural_global, problem.dual)
    return LostClientError(problem.bound.index, what, problem.rho, needed)


def _first(problem: ClientProblem, start: Natural | None) -> Evaluation:
    """The client where it starts; a loss that overflows there is met with ever larger precisions."""
    natural = problem.natural_global if start is None else start
    try:
        return problem.evaluate(natural)
    except NotFiniteError:
        q = problem.family.posterior(natural)
        if not isinstance(problem.family, GaussianFamily) or not problem.family.precision_varies:
            raise
        assert isinstance(q, Gaussian)
        for power in range(1, 13):
            sharper = Gaussian.of(q.mean, q.operator.scaled(10.0**power))
            at = problem.try_evaluate(problem.family.natural(sharper), sharper)
            if at is not None:
                return at
        raise


class _Search:
    """The iterate, the best one so far, and the two ways to the next."""

    def __init__(self, problem: ClientProblem, tol: float, max_iterations: int, at: Evaluation) -> None:
        self.problem, self.tol, self.max_iterations = problem, tol, max_iterations
        self.coordinates = Coordinates(problem, at.posterior)
        self.best, self.residual = at, np.inf
        self.start, self.anchor = at.posterior, at
        self.target: Natural = at.natural
        self._note(at)

    def _note(self, at: Evaluation) -> bool:
        """Remember the best point; True at the tolerance."""
        target = self.problem.target(at)
        residual = self.problem.residual(at, target)
        self.target = target
        if residual < self.residual:
            self.best, self.residual = at, residual
        return residual <= self.tol

    def _step(self, at: Evaluation) -> Array | None:
        """map(x) − x at the point last noted."""
        goal = self.coordinates.step(at, self.target)
        return None if goal is None else goal - self.coordinates.vector(at.posterior)

    def restart(self) -> bool:
        """Anderson mixing from the Laplace approximation; True at the tolerance."""
        q = self.start
        at = laplace(self.problem, q, self.max_iterations) if isinstance(q, Gaussian) else None
        if at is None:
            return False
        self.coordinates = Coordinates(self.problem, at.posterior)
        self.anchor = at
        self._note(at)
        return self.mix(at)

    def mix(self, at: Evaluation | None = None) -> bool:
        """Anderson mixing from a point just noted (default the best); True at the tolerance, False where it stalls."""
        at = self.best if at is None else at
        if self.residual <= self.tol:
            return True
        limit = min(self.problem.evaluations + ANDERSON_ITERATIONS, self.max_iterations)
        mixing = Anderson()
        f = self._step(at)
        stalled = 0
        while f is not None and self.problem.evaluations < limit:
            before = self.residual
            moved = self._advance(at, f, mixing, limit)
            if moved is None:
                return False
            at, f = moved
            if self.residual <= self.tol:
                return True
            # at the rounding floor the residual stops falling; Newton's method would not lower it either
            stalled = stalled + 1 if self.residual >= 0.5 * before else 0
            if stalled >= 12:
                return False
        return False

    def _advance(
        self, at: Evaluation, f: Array, mixing: Anderson, limit: int
    ) -> tuple[Evaluation, Array | None] | None:
        """The mixed point if its step is shorter, else a damped plain step; None where neither helps."""
        x = self.coordinates.vector(at.posterior)
        size = float(np.linalg.norm(f))
        tried = self._try(mixing.propose(x, f))
        if tried is not None and (self.residual <= self.tol or self._shorter(tried[1], size)):
            return tried
        mixing.reset()
        damping = 1.0
        while damping > 1e-2 and self.problem.evaluations < limit:
            tried = self._try(x + damping * f)
            if tried is not None and (self.residual <= self.tol or self._shorter(tried[1], size * (1 - 0.1 * damping))):
                return tried
            damping *= 0.4
        return None

    @staticmethod
    def _shorter(f: Array | None, size: float) -> bool:
        return f is not None and float(np.linalg.norm(f)) < size

    def _try(self, x: Array) -> tuple[Evaluation, Array | None] | None:
        point = self.coordinates.point(x)
        at = None if point is None else self.problem.try_evaluate(*point)
        if at is None:
            return None
        self._note(at)
        return at, self._step(at)

    def polish(self) -> None:
        """Newton's method until the tolerance, the limit, or no further decrease."""
        start = self.best if self.residual < NEAR else self.anchor
        for at in newton(self.problem, start, self.max_iterations):
            if self._note(at):
                return
