"""What a parameter group holds, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

BOUNDS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lr": ("a finite number >= 0", lambda x: 0 <= x < math.inf),
    "ess": ("a positive number", lambda x: 0 < x < math.inf),
    "hess_init": ("a positive number", lambda x: 0 < x < math.inf),
    "beta1": ("a number in [0, 1)", lambda x: 0 <= x < 1),
    "beta2": ("a number in [0, 1]", lambda x: 0 <= x <= 1),
    "weight_decay": ("a finite number >= 0", lambda x: 0 <= x < math.inf),
    "clip_radius": ("a positive number", lambda x: x > 0),
    "temperature": ("a positive number", lambda x: 0 < x < math.inf),
}


def number(group: dict[str, Any], name: str) -> float:
    """A setting as a number; torch's schedulers and users may hold it as a tensor of one element."""
    return _as_float(group[name], name)


def _as_float(value: Any, name: str) -> float:
    if type(value) is float:
        return value
    try:
        if isinstance(value, str | bytes) or "bool" in str(getattr(value, "dtype", type(value).__name__)):
            raise TypeError("no number")
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name}: expected {BOUNDS[name][0]}, got {value!r:.80}") from error


def flag(value: Any, name: str) -> bool:
    """A truth value, or 0 or 1; ValueError for the rest, such as a text, which Python would take for true."""
    if not isinstance(value, int | np.bool_) or value not in (0, 1):
        raise ValueError(f"{name}: expected True or False, got {value!r:.80}")
    return bool(value)


def check(group: dict[str, Any]) -> None:
    """Raise ValueError for a setting outside its bounds."""
    for name, (expected, inside) in BOUNDS.items():
        if not inside(number(group, name)):
            raise ValueError(f"{name}: expected {expected}, got {group[name]!r:.80}")
    if isinstance(group["seed"], bool) or not isinstance(group["seed"], int):
        raise ValueError(f"seed: expected an integer, got {group['seed']!r}")
    if not -(1 << 63) <= group["seed"] < 1 << 64:
        raise ValueError(f"seed: expected an integer from -2**63 to 2**64 - 1, got {group['seed']}")


def with_betas(group: Any, defaults: dict[str, Any]) -> Any:
    """A group as a user gives it, with β₁ and β₂ under both names."""
    if not isinstance(group, dict):  # for torch to refuse
        return group
    first, second = _two(group.get("betas", (defaults["beta1"], defaults["beta2"])))
    pair = group.get("beta1", first), group.get("beta2", second)
    return {**group, "beta1": pair[0], "beta2": pair[1], "betas": pair}


def _two(betas: Any) -> tuple[Any, Any]:
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas: expected (beta1, beta2), got {betas!r:.80}")
    return betas[0], betas[1]


def settle_betas(group: dict[str, Any], before: tuple[float, float] | None = None) -> tuple[float, float]:
    """(β₁, β₂) of a group that has them as beta1 and beta2, as ivon-opt does, and as betas, as torch's optimizers do.

    `before`: what they were; whichever was set since counts, so that OneCycleLR cycles β₁, and so may a user's loop.
    """
    apart, pair = (number(group, "beta1"), number(group, "beta2")), group.get("betas")
    if pair is not None and tuple(pair) != (apart if before is None else before):
        first, second = _two(pair)
        apart = (_as_float(first, "beta1"), _as_float(second, "beta2"))
        group["beta1"], group["beta2"] = apart
    if apart != pair:
        group["betas"] = apart
    return apart
