"""One verdict of the validation: a measured error beside the tolerance that it had to meet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

SAMPLE_LIMIT = 4096


@dataclass(frozen=True)
class Check:
    """A named error measure, its tolerance and whether it was met.

    ``group`` says what kind of evidence it is ("ulp", "autograd", "one round", ...) and is a heading of the report.
    ``value`` and ``tolerance`` are in the unit that ``detail`` states. ``samples`` (one error a test point) feed the
    report's histograms and ``curve`` (one error a round) its convergence plots; both may be empty.
    """

    name: str
    group: str
    family: str
    dtype: str
    value: float
    tolerance: float
    passed: bool
    detail: str = ""
    samples: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()

    @property
    def kernel(self) -> str:
        """The kernel that is judged: the first word of the name."""
        return re.split(r"\W", self.name, maxsplit=1)[0]

    def as_dict(self) -> dict[str, object]:
        """The record as JSON-ready values; an error that is not finite becomes text, as JSON has no word for it."""
        record = asdict(self)
        del record["samples"]
        record["curve"] = [number if math.isfinite(number) else repr(number) for number in self.curve]
        for key in ("value", "tolerance"):
            number = record[key]
            record[key] = number if math.isfinite(number) else repr(number)
        return record


def check(
    name: str,
    group: str,
    family: str,
    dtype: str,
    value: float,
    tolerance: float,
    detail: str = "",
    samples: Iterable[float] = (),
    curve: Iterable[float] = (),
) -> Check:
    """A `Check` that passes if ``value <= tolerance``; a NaN or infinite value never passes."""
    value = float(value)
    tolerance = float(tolerance)
    passed = math.isfinite(value) and value <= tolerance
    kept = thin([float(sample) for sample in samples])
    return Check(name, group, family, dtype, value, tolerance, passed, detail, kept, tuple(float(v) for v in curve))


def failed(name: str, group: str, family: str, dtype: str, reason: str) -> Check:
    """A `Check` that could not be carried out, which counts as a miss."""
    return Check(name, group, family, dtype, math.inf, 0.0, False, reason)


def thin(samples: list[float]) -> tuple[float, ...]:
    """At most `SAMPLE_LIMIT` of the samples, the largest among them, evenly spaced by rank."""
    if len(samples) <= SAMPLE_LIMIT:
        return tuple(samples)
    ranked = sorted(samples, reverse=True)
    stride = len(ranked) / SAMPLE_LIMIT
    return tuple(ranked[int(index * stride)] for index in range(SAMPLE_LIMIT))
