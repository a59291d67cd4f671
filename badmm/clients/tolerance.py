"""When a client's problem counts as solved."""

from __future__ import annotations

from dataclasses import dataclass

FAR = 1.0
"""A residual above this, in posterior standard deviations, is where mixing extrapolates too far to help."""
LOST_RESIDUAL = 1e-3
"""A residual above this after all attempts counts as no solution."""
ROUNDINGS = 10
"""A residual of so many rounding errors of the map cannot be told from 0."""
SMALL, STALLED = 1e-6, 0.1
"""Rounding errors are looked for below this residual, or where it falls by less than this factor."""


@dataclass(frozen=True)
class Tolerance:
    """When a client's problem counts as solved: at a residual of `relative` times the client's own displacement.

    The residual ‖map(λ) − λ‖ and the displacement ‖λ − λ_g‖, of which at most 1 counts, are in posterior standard
    deviations (Fisher metric at λ).
    The displacements are what is left of the gap, so that the tolerance tightens as the rounds converge, and the fixed
    point is that of exact clients. A residual that the fall of the last ones foretells counts, so that the last point
    needs no evaluation. `absolute` ends the search in any case, as do `max_evaluations`.
    """

    absolute: float = 1e-12
    relative: float = 0.0
    max_evaluations: int = 400
