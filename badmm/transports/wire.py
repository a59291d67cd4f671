"""Messages and replies as a JSON header that a person can read, and arrays beside it. Nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from badmm.transports.messages import Message, Reply

Record = TypeVar("Record", Message, Reply)
_ARRAYS = {Message: "arrays", Reply: "sums"}
_NUMBERS = ("numbers", "totals", "maxima", "minima")


def header(record: Message | Reply) -> dict[str, Any]:
    """Every field that is no array, and the arrays' types and shapes; JSON gives back every number bit for bit."""
    field = _ARRAYS[type(record)]
    table = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != field}
    for name in _NUMBERS:
        if name in table:
            table[name] = {key: _plain(float(value)) for key, value in table[name].items()}
    table["arrays"] = {name: [*_form(array)] for name, array in getattr(record, field).items()}
    return table


def record(kind: type[Record], table: Mapping[str, Any], arrays: Mapping[str, Any]) -> Record:
    """The inverse of `header`, with these arrays; ValueError for a table that no header is."""
    try:
        values: dict[str, Any] = {name: value for name, value in table.items() if name != "arrays"}
        values[_ARRAYS[kind]] = dict(arrays)
        for name in _NUMBERS:
            if name in values:
                values[name] = {str(key): float(value) for key, value in values[name].items()}
        if "members" in values and values["members"] is not None:
            values["members"] = tuple(map(int, values["members"]))
        if "failures" in values:
            for name in ("failures", "absent"):
                values[name] = {int(client): str(why) for client, why in values[name].items()}
            values["notes"] = tuple(map(str, values["notes"]))
        return kind(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{kind.__name__.lower()}: expected the header of one, got {error!r:.80}") from None


def encode(table: Mapping[str, Any]) -> bytes:
    """The table as JSON."""
    return json.dumps(table, ensure_ascii=False).encode()


def host(array: Any) -> np.ndarray[Any, Any]:
    """An array of NumPy or torch as a contiguous NumPy array in memory; a tensor of a GPU is copied."""
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array, order="C")


def _form(array: Any) -> tuple[str, list[int]]:
    return str(array.dtype).removeprefix("torch."), list(array.shape)


def _plain(value: float) -> float | str:
    """JSON has no infinities and no NaN."""
    return value if math.isfinite(value) else str(value)
