"""Names of sites and levels as they are written: those that stand for none, and those that differ by a slip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "nat", "null", "none"})
"""What stands for a missing name, whatever its case."""
NO_LEVELS = frozenset({"", "nan", "-nan", "NaN", "<NA>", "NaT", "NULL", "null"})
"""What programs write for a missing value: no level has such a name; Excel's errors begin with a #."""
DOUBTFUL = frozenset({"None", "none", "N/A", "n/a", "NA", "na", "?", ".", "-"})
"""Levels that may stand for a missing value, or for what they say."""


def is_missing(name: Any) -> bool:
    """Whether what should name a site or a group names nothing."""
    return str(name).strip().lower() in MISSING


def is_no_level(value: Any) -> bool:
    """Whether a text is what a program writes for a missing value: nan, NULL, blanks, #N/A."""
    if not isinstance(value, str):
        return False
    text = value.strip()
    return text in NO_LEVELS or (text[:1] == "#" and (text == "#N/A" or text[-1] in "!?"))


def slip(names: Iterable[Any]) -> tuple[int, int] | None:
    """The places (earlier, later) of the first two texts that differ by case or spaces alone; None without such two."""
    first: dict[str, tuple[int, str]] = {}
    for place, name in enumerate(names):
        if isinstance(name, str):
            earlier, spelling = first.setdefault(" ".join(name.split()).casefold(), (place, name))
            if spelling != name:
                return earlier, place
    return None
