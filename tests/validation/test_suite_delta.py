"""The bound on the defaults under the delta method: run on the tightest problems of the suite, and read for all of them
from docs/rounds.md, which `python -m benchmarks.rounds` writes."""

import re
from pathlib import Path

import pytest

from validation.problems import problem, problems
from validation.runs.rounds import DELTA, DELTA_VARIANTS, SuiteOutcome, run, within_bound

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "rounds.md"
TIGHTEST = ("logistic/cancer/iid-50", "logistic/separable/feature-10", "softmax/digits/one-class-10")


@pytest.mark.parametrize("name", TIGHTEST)
def test_defaults_need_no_more_rounds_than_the_best_of_newton_pvi_and_mixing(name: str) -> None:
    outcomes = {variant.title: run(problem(name), DELTA, variant, cap=14) for variant in DELTA_VARIANTS}
    first = outcomes["defaults"]
    assert first.failure == ""
    assert first.margin > 0
    assert within_bound(outcomes), {title: found.rounds for title, found in outcomes.items()}
    assert {title: found.rounds for title, found in outcomes.items()} == measured()[name]


def measured() -> dict[str, dict[str, tuple[int | None, ...]]]:
    """By problem of the suite and variant, the rounds in the document; None for a level that is not reached."""
    _, _, section = DOCUMENT.read_text(encoding="utf-8").partition(f"### {DELTA}\n")
    section = section.partition("\n## ")[0]
    titles = [v.title for v in DELTA_VARIANTS]
    found = {}
    for name, cells in re.findall(r"^\| (\w+/\S+) \| (.*) \|$", section, flags=re.MULTILINE):
        counts = [
            re.findall(r"\d+|–", c) if re.match(r"[\d–]+ / [\d–]+$", c) else ["–"] * 2 for c in cells.split(" | ")
        ]
        rounds = [tuple(None if n == "–" else int(n) for n in pair) for pair in counts]
        found[name] = dict(zip(titles, rounds, strict=True))
    return found


def test_the_document_has_the_bound_on_every_problem_of_the_suite() -> None:
    found = measured()
    assert found.keys() == {p.name for p in problems()} and len(found) == 30
    for name, rounds in found.items():
        outcomes = {title: SuiteOutcome(name, DELTA, title, counts) for title, counts in rounds.items()}
        assert None not in rounds["defaults"] and within_bound(outcomes), (name, rounds)


@pytest.mark.parametrize(("rounds", "met"), [((5, 8), True), ((5, 9), False), ((6, 8), False), ((5, None), False)])
def test_the_bound_is_that_of_the_best_at_either_level(rounds: tuple[int | None, int | None], met: bool) -> None:
    others = {"Newton": (9, 10), "PVI, γ = 1": (5, None), "mixing": (6, 8)}
    outcomes = {title: SuiteOutcome("p", DELTA, title, counts) for title, counts in others.items()}
    assert within_bound(outcomes | {"defaults": SuiteOutcome("p", DELTA, "defaults", rounds)}) is met
