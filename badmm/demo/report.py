"""Tables and verdict of the demo; `as_dict` has the same results for a JSON file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from badmm.demo.contest import CONTENDERS, TARGETS, Contender
from badmm.demo.outcome import FAMILIES, SplitOutcome, spread
from badmm.experiments.predictive import Scores

WAYS = ("averaged", "plug-in")
NOTES = (
    "(1/3): reached on one split of three. The posteriors are those of classic ADMM (isotropic, with the prior's "
    "precision) and of Bayesian ADMM (diagonal, full). ECE: expected calibration error; for regression the mean error "
    "of interval coverage."
)


def convergence_table(outcomes: Sequence[SplitOutcome], rounds: int) -> Table:
    """Return rounds and megabytes to every target per contender on one problem, mean ± sd over the splits."""
    problem = outcomes[0].problem
    table = Table(
        title=f"{problem.title}: {len(problem.clients)} clients, θ in R^{problem.dimension}", title_justify="left"
    )
    table.add_column("method", no_wrap=True)
    for what in ("rounds", "MB"):
        for target in TARGETS:
            table.add_column(f"{what} to\n{_short(target)}", justify="right", no_wrap=True)
    best = {
        (what, target): min((_mean(outcomes, contender, what, target) for contender in CONTENDERS), default=math.inf)
        for what in ("rounds", "bytes")
        for target in TARGETS
    }
    for contender in CONTENDERS:
        cells = []
        for what in ("rounds", "bytes"):
            for target in TARGETS:
                text = _cell(outcomes, contender, what, target, rounds)
                won = _mean(outcomes, contender, what, target) == best[what, target] < math.inf
                cells.append(Text(text, style="bold green" if won else "red" if text.startswith(">") else ""))
        table.add_row(contender.label, *cells)
    table.caption = _remarks(outcomes)
    table.caption_justify = "left"
    return table


def score_table(outcomes: Sequence[SplitOutcome]) -> Table:
    """Return held-out scores of every family's posterior, averaged over it and plugged in at its mean."""
    problem = outcomes[0].problem
    quality = "RMSE" if problem.noise_variance is not None else "accuracy"
    table = Table(title=f"{problem.title}: predictions on {len(problem.test_y)} held-out rows", title_justify="left")
    for column in ("posterior", "prediction", quality, "NLL (nats/row)", "ECE"):
        table.add_column(column, justify="left" if column in ("posterior", "prediction") else "right")
    for family in FAMILIES.values():
        for way in WAYS:
            scores = [outcome.scores[family, way] for outcome in outcomes if (family, way) in outcome.scores]
            if scores:
                table.add_row(family, way, *_score_cells(scores))
    return table


def verdict(results: Sequence[Sequence[SplitOutcome]], rounds: int) -> Group:
    """Return the best contenders by rounds and bytes, the contenders that miss the smallest target, and calibration."""
    tight, loose = min(TARGETS), max(TARGETS)
    lines = []
    for what in ("rounds", "bytes"):
        for target in (loose, tight):
            winners = [_winner(outcomes, what, target, rounds) for outcomes in results]
            lines.append(f"Fewest {what} to {_short(target)}: {'; '.join(winners)}.")
    for outcomes in results:
        lost = [c.label for c in CONTENDERS if _mean(outcomes, c, "rounds", tight) == math.inf]
        if lost:
            lines.append(f"{_name(outcomes)}: not at {_short(tight)} after {rounds} rounds: {'; '.join(lost)}.")
    lines += [f"{_name(outcomes)}: {_calibration_line(outcomes)}" for outcomes in results]
    return Group(*(Text(f"- {line}") for line in lines))


def as_dict(outcomes: Sequence[SplitOutcome]) -> list[dict[str, Any]]:
    """Return all traces and scores, for a JSON file."""
    return [
        {
            "problem": outcome.problem.name,
            "seed": outcome.seed,
            "contenders": {
                label: {
                    "rho": trace.rho,
                    "distance": trace.distance,
                    "bytes": trace.bytes_sent,
                    "failure": trace.failure,
                }
                for label, trace in outcome.traces.items()
            },
            "scores": {f"{family}, {way}": scores.as_dict() for (family, way), scores in outcome.scores.items()},
        }
        for outcome in outcomes
    ]


def _name(outcomes: Sequence[SplitOutcome]) -> str:
    return outcomes[0].problem.name.replace("_", " ")


def _winner(outcomes: Sequence[SplitOutcome], what: str, target: float, rounds: int) -> str:
    """Return the contenders with the smallest mean."""
    means = {contender: _mean(outcomes, contender, what, target) for contender in CONTENDERS}
    smallest = min(means.values())
    if smallest == math.inf:
        return f"{_name(outcomes)}: none"
    first = [contender for contender in CONTENDERS if means[contender] == smallest]
    unit = "" if what == "rounds" else " MB"
    labels = " = ".join(contender.label for contender in first)
    return f"{_name(outcomes)}: {labels} ({_cell(outcomes, first[0], what, target, rounds)}{unit})"


def _values(outcomes: Sequence[SplitOutcome], contender: Contender, what: str, target: float) -> list[float | None]:
    traces = [outcome.traces[contender.label] for outcome in outcomes]
    if what == "rounds":
        return [trace.rounds_to(target) for trace in traces]
    return [None if (count := trace.bytes_to(target)) is None else count / 1e6 for trace in traces]


def _mean(outcomes: Sequence[SplitOutcome], contender: Contender, what: str, target: float) -> float:
    mean, _, missing = spread(_values(outcomes, contender, what, target))
    return math.inf if missing else mean


def _cell(outcomes: Sequence[SplitOutcome], contender: Contender, what: str, target: float, rounds: int) -> str:
    values = _values(outcomes, contender, what, target)
    mean, deviation, missing = spread(values)
    if missing == len(values):
        return f"> {rounds}" if what == "rounds" else "> all"
    digits = 1 if what == "rounds" else 3
    if missing:
        return f"{mean:.{digits}f} ({len(values) - missing}/{len(values)})"
    return _with_deviation(mean, deviation, len(values), digits)


def _with_deviation(mean: float, deviation: float, count: int, digits: int) -> str:
    return f"{mean:.{digits}f}±{deviation:.{digits}f}" if count > 1 else f"{mean:.{digits}f}"


def _short(target: float) -> str:
    return f"{target:.0e}".replace("e-0", "e-")


def _remarks(outcomes: Sequence[SplitOutcome]) -> str:
    """Return the tuned penalties, and the contenders that stopped early with reasons."""
    remarks = []
    for contender in CONTENDERS:
        traces = [outcome.traces[contender.label] for outcome in outcomes]
        if contender.tuned:
            remarks.append(f"{contender.label}: ρ = {traces[0].rho:g}")
        failed = [trace.failure for trace in traces if trace.failure]
        if failed:
            remarks.append(f"{contender.label} stopped on {len(failed)} of {len(traces)} splits: {failed[0]}")
    return "\n".join(remarks)


def _score_cells(scores: Sequence[Scores]) -> list[str]:
    quality = [score.rmse if score.accuracy is None else score.accuracy for score in scores]
    cells = []
    for values, digits in ((quality, 3), ([s.nll for s in scores], 3), ([s.ece for s in scores], 3)):
        mean, deviation, _ = spread(values)
        cells.append(_with_deviation(mean, deviation, len(scores), digits))
    return cells


def _calibration_line(outcomes: Sequence[SplitOutcome]) -> str:
    mean = {
        key: spread([outcome.scores[key].nll for outcome in outcomes])[0]
        for key in ((family, way) for family in FAMILIES.values() for way in WAYS)
        if all(key in outcome.scores for outcome in outcomes)
    }
    if not mean:
        return "no posterior to score."
    best, worst = min(mean, key=lambda key: mean[key]), max(mean, key=lambda key: mean[key])
    text = f"best NLL {mean[best]:.3f} ({best[0]}, {best[1]}), worst {mean[worst]:.3f} ({worst[0]}, {worst[1]})"
    if ("full", "averaged") in mean:
        change = mean["full", "averaged"] - mean["full", "plug-in"]
        text += f"; averaging over the full posterior changes the NLL of its mean by {change:+.3f}"
    return text + "."
