"""The defaults on every problem of the suite: 1e-8 within 25 rounds under the full family, 1e-3 within 40 under the
diagonal one, never outside the condition on the way; and the solutions that this is measured by.

A run ends where it has to come; docs/rounds.md has the rounds after that, of every problem under every family. The
central solutions are computed once.
"""

import pytest

from badmm.data.tables import SPLITS
from validation.oracles.central import FAMILIES, central
from validation.problems import SuiteProblem, problem, problems, stress_problems
from validation.runs.rounds import LIMITS, VARIANTS, SolverSettings, run, within_limits

pytestmark = pytest.mark.slow

DEFAULTS = VARIANTS[0]
CLIENTS = (5, 10, 20, 50)


def families_of(case: SuiteProblem) -> tuple[str, ...]:
    """Both families, or one where problems differ in split and number of clients alone: on the board of these two, each
    family has the squares of one colour, and so every split, every number and every second pair."""
    data, _, last = case.name.rpartition("/")
    split, _, _ = last.rpartition("-")
    if data not in ("logistic/cancer", "softmax/digits") or split not in SPLITS or case.num_clients not in CLIENTS:
        return tuple(LIMITS)
    return (tuple(LIMITS)[(SPLITS.index(split) + CLIENTS.index(case.num_clients)) % 2],)


CASES = [(case, family) for case in problems() for family in families_of(case)]


def test_the_first_variant_is_the_defaults() -> None:
    assert DEFAULTS.settings(7) == {"method": "bayes_admm"}


@pytest.mark.parametrize("family", FAMILIES)
def test_solutions_are_stationary(family: str) -> None:
    for case in (*problems(), *stress_problems()):
        assert central(case.name, family).residual <= 1e-12, case.name


@pytest.mark.parametrize(("case", "family"), [pytest.param(*pair, id=f"{pair[0].name}-{pair[1]}") for pair in CASES])
def test_the_defaults_reach_the_solution(case: SuiteProblem, family: str) -> None:
    level, limit = LIMITS[family]
    outcome = run(case, family, DEFAULTS, cap=limit, goal=level)
    assert outcome.failure == ""
    assert outcome.margin > 0
    assert within_limits(outcome), f"distance {outcome.distances[-1]:.2e} after {limit} rounds"


def test_every_split_and_number_of_clients_meets_every_family() -> None:
    met = {(family, *case.name.rpartition("/")[2].rpartition("-")[::2]) for case, family in CASES}
    for family in LIMITS:
        assert {split for f, split, _ in met if f == family} >= {*SPLITS}
        assert {int(clients) for f, split, clients in met if f == family and split in SPLITS} == {*CLIENTS}
    assert {case.name for case, _ in CASES} == {p.name for p in problems()}


@pytest.mark.parametrize("case", [pytest.param(p, id=p.name) for p in stress_problems()])
def test_full_family_withstands_the_stress_problems(case: SuiteProblem) -> None:
    assert within_limits(run(case, "full_gaussian", DEFAULTS, cap=25))


def test_the_theorems_step_sizes_lose_a_client() -> None:
    """What the defaults are there to avoid: the condition is violated, seen in the margin, and the run breaks off."""
    outcome = run(problems()[0], "full_gaussian", SolverSettings("", theorem=True, damping=1.0), cap=25)
    assert outcome.margin < 0
    assert "lost in round 2" in outcome.failure
    assert not within_limits(outcome)


def test_singular_trial_points_are_no_errors() -> None:
    """A client without a solution is searched to the edge of the domain, and reported as lost."""
    outcome = run(problem("poisson/cancer/label-10"), "full_gaussian", SolverSettings("", theorem=True, damping=1.0))
    assert outcome.margin < 0
    assert "lost in round" in outcome.failure


def test_a_capped_run_misses() -> None:
    outcome = run(problems()[0], "full_gaussian", DEFAULTS, cap=2)
    assert outcome.rounds == (None, None)
    assert len(outcome.distances) == 2
    assert not within_limits(outcome)
