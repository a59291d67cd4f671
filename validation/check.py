"""One check of the validation: a measured error and its tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

SAMPLE_LIMIT = 4096


@dataclass(frozen=True)
class Check:
    """A named error, its tolerance, and whether the error is within it.

    group: kind of evidence ("ulp", "autograd", "one round", ...), a heading of the report. value, tolerance: in the
    unit that `detail` states. samples: one error per test point, for the report's histograms. curve: one error per
    round, for its convergence plots. Both may be empty.
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
        """The kernel that is checked: the first word of the name."""
        return re.split(r"\W", self.name, maxsplit=1)[0]

    def as_dict(self) -> dict[str, object]:
        """Return the record as JSON-ready values; errors that are not finite become text, which JSON requires."""
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
    """Return a `Check` that passes if `value <= tolerance`; a NaN or infinite value never passes."""
    value = float(value)
    tolerance = float(tolerance)
    passed = math.isfinite(value) and value <= tolerance
    kept = thin([float(sample) for sample in samples])
    return Check(name, group, family, dtype, value, tolerance, passed, detail, kept, tuple(float(v) for v in curve))


def failed(name: str, group: str, family: str, dtype: str, reason: str) -> Check:
    """Return the failed `Check` of a measurement that could not be made."""
    return Check(name, group, family, dtype, math.inf, 0.0, False, reason)


def thin(samples: list[float]) -> tuple[float, ...]:
    """Return at most `SAMPLE_LIMIT` samples, evenly spaced by rank, with the largest among them."""
    if len(samples) <= SAMPLE_LIMIT:
        return tuple(samples)
    ranked = sorted(samples, reverse=True)
    stride = len(ranked) / SAMPLE_LIMIT
    return tuple(ranked[int(index * stride)] for index in range(SAMPLE_LIMIT))
