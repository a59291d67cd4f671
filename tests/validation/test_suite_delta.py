"""The bound on the defaults under the delta method; `python -m benchmarks.rounds` holds it on the whole suite."""

import pytest

from validation.problems import problem
from validation.runs.rounds import DELTA, DELTA_VARIANTS, SuiteOutcome, run, within_bound

CHEAP = ("logistic/cancer/uneven-8", "logistic/separable/feature-10", "poisson/diabetes/iid-5")


@pytest.mark.parametrize("name", CHEAP)
def test_defaults_need_no_more_rounds_than_the_best_of_newton_pvi_and_mixing(name: str) -> None:
    outcomes = {variant.title: run(problem(name), DELTA, variant, cap=14) for variant in DELTA_VARIANTS}
    first = outcomes["defaults"]
    assert first.failure == ""
    assert first.margin > 0
    assert within_bound(outcomes), {title: found.rounds for title, found in outcomes.items()}


@pytest.mark.parametrize(("rounds", "met"), [((5, 8), True), ((5, 9), False), ((6, 8), False), ((5, None), False)])
def test_the_bound_is_that_of_the_best_at_either_level(rounds: tuple[int | None, int | None], met: bool) -> None:
    others = {"Newton": (9, 10), "PVI, γ = 1": (5, None), "mixing": (6, 8)}
    outcomes = {title: SuiteOutcome("p", DELTA, title, counts) for title, counts in others.items()}
    assert within_bound(outcomes | {"defaults": SuiteOutcome("p", DELTA, "defaults", rounds)}) is met
