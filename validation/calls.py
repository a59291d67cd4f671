"""A kernel call as a record, so that one check can run it, slice it, stack it, alias it or hand it to an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Call:
    """One call ``function(*args, **kwargs)``; arguments are arrays, tuples of arrays (one a slot), floats, None."""

    function: str
    args: tuple[Any, ...]
    label: str = "generic"
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    results: int = 1  # how many parameters it returns, a tuple each where more than one

    def arrays(self) -> list[Array]:
        """Every array of the call in order, tuples opened."""
        found: list[Array] = []
        for argument in self.args:
            if isinstance(argument, tuple):
                found.extend(argument)
            elif isinstance(argument, np.ndarray):
                found.append(argument)
        return found

    def scalars(self) -> list[float]:
        """The Python numbers of the call in order (keywords excluded)."""
        return [argument for argument in self.args if isinstance(argument, (int, float))]

    def slot(self, index: int) -> list[Array]:
        """The array of slot ``index`` from every tuple argument."""
        return [argument[index] for argument in self.args if isinstance(argument, tuple)]

    def mapped(self, change: Callable[[Array], Array]) -> Call:
        """The same call with ``change`` applied to every array."""

        def apply(argument: Any) -> Any:
            if isinstance(argument, tuple):
                return tuple(change(array) for array in argument)
            return change(argument) if isinstance(argument, np.ndarray) else argument

        return replace(self, args=tuple(apply(argument) for argument in self.args))


def invoke(namespace: Any, call: Call, out: tuple[Array, ...] | None = None, **extra: Any) -> Any:
    """Run the call on a kernel namespace; several parameters come (and are given as ``out``) as one row of slots."""
    keywords = dict(call.kwargs, **extra)
    groups = call.results
    if out is not None:
        count = len(out) // groups
        keywords["out"] = out if groups == 1 else tuple(out[g * count : (g + 1) * count] for g in range(groups))
    result = getattr(namespace, call.function)(*call.args, **keywords)
    return result if groups == 1 else tuple(slot for group in result for slot in group)
