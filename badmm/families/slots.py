"""Namespaces of kernels for families without generated ones: from other families' kernels."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import badmm_kernels
from badmm.checks import Array

LINES = (
    "bregman_dual_update",
    "cavity",
    "client_map",
    "contribution_change",
    "dual_residual",
    "dual_update",
    "primal_residual",
    "server_contribution",
    "server_update",
)


class SlotKernels:
    """What a solver asks of a namespace of kernels; the lines are those of a family with one slot, applied to each.

    A subclass names the slots as generated kernels do, and has `expectation_from_natural`, `log_partition`, `kl` and
    what else its family calls.
    """

    NAME: ClassVar[str]
    NATURAL: ClassVar[tuple[str, ...]]
    STANDARD: ClassVar[tuple[str, ...]]
    FIXED: ClassVar[tuple[str, ...]] = ()
    STATISTICS: ClassVar[tuple[tuple[str, float], ...]]
    """The functions of θ, each with its factor, by slot."""

    @cached_property
    def _one_slot(self) -> Any:
        """The first family whose λ is one slot on the whole line: its lines are those of any slot."""
        loaded = map(badmm_kernels.load, badmm_kernels.FAMILIES)
        return next(ns for ns in loaded if ns.NATURAL_DOMAINS == ("real",))

    def __getattr__(self, name: str) -> Any:
        if name not in LINES:
            raise AttributeError(f"{type(self).__name__} has no kernel {name!r}")
        line = getattr(self._one_slot, name)

        def by_slot(*arguments: Any) -> tuple[Array, ...]:
            """The line of every slot; tuples have a slot each, numbers are shared."""
            tuples = [argument for argument in arguments if isinstance(argument, tuple)]
            rest = arguments[len(tuples) :]
            return tuple(line(*((slot,) for slot in slots), *rest)[0] for slots in zip(*tuples, strict=True))

        return by_slot


class RenamedKernels:
    """Another family's kernels under a name of one's own."""

    NAME: ClassVar[str]
    BASE: ClassVar[str]
    """The family whose kernels they are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(badmm_kernels.load(self.BASE), name)
