"""Arrays of letters in fewer bits: differences to what the other side has, rounded; what rounding loses is sent later.

A letter in full has float64. One with a *base* has q = round(x − x̂), where x̂ is what the letter of that number
stands for at its reader, and stands for x̂ + q itself, on both sides with the same bits. The next difference has what
was lost in it (error feedback; EF21, Richtárik, Sokolov & Fatkhullin 2021), so that rounding errors fall with changes
and the fixed point is that of float64. Rounding x itself would stop at the precision of the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.transports.files.share import Letter, UnfitError

FULL = "float64"
PRECISIONS = (FULL, "float32", "bfloat16")
NAMES = ("natural", "contribution")
"""The arrays of λ's size; a few mixing weights are sent as they are."""


@dataclass(frozen=True)
class Known:
    """What both sides have: the number of a letter and what its arrays stand for."""

    sequence: int
    arrays: Mapping[str, Any]


def checked(precision: str) -> str:
    """One of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def lowered(arrays: Mapping[str, Any], precision: str, known: Known | None) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Arrays as they are sent, and what else their letter says; in full where nothing is known or asked for."""
    names = [name for name in arrays if name in NAMES]
    if precision == FULL or known is None or not names:
        return arrays, {}
    small = {name: _round(arrays[name] - known.arrays[name], precision) for name in names}
    return {**arrays, **small}, {"base": str(known.sequence), "precision": precision}


def raised(arrays: Mapping[str, Any], extra: Mapping[str, str], known: Known | None) -> Mapping[str, Any]:
    """The arrays that a letter stands for; `UnfitError` where its base is not what is known."""
    if "base" not in extra:
        return arrays
    base, precision = extra["base"], extra.get("precision", "")
    if known is None or base != str(known.sequence) or precision not in PRECISIONS:
        have = "none" if known is None else str(known.sequence)
        raise UnfitError(f"base: expected a difference to letter {have}, got one to letter {base[:20]}")
    found = dict(arrays)
    for name in set(found) & set(NAMES):
        if np.shape(found[name]) != np.shape(known.arrays[name]):
            raise UnfitError(f"wrong shape: expected {np.shape(known.arrays[name])}, got {np.shape(found[name])}")
        found[name] = known.arrays[name] + _exact(found[name], precision)
        if not np.isfinite(found[name]).all():
            raise UnfitError(f"not finite: {name} has {int((~np.isfinite(found[name])).sum())} such numbers")
    return found


def opened(letter: Letter, known: Known | None) -> Letter:
    """The letter with the arrays that it stands for."""
    return replace(letter, arrays=raised(letter.arrays, letter.extra, known))


def _round(values: Array, precision: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32 | np.uint16]]:
    """The nearest numbers of the format, ties to even; those of bfloat16 as their bits."""
    single = values.astype(np.float32)
    if precision == "float32":
        return single
    bits = single.view(np.uint32)
    # the last bit that stays decides ties; 2¹⁶ − 1 is half of what is cut off, less one
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _exact(stored: np.ndarray[tuple[int, ...], np.dtype[np.float32 | np.uint16]], precision: str) -> Array:
    """The same numbers in float64."""
    if precision == "float32":
        return stored.astype(np.float64)
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
