"""A progress line for federated runs: which run, its round, its scores, and the time left over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from badmm.networks.noise import loudest


class RoundsProgress:
    """Shown while rounds are played; a log file gets the closing lines of `say` only."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.completed:.0f} of {task.total:.0f} rounds"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[what]}"),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("rounds", total=total, what="")

    def __enter__(self) -> RoundsProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def skip(self, rounds: int) -> None:
        """Rounds that an earlier run has played; they do not count towards the speed."""
        self.bar.update(self.task, total=(self.bar.tasks[0].total or 0) - rounds)

    def update(self, record: Mapping[str, Any]) -> None:
        """Show one round."""
        lost = f"  {len(record['excluded'])} clients left out" if record["excluded"] else ""
        where = f"{record['label']}, seed {record['seed']}, round {record['round']}"
        scores = f"accuracy {record['accuracy']:.4f}, NLL {record['nll']:.4f}"
        worst = loudest(record["noise"])
        noise = f", noise {worst[1]:.2f} of the weights in {worst[0]}" if worst else ""
        self.bar.update(self.task, advance=1, what=f"{where}: {scores}{noise}{lost}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, highlight=False)
