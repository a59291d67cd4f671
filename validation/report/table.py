"""The terminal's view of a run: one line a group while it runs, then a table, then every miss in full."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from ..check import Check
from ..suite import Job, JobResult

PIPE_WIDTH = 140  # columns, where there is no terminal to ask
HEADERS = ("family", "type", "group", "checks", "worst error", "tolerance", "error/tol.", "result")


@dataclass(frozen=True)
class Row:
    """One family, type and group: how many checks, and the one that came closest to its tolerance."""

    family: str
    dtype: str
    group: str
    count: int
    misses: int
    worst: Check

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        verdict = "pass" if self.misses == 0 else f"{self.misses} MISSED"
        worst = self.worst
        numbers = f"{worst.value:.3g}", f"{worst.tolerance:.3g}", f"{closeness(worst):.3g}"
        return (self.family, self.dtype, self.group, str(self.count), *numbers, verdict)


def closeness(check: Check) -> float:
    """The error as a fraction of its tolerance; misses sort above everything that passed."""
    if check.tolerance > 0.0:
        return check.value / check.tolerance
    return 0.0 if check.passed else float("inf")


def summary(checks: Iterable[Check]) -> list[Row]:
    """Checks by family, type and group, in the order in which they first appear."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for item in checks:
        groups.setdefault((item.family, item.dtype, item.group), []).append(item)
    return [
        Row(*key, len(items), sum(not item.passed for item in items), max(items, key=closeness))
        for key, items in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def plain(rows: Sequence[Row], stream: TextIO) -> None:
    """The table in aligned columns."""
    lines = [HEADERS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADERS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=stream)


def coloured(rows: Sequence[Row], stream: TextIO) -> bool:
    """The table by rich, if it is installed; says whether it was."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return False
    table = Table(title="validation", header_style="bold")
    for header in HEADERS:
        right = header not in ("family", "type", "group", "result")
        table.add_column(header, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        cells = row.cells()
        style = "green" if row.misses == 0 else "bold red"
        table.add_row(*cells[:-1], f"[{style}]{cells[-1]}[/{style}]")
    Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH).print(table)
    return True


def show(checks: Sequence[Check], seconds: float, stream: TextIO | None = None) -> None:
    """The table, the misses and the count."""
    out = stream or sys.stdout
    rows = summary(checks)
    if not coloured(rows, out):
        plain(rows, out)
    missed = [item for item in checks if not item.passed]
    for item in missed:
        print(f"MISS {item.family} {item.dtype} [{item.group}] {item.name}: {item.value:.4g} "
              f"(tolerance {item.tolerance:.4g}) {item.detail}", file=out)  # fmt: skip
    print(f"{len(checks)} checks, {len(missed)} missed, {seconds:.1f} s", file=out)


@contextmanager
def progress(total: int, stream: TextIO | None = None) -> Iterator[ProgressLine]:
    """A line that is rewritten on a terminal and not written at all elsewhere."""
    line = ProgressLine(total, stream or sys.stderr)
    try:
        yield line
    finally:
        line.close()


class ProgressLine:
    """Counts jobs; on a terminal it shows the one that runs and what has missed so far."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.total, self.stream = total, stream
        self.done, self.missed = 0, 0
        self.live = stream.isatty()

    def starts(self, job: Job) -> None:
        """A job begins."""
        if self.live:
            text = f"[{self.done + 1}/{self.total}] {job.family} {job.dtype} {job.name}"
            text += f"  ({self.missed} missed)" if self.missed else ""
            self.stream.write(f"\r\x1b[K{text[:118]}")
            self.stream.flush()

    def ends(self, result: JobResult) -> None:
        """A job is done."""
        self.done += 1
        self.missed += sum(not item.passed for item in result.checks)

    def close(self) -> None:
        """Leave the terminal's line empty."""
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
