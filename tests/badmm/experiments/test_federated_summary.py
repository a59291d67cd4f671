"""The summary against numbers computed by hand, tables that fit a terminal, pictures that show what they claim."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_1samp

from badmm.experiments import store, summary
from badmm.experiments.plots import networks as pictures
from badmm.methods import NETWORKS

LABELS = ("fedavg", "bregman_admm")


def record(index: int, accuracy: float, averaged: float | None = None) -> dict[str, Any]:
    return {
        "round": index,
        "accuracy": accuracy,
        "nll": 1.0 - accuracy,
        "ece": 0.25,
        "worst_client": accuracy / 2,
        "averaged": None if averaged is None else {"accuracy": accuracy, "nll": averaged, "ece": 0.125},
        "bytes_up": 1_000_000 * index,
        "bytes_down": 3_000_000 * index,
        "flops": 2e12 * index,
        "excluded": {"3": "gone"} if index == 2 else {},
        "noise": {} if averaged is None else {"first.weight": 0.5 / index, "last.weight": averaged},
        "events": {"coordinates_damped": 2} if index == 2 and averaged is not None else {},
        "seconds": 1.5,
    }


@pytest.fixture
def runs() -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Three seeds, two rounds; the differences after round 2 are 0.01, 0.02, 0.03."""
    first = {7: (0.5, 0.80), 8: (0.6, 0.82), 9: (0.7, 0.90)}
    second = {7: (0.4, 0.81), 8: (0.4, 0.84), 9: (0.4, 0.93)}
    return {
        "fedavg": {seed: [record(1, a), record(2, b)] for seed, (a, b) in first.items()},
        "bregman_admm": {seed: [record(1, a, 0.5), record(2, b, 0.1)] for seed, (a, b) in second.items()},
    }


def cells(grid: summary.TextTable | None) -> dict[str, list[str]]:
    assert grid is not None
    return {row[0]: list(row[1:]) for row in grid.rows}


def test_mean_and_deviation_by_round(runs: Any) -> None:
    # 80, 82, 90: mean 84, squares 16 + 4 + 36 = 56, deviation √28 = 5.2915; 81, 84, 93: mean 86, 25 + 4 + 49 = 78, √39
    assert cells(summary.by_round(runs, summary.ACCURACY, [1, 2])) == {
        "fedavg": ["60.00 ± 10.00", "84.00 ± 5.29"],
        "bregman_admm": ["40.00 ± 0.00", "86.00 ± 6.24"],
    }


def test_methods_without_a_posterior_have_no_averaged_scores(runs: Any) -> None:
    assert cells(summary.by_round(runs, summary.AVERAGED_NLL, [1, 2])) == {
        "bregman_admm": ["0.500 ± 0.000", "0.100 ± 0.000"]
    }
    assert summary.by_round({"fedavg": runs["fedavg"]}, summary.AVERAGED_NLL, [1, 2]) is None


def test_differences_are_paired_and_have_student_intervals(runs: Any) -> None:
    # differences 1, 2, 3: mean 2, deviation 1; the 97.5% quantile of t with 2 degrees of freedom is 4.302653
    assert summary.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    found = cells(summary.compared(runs, summary.ACCURACY, [2], "fedavg"))
    assert found == {"bregman_admm": ["+2.00 [-0.48, +4.48]"]}
    # of its prediction: 0.1 averaged against 0.20, 0.18, 0.10 at the mean: −0.10, −0.08, 0; deviation 0.052915
    half = 4.302653 * 0.052915 / 3**0.5
    found = cells(summary.compared(runs, summary.PREDICTION_NLL, [2], "fedavg"))
    assert found == {"bregman_admm": [f"-0.060 [{-0.06 - half:+.3f}, {-0.06 + half:+.3f}]"]}


def test_intervals_are_scipys() -> None:
    values = np.random.default_rng(0).normal(size=5)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert summary.interval(values.tolist())[1:] == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_one_seed_has_no_interval_and_equal_differences_have_width_zero(runs: Any) -> None:
    one = {label: {7: histories[7]} for label, histories in runs.items()}
    assert cells(summary.compared(one, summary.ACCURACY, [2], "fedavg")) == {"bregman_admm": ["+1.00"]}
    assert cells(summary.by_round(one, summary.ACCURACY, [2]))["fedavg"] == ["80.00"]
    assert summary.interval([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_only_seeds_that_both_have_are_paired(runs: Any) -> None:
    runs["bregman_admm"].pop(9)
    # 1 and 2: mean 1.5, deviation √½, t with one degree of freedom 12.7062
    found = cells(summary.compared(runs, summary.ACCURACY, [2], "fedavg"))
    assert found == {"bregman_admm": [f"+1.50 [{1.5 - 12.7062 * 0.5:+.2f}, {1.5 + 12.7062 * 0.5:+.2f}]"]}


def test_last_round_and_cost(runs: Any) -> None:
    assert cells(summary.calibration(runs, 2)) == {
        "fedavg": ["42.00 ± 2.65", "0.250 ± 0.000", "-", "-"],
        "bregman_admm": ["43.00 ± 3.12", "0.250 ± 0.000", "0.100 ± 0.000", "0.125 ± 0.000"],
    }
    assert cells(summary.cost(runs)) == {label: ["2", "6", "4", "3.0 ± 0.0", "3"] for label in LABELS}


def test_a_score_that_is_no_number_is_shown_as_one_that_is_none(runs: Any) -> None:
    runs["fedavg"][8][1]["nll"] = None  # the history's NaN
    assert cells(summary.by_round(runs, summary.NLL, [2]))["fedavg"] == ["nan ± nan"]


def test_what_kept_the_domain_is_counted(runs: Any) -> None:
    grid = summary.events(runs)
    assert grid is not None and list(grid.header) == ["method", "coordinates damped"]
    assert cells(grid) == {"bregman_admm": ["6"]}
    assert summary.events({"fedavg": runs["fedavg"]}) is None


def test_runs_that_stopped_are_named(runs: Any) -> None:
    del runs["fedavg"][9][1:]
    runs["fedavg"][8].clear()
    failures = [{"label": "fedavg", "seed": 9, "failure": "no client"}]
    text = summary.summarise("small", runs, [1], "bregman_admm", "test", failures).markdown()
    assert "## Could not go on" in text and "| fedavg | 9 | no client |" in text
    assert cells(summary.by_round(runs, summary.ACCURACY, [2]))["fedavg"] == ["nan ± nan"]
    assert cells(summary.cost({"fedavg": {8: []}}))["fedavg"][0] == summary.MISSING
    axes: Any = pictures.curves({"fedavg": {7: runs["fedavg"][7], 9: runs["fedavg"][9]}}, "title").axes
    assert axes[0].lines[0].get_xdata().tolist() == [1]


def test_rounds_that_were_played_are_shown() -> None:
    assert summary.rounds_to_report([10, 25, 50], 30) == [10, 25, 30]
    assert summary.rounds_to_report([10, 25, 50], 25) == [10, 25]
    assert summary.rounds_to_report([10], 5) == [5]


def test_the_markdown_names_seeds_and_reference(runs: Any) -> None:
    text = summary.summarise("small", runs, [1], "fedavg", "test").markdown()
    assert text.startswith("# small\n\n2 rounds, scored on the test images; seeds 7, 8, 9, mean ± standard deviation")
    assert "difference to fedavg, 95% t-interval" in text
    assert "| bregman_admm | 40.00 ± 0.00 | 86.00 ± 6.24 |" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    # four scores by round, two differences, calibration, cost, noise, the edge of the domain
    assert len(tables) == 10
    assert all(len({line.count("|") for line in lines}) == 1 for lines in tables)


def test_the_noisiest_layer_is_named_with_its_noise(runs: Any) -> None:
    """It is 0.5 of both layers after round 1; after round 2 last.weight has 0.1 and first.weight ¼."""
    assert cells(summary.noise_table(runs)) == {"bregman_admm": ["0.50 ± 0.00", "0.25 ± 0.00", "first.weight"]}
    assert summary.noise_table({"fedavg": runs["fedavg"]}) is None


def test_nothing_is_cut_on_eighty_columns(runs: Any) -> None:
    """Ten methods with their usual names, four rounds, three seeds; every cell is there and no line is longer."""
    names = [*NETWORKS, "ivon_admm_paper"]
    base = runs["bregman_admm"]
    many = {
        name: {seed: [{**history[1], "round": index} for index in (10, 25, 50, 100)] for seed, history in base.items()}
        for name in names
    }
    whole = summary.summarise("small", many, [10, 25, 50], "fedavg", "test")
    stream = StringIO()
    whole.print(Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in stream.getvalue()
    shown = " ".join(stream.getvalue().split())
    for grid in whole.shown:
        for row in grid.rows:
            if not any("[" in cell for cell in row):
                assert " ".join(row) in shown
    narrow = StringIO()
    whole.print(Console(file=narrow, width=40))
    assert "…" not in narrow.getvalue()


def test_curves_are_the_means_with_their_bands(runs: Any) -> None:
    axes: Any = pictures.curves(runs, "title").axes
    assert axes[0].lines[0].get_xydata().tolist() == [[1, pytest.approx(60.0)], [2, pytest.approx(84.0)]]
    band = axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(50.0)
    assert band[:, 1].max() == pytest.approx(84 + 28**0.5)
    assert axes[1].lines[0].get_xdata().tolist() == [4.0, 8.0]  # megabytes up and down


def test_diagrams_of_seeds_are_those_of_all_points_together() -> None:
    from badmm.experiments import metrics
    from tests.badmm.experiments.test_federated_metrics import held_out

    rng = np.random.default_rng(1)
    probability, labels = rng.dirichlet(np.full(3, 0.6), size=(2, 400)), rng.integers(0, 3, (2, 400))
    parts = [metrics.reliability(held_out(y), p) for p, y in zip(probability, labels, strict=True)]
    joined = pictures.pooled(parts)
    expected = metrics.reliability(held_out(labels.ravel()), probability.reshape(-1, 3))
    for name, column in expected.items():
        np.testing.assert_allclose(joined[name], column, rtol=1e-12)


def test_an_effect_needs_settings_that_differ_alone() -> None:
    both = [pictures.Point({"rho": r, "tau": t, "name": "x"}, [0.5]) for r, t in ((1.0, 0.1), (2.0, 0.2))]
    assert pictures.varied_settings(both) == []
    third = pictures.Point({"rho": 2.0, "tau": 0.1, "name": "x"}, [0.5])
    assert pictures.varied_settings([*both, third]) == ["rho", "tau"]
    assert pictures.effect({"m": both}, "accuracy", True, "title") is None


def test_the_effect_joins_what_is_best_over_other_settings() -> None:
    scores = {(1.0, 0.1): [0.5, 0.7], (1.0, 0.2): [0.1, 0.2], (2.0, 0.1): [0.3, 0.3], (2.0, 0.2): [0.8, 0.9]}
    points = [pictures.Point({"rho": rho, "tau": tau}, values) for (rho, tau), values in scores.items()]
    drawn: Any = pictures.effect({"m": points}, "accuracy", True, "title")
    assert [axis.get_xlabel() for axis in drawn.axes] == ["rho", "tau"]
    assert drawn.axes[0].lines[1].get_xydata().tolist() == [[1.0, pytest.approx(0.6)], [2.0, pytest.approx(0.85)]]
    least: Any = pictures.effect({"m": points}, "NLL", False, "title")
    assert least.axes[0].lines[1].get_xydata().tolist() == [[1.0, pytest.approx(0.15)], [2.0, pytest.approx(0.3)]]


def test_the_history_of_a_run_that_overflows_is_summarised(runs: Any, tmp_path: Path) -> None:
    history = store.History(tmp_path / "history.jsonl")
    history.append({**record(1, float("nan"), float("nan")), "bytes_up": np.int64(3)})
    assert "NaN" not in (tmp_path / "history.jsonl").read_text()
    lost = {"pvi": {7: history.read()}}
    assert cells(summary.by_round(lost, summary.AVERAGED_NLL, [1])) == {"pvi": ["nan"]}
    assert pictures.curves(lost, "title").axes
