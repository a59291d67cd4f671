"""Which state dictionaries load: those of this optimizer, ivon-opt's translated; others are refused in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from badmm.ivon.stores import CAVITY

NAMES = {"precision", "momentum", "mean", *CAVITY}
Group = dict[str, Any]


def readable(state_dict: Any, groups: Sequence[Group]) -> dict[str, Any]:
    """A state dictionary that fits the optimizer's groups, or ValueError."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        got = f"the keys {_listed(state_dict)}" if isinstance(state_dict, Mapping) else type(state_dict).__name__
        raise ValueError(f"state_dict: expected a mapping with state and param_groups, got {got}")
    saved = [*state_dict["param_groups"]]
    counts, expected = [len(g["params"]) for g in saved], [len(g["params"]) for g in groups]
    if counts != expected:
        raise ValueError(f"state_dict: expected groups of {expected} parameters, got {counts}")
    if saved and all({"hess", "momentum", "numel"} <= set(g) for g in saved):
        state_dict = _from_ivon_opt(saved, groups)
        saved = state_dict["param_groups"]
    state = state_dict["state"]
    for index, (own, group) in enumerate(zip(saved, groups, strict=True)):
        _check_group(index, own, group, state)
    return {**state_dict, "param_groups": [{"betas": (g["beta1"], g["beta2"]), **g} for g in saved]}


def _check_group(index: int, saved: Group, group: Group, state: Mapping[Any, Any]) -> None:
    """Raise ValueError unless the saved group and its parameters' states are this optimizer's."""
    found = [state.get(number, {}) for number in saved["params"]]
    names = {name for own in found for name in own}
    missing = {"ess", "hess_init", "beta1", "beta2", "seed", "draws", "step"} - set(saved)
    if missing or names - NAMES or any(own and not {"precision", "momentum"} <= set(own) for own in found):
        raise ValueError(
            "state_dict: expected the state of badmm.ivon.IVON or ivon-opt (precision and momentum of every parameter, "
            f"ess and hess_init of every group), got group {index} with {_listed(names) or 'no state'} by parameter "
            f"and the settings {_listed(saved)}"
        )
    for place, (own, p) in enumerate(zip(found, group["params"], strict=True)):
        for name, value in own.items():
            if not isinstance(value, Tensor) or value.shape != p.shape:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"state_dict: expected {name} of shape {tuple(p.shape)} for parameter {place} of group {index}, "
                    f"got {got}"
                )


def _from_ivon_opt(saved: Sequence[Group], groups: Sequence[Group]) -> dict[str, Any]:
    """ivon-opt's state, which keeps h and momentum flat in its groups, in this optimizer's form.

    It does not save how many steps there were, which debiasing needs; its momentum is taken as warm, with a count at
    which 1 − β₁ᵗ rounds to 1. Normals go on in the stream of the optimizer that loads.
    """
    state, found = dict[Any, Any](), []
    for index, (own, group) in enumerate(zip(saved, groups, strict=True)):
        lengths = [p.numel() for p in group["params"]]
        if own["hess"].numel() != sum(lengths):
            raise ValueError(
                f"state_dict: expected hess of {sum(lengths)} entries for group {index}, got {own['hess'].numel()}"
            )
        parts = zip(own["hess"].split(lengths), own["momentum"].split(lengths), strict=True)
        for number, p, (hess, momentum) in zip(own["params"], group["params"], parts, strict=True):
            precision = hess.reshape(p.shape) + own["weight_decay"]
            state[number] = {"precision": precision, "momentum": momentum.reshape(p.shape)}
        beta1 = own["beta1"]
        warm = math.ceil(math.log(2.0**-54) / math.log(beta1)) if beta1 > 0 else 1
        kept = {name: own[name] for name in own if name in group and name not in ("hess", "momentum", "numel")}
        more = {name: group[name] for name in ("temperature", "seed", "draws")}
        found.append({**kept, **more, "step": warm})
    return {"state": state, "param_groups": found}


def _listed(names: Any) -> str:
    """A few of them."""
    ordered = sorted(map(str, names))
    return ", ".join(ordered[:6]) + (", ..." if len(ordered) > 6 else "")
