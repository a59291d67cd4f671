"""Report on the terminal: a progress line during the run, then a table, then one line per missed check."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from ..check import Check
from ..suite import Section, SectionResult

PIPE_WIDTH = 140  # columns, if the output is not a terminal
HEADERS = ("family", "type", "group", "checks", "worst error", "tolerance", "error/tol.", "result")


@dataclass(frozen=True)
class Row:
    """One family, dtype and group: numbers of checks and misses, and the check of the largest error over tolerance."""

    family: str
    dtype: str
    group: str
    count: int
    misses: int
    worst: Check

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        verdict = "pass" if self.misses == 0 else f"{self.misses} MISSED"
        worst = self.worst
        numbers = f"{worst.value:.3g}", f"{worst.tolerance:.3g}", f"{closeness(worst):.3g}"
        return (self.family, self.dtype, self.group, str(self.count), *numbers, verdict)


def closeness(check: Check) -> float:
    """Return error / tolerance; a miss of tolerance 0 is infinite, so that misses sort above passes."""
    if check.tolerance > 0.0:
        return check.value / check.tolerance
    return 0.0 if check.passed else float("inf")


def summary(checks: Iterable[Check]) -> list[Row]:
    """Return one row per family, dtype and group, sorted by name."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for item in checks:
        groups.setdefault((item.family, item.dtype, item.group), []).append(item)
    return [
        Row(*key, len(items), sum(not item.passed for item in items), max(items, key=closeness))
        for key, items in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def plain(rows: Sequence[Row], stream: TextIO) -> None:
    """Print the table in aligned columns."""
    lines = [HEADERS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADERS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=stream)


def coloured(rows: Sequence[Row], stream: TextIO) -> bool:
    """Print the table with rich; return False if rich is not installed."""
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
    """Print the table, the missed checks and the counts."""
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
    """Yield a progress line, which is written only to a terminal."""
    line = ProgressLine(total, stream or sys.stderr)
    try:
        yield line
    finally:
        line.close()


class ProgressLine:
    """Counter of sections; on a terminal it shows the running section and the number of missed checks."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.total, self.stream = total, stream
        self.done, self.missed = 0, 0
        self.live = stream.isatty()

    def start(self, section: Section) -> None:
        """Show a section that starts."""
        if self.live:
            text = f"[{self.done + 1}/{self.total}] {section.family} {section.dtype} {section.name}"
            text += f"  ({self.missed} missed)" if self.missed else ""
            self.stream.write(f"\r\x1b[K{text[:118]}")
            self.stream.flush()

    def finish(self, result: SectionResult) -> None:
        """Count a finished section."""
        self.done += 1
        self.missed += sum(not item.passed for item in result.checks)

    def close(self) -> None:
        """Clear the terminal's line."""
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
