"""A likelihood's CUDA kernels on rows: a missing weight or offset is a constant array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from badmm_kernels.gpu.runtime import MapKernel


def on_rows(
    kernel: MapKernel,
    values: Sequence[Any],
    parameters: Sequence[float],
    weight: Any,
    offset: Any,
    out: Any,
    stream: Any,
) -> tuple[Any, ...]:
    """Run a kernel whose last operands are weight and, for predictors, offset."""
    given = {"weight": (weight, 1.0), "offset": (offset, 0.0)}
    missing = [value if value is not None else _constant(values[0], fill)
               for name, (value, fill) in given.items() if name in kernel.names]  # fmt: skip
    return kernel((*values, *missing), parameters, out, stream)


def _constant(like: Any, fill: float) -> Any:
    """An array like another one, of the same library, filled with a number."""
    found = like * 0
    found += fill
    return found
