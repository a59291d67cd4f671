"""A progress line for runs: finished rounds, the last round in a few words, and the remaining time."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RoundsProgress:
    """Progress bar in a terminal; a log file gets the lines of `print` only."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.most = console, total
        self.bar = Progress(
            TextColumn("round {task.completed:.0f} of at most {task.fields[most]}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[what]}", markup=False),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("rounds", total=total, what="", most=total)

    def __enter__(self) -> RoundsProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def skip(self, rounds: int) -> None:
        """Subtract the rounds of an earlier run, which must not count towards the speed."""
        self.most -= rounds
        self.bar.update(self.task, total=self.most, most=self.most)

    def update(self, what: str, remaining: int | None = None) -> None:
        """Count one more round; `remaining` is the expected number of further rounds, None for the largest number."""
        done = self.bar.tasks[0].completed + 1
        total = self.most if remaining is None else min(self.most, done + remaining)
        self.bar.update(self.task, advance=1, total=total, what=what)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text)
