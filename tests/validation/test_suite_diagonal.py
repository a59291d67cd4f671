"""The defaults on every problem of the suite, diagonal family: 1e-3 within 40 rounds, never outside the condition."""

import pytest

from validation.problems import SuiteProblem, problems
from validation.runs.rounds import VARIANTS, run, within_limits

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("problem", [pytest.param(p, id=p.name) for p in problems()])
def test_diagonal_family_reaches_the_solution(problem: SuiteProblem) -> None:
    outcome = run(problem, "diagonal_gaussian", VARIANTS[0], cap=40)
    assert outcome.failure == ""
    assert outcome.margin > 0
    assert outcome.rounds[0] is not None, f"distance {outcome.distances[-1]:.2e} after 40 rounds"
    assert within_limits(outcome)
