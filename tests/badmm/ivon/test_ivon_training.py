"""badmm.ivon.IVON trains a small network as well as Adam does: the benchmark's own run, every setting chosen in it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from badmm.experiments.summary import interval
from benchmarks import ivon_training
from benchmarks.ivon_training import CONTENDERS, Run, differences


@pytest.fixture(scope="module")
def runs() -> Mapping[str, Sequence[Run]]:
    """Three optimizers, five seeds, twelve settings each."""
    return ivon_training.measure(5)


def test_it_trains_digits_as_well_as_adam(runs: Mapping[str, Sequence[Run]]) -> None:
    """By the 95% intervals of the paired differences it loses less than half a percent, to AdamW less than one."""
    for other, margin in (("Adam", 0.005), ("AdamW", 0.01)):
        assert interval(differences(runs, other, "accuracy"))[1] > -margin, other
    assert np.mean([run.scores["accuracy"] for run in runs["IVON"]]) > 0.97


def test_its_averaged_nll_is_not_above_theirs(runs: Mapping[str, Sequence[Run]]) -> None:
    """By the 95% intervals of the paired differences, to 0.03; the page says which mean is the lower one here."""
    for other in ("Adam", "AdamW"):
        assert interval(differences(runs, other, "nll"))[2] < 0.03, other


def test_the_budgets_are_equal_and_all_of_them_reported(runs: Mapping[str, Sequence[Run]]) -> None:
    assert len({len(contender.grid) for contender in CONTENDERS.values()}) == 1
    for name, own in runs.items():
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
