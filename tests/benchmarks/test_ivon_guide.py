"""The figures of docs/ivon-guide.md: what a run of their benchmark measures, and that the page has a place for them."""

from pathlib import Path

import pytest

from benchmarks import ivon_guide, ivon_training

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ivon-guide.md"


def test_a_posterior_of_too_few_points_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivon_guide, "EPOCHS", 4)
    points = ivon_training.digits()
    few, enough = (ivon_guide.fit({**ivon_guide.BASE, "ess": ess}, 0, points, points) for ess in (0.001, 10.0))
    assert enough["nll"] < few["nll"] / 2
    assert few["noise"] > enough["noise"] > 0
    assert set(few) == {"nll", "accuracy", "nll at mean", "moved", "noise"}


def test_a_step_is_timed_for_every_optimizer_alike() -> None:
    found = ivon_guide.costs((8, 6, 3), batch=4, steps=5)
    assert [len(seconds) for seconds in found.values()] == [5, 5, 5]
    assert min(second for seconds in found.values() for second in seconds) > 0
    assert 0 < ivon_guide.checks_cost((8, 6, 3)) < 0.01


def test_the_page_has_the_marks_once() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [text.count(mark) for mark in ivon_guide.MARKS] == [1, 1]
    head, _, tail = text.partition(ivon_guide.MARKS[0])
    assert ivon_guide.MARKS[1] in tail and ivon_guide.MARKS[1] not in head
