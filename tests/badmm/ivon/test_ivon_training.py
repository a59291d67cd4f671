"""badmm.ivon.IVON trains a small network as well as Adam does: the benchmark's own runs at the settings on its page.

The search over twelve settings per seed is repeated for one seed; the page has those that it chose for all of them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from badmm.experiments.summary import interval
from benchmarks import ivon_training
from benchmarks.ivon_training import CONTENDERS, Run, Setting, differences

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "ivon-training.md").read_text(encoding="utf-8")
SEEDS = 5


def on_the_page(name: str, seed: int) -> tuple[Setting, dict[str, float]]:
    """The setting chosen for a seed, and its scores, as the page has them."""
    row = rf"\| {name}, seed {seed} \| ([\d.]+) \| {CONTENDERS[name].other} ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|"
    found = re.search(row, PAGE)
    assert found, f"{name}, seed {seed}"
    step, other, accuracy, nll = map(float, found.groups())
    return (step, other), {"accuracy": accuracy / 100, "nll": nll}


@pytest.fixture(scope="module")
def runs() -> Mapping[str, Sequence[Run]]:
    """Three optimizers, five seeds, each at the setting that the page says was chosen."""
    points, found = ivon_training.digits(), {}
    for name, contender in CONTENDERS.items():
        chosen = [on_the_page(name, seed)[0] for seed in range(SEEDS)]
        found[name] = [
            ivon_training.tested(contender, setting, seed, SEEDS, points) for seed, setting in enumerate(chosen)
        ]
    return {name: [Run({}, (0.0, 0.0), *scores) for scores in own] for name, own in found.items()}


def test_it_trains_digits_as_well_as_adam(runs: Mapping[str, Sequence[Run]]) -> None:
    """By the 95% intervals of the paired differences it loses less than half a percent, to AdamW less than one."""
    for other, margin in (("Adam", 0.005), ("AdamW", 0.01)):
        assert interval(differences(runs, other, "accuracy"))[1] > -margin, other
    assert np.mean([run.scores["accuracy"] for run in runs["IVON"]]) > 0.97


def test_its_averaged_nll_is_not_above_theirs(runs: Mapping[str, Sequence[Run]]) -> None:
    """By the 95% intervals of the paired differences, to 0.03; the page says which mean is the lower one here."""
    for other in ("Adam", "AdamW"):
        assert interval(differences(runs, other, "nll"))[2] < 0.03, other


def test_the_page_has_these_scores(runs: Mapping[str, Sequence[Run]]) -> None:
    """To what another processor's rounding may change: four of 360 points, 0.02 nats."""
    for name, own in runs.items():
        for seed, run in enumerate(own):
            _, scores = on_the_page(name, seed)
            assert run.scores["accuracy"] == pytest.approx(scores["accuracy"], abs=0.012), (name, seed)
            assert run.scores["nll"] == pytest.approx(scores["nll"], abs=0.02), (name, seed)


def test_the_setting_on_the_page_is_the_searchs() -> None:
    """IVON's of seed 0: the lowest NLL on the validation part, or one that rounding does not tell from it."""
    validation = ivon_training.searched(CONTENDERS["IVON"], 0, SEEDS, ivon_training.digits())
    assert list(validation) == CONTENDERS["IVON"].grid
    assert validation[on_the_page("IVON", 0)[0]] <= min(validation.values()) + 0.002


def test_the_budgets_are_equal_and_all_of_them_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({len(contender.grid) for contender in CONTENDERS.values()}) == 1
    draw = np.random.default_rng(0)
    monkeypatch.setattr(ivon_training, "fit", lambda *_: ({"nll": float(draw.uniform())}, {}))
    for name, own in ivon_training.measure(SEEDS).items():
        assert len(own) == SEEDS
        for run in own:
            assert list(run.validation) == CONTENDERS[name].grid
            assert run.validation[run.chosen] == min(run.validation.values())
        table = ivon_training.whole_grid(name, own)
        assert sum(len(row) - 1 for row in table.rows) == len(CONTENDERS[name].grid)


def test_test_points_are_seen_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every point is tested once over the seeds, and never among those that its seed trains or chooses on."""
    points, tested, seen = ivon_training.digits(), [], list[set[bytes]]()

    def fit(contender, setting, seed, train, test):
        seen.append({image.numpy().tobytes() for image in train.images})
        tested.append([image.numpy().tobytes() for image in test.images])
        return {"nll": 0.0}, {}

    monkeypatch.setattr(ivon_training, "fit", fit)
    final = []
    for seed in range(5):
        ivon_training.play(CONTENDERS["IVON"], seed, 5, points)
        final += tested[-1]
        own = set(tested[-1])
        assert not any(own & train for train in seen)
        assert not any(own & set(held) for held in tested[:-1])
        seen.clear()
        tested.clear()
    assert sorted(final) == sorted(image.numpy().tobytes() for image in points.images)
