"""Kernel calls as records, which checks can run, slice, stack, alias or pass to an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Call:
    """One call ``function(*args, **kwargs)``; arguments are arrays, tuples of arrays (one per slot), floats, None."""

    function: str
    args: tuple[Any, ...]
    label: str = "generic"
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    results: int = 1  # number of returned parameters; several are a tuple of tuples

    def arrays(self) -> list[Array]:
        """Return all arrays of the call in order, including those in tuples."""
        found: list[Array] = []
        for argument in self.args:
            if isinstance(argument, tuple):
                found.extend(argument)
            elif isinstance(argument, np.ndarray):
                found.append(argument)
        return found

    def scalars(self) -> list[float]:
        """Return the Python numbers of the call in order, without keywords."""
        return [argument for argument in self.args if isinstance(argument, (int, float))]

    def slot(self, index: int) -> list[Array]:
        """Return the array of slot `index` of every tuple argument."""
        return [argument[index] for argument in self.args if isinstance(argument, tuple)]

    def mapped(self, change: Callable[[Array], Array]) -> Call:
        """Return the call with `change` applied to every array."""

        def apply(argument: Any) -> Any:
            if isinstance(argument, tuple):
                return tuple(change(array) for array in argument)
            return change(argument) if isinstance(argument, np.ndarray) else argument

        return replace(self, args=tuple(apply(argument) for argument in self.args))


def invoke(namespace: Any, call: Call, out: tuple[Array, ...] | None = None, **extra: Any) -> Any:
    """Run the call on a kernel namespace; several returned parameters, and those of `out`, are one flat tuple."""
    keywords = dict(call.kwargs, **extra)
    groups = call.results
    if out is not None:
        count = len(out) // groups
        keywords["out"] = out if groups == 1 else tuple(out[g * count : (g + 1) * count] for g in range(groups))
    result = getattr(namespace, call.function)(*call.args, **keywords)
    return result if groups == 1 else tuple(slot for group in result for slot in group)
