"""A progress line for a run: round, gap, objective and an estimate of the time left."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_WINDOW = 8
"""Rounds over which the gap's rate of decrease is measured."""


class RunProgress:
    """Shown while a run goes on; `update` is called after every round with its record."""

    def __init__(self, console: Console, rounds: int, tol: float, done: int = 0) -> None:
        self.rounds, self.tol = rounds, tol
        self.started, self.first = time.monotonic(), done
        self.gaps: list[float] = []
        self.bar = Progress(
            TextColumn("round {task.completed:>4.0f} of at most {task.total:.0f}"),
            BarColumn(bar_width=20),
            TextColumn("gap {task.fields[gap]}  objective {task.fields[objective]}  left {task.fields[left]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,  # a log file gets the closing lines only
        )
        self.task = self.bar.add_task("run", total=rounds, completed=done, gap="-", objective="-", left="-")

    def __enter__(self) -> RunProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, record: Any) -> None:
        """Show one round."""
        self.gaps.append(record.gap)
        objective = "-" if record.objective is None else f"{record.objective:.8g}"
        left = f"{self.seconds_left(record.round):.0f} s"
        self.bar.update(self.task, completed=record.round, gap=f"{record.gap:.1e}", objective=objective, left=left)

    def seconds_left(self, done: int) -> float:
        """Time to the tolerance at the gap's recent rate, and at most to the last round."""
        a_round = (time.monotonic() - self.started) / max(1, done - self.first)
        left = float(self.rounds - done)
        recent = [gap for gap in self.gaps[-_WINDOW:] if gap > 0]
        if len(recent) > 1 and recent[-1] < recent[0] and self.tol > 0:
            rate = math.log(recent[0] / recent[-1]) / (len(recent) - 1)
            left = min(left, max(0.0, math.log(recent[-1] / self.tol) / rate))
        return left * a_round
