"""Piecewise-exponential survival as Poisson regression: one row for each interval that a subject is at risk in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from badmm.checks import real_array, require

INTERVAL, EXPOSURE, EVENT = "interval", "exposure", "event"


def piecewise(data: Any, time: str, event: str, cuts: Sequence[float], start: str | None = None) -> pd.DataFrame:
    """Split every row at the cuts: `interval` (levels fixed by the cuts), `exposure` (time at risk), `event` (0 or 1).

    time: when follow-up ends, start: when it begins (default 0), event: 1 where it ended with one. The model
    "event ~ interval + ...", family="poisson", exposure="exposure" has the hazard ratios as rate ratios; sites must use
    the same cuts. Raises `ValueError` naming the column and the first bad row.
    """
    frame = nw.from_native(data, eager_only=True).to_pandas().reset_index(drop=True)
    for name in (time, event, *([] if start is None else [start])):
        if name not in frame.columns:
            raise ValueError(f"data: expected the column {name!r}, got {', '.join(map(str, frame.columns)):.200}")
    taken = {INTERVAL, EXPOSURE, EVENT} & (set(map(str, frame.columns)) - {event})
    if taken:
        raise ValueError(f"data: expected no column {min(taken)!r}, which is made here")
    stop = real_array(frame[time].to_numpy(), time, 1)
    begin = np.zeros(len(stop)) if start is None else real_array(frame[start].to_numpy(), str(start), 1)
    happened = real_array(frame[event].to_numpy(), event, 1)
    require((happened == 0) | (happened == 1), happened, event, "0 or 1")
    require(stop > begin, stop, time, "a time after the start")
    inner = real_array(cuts, "cuts", 1)
    if (np.diff(inner) <= 0).any() or (inner <= 0).any():
        raise ValueError(f"cuts: expected increasing positive times, got {list(cuts)!r:.80}")
    edges = np.concatenate([[0.0], inner, [np.inf]])
    labels = [f"({low:g}, {high:g}]" for low, high in itertools.pairwise(edges)]
    pieces = []
    for low, high, label in zip(edges[:-1], edges[1:], labels, strict=True):
        exposure = np.minimum(stop, high) - np.maximum(begin, low)
        rows = exposure > 0
        piece = frame[rows].drop(columns=[event])
        piece[INTERVAL] = label
        piece[EXPOSURE] = exposure[rows]
        piece[EVENT] = (happened * ((stop > low) & (stop <= high)))[rows]
        pieces.append(piece)
    out = pd.concat(pieces).sort_index(kind="stable").reset_index(drop=True)
    out[INTERVAL] = pd.Categorical(out[INTERVAL], categories=labels)
    return out
