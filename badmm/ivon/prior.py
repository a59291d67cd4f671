"""The prior and the duals in the step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from badmm.ivon.arrange import Arrangement
from badmm.ivon.stores import CAVITY, State, Store

Values = float | Sequence[Tensor]


def set_cavity(
    arrangements: Sequence[Arrangement],
    state: State,
    mean: Values,
    precision: Values,
    duals: tuple[Values, Values],
    rho: float,
) -> None:
    """Give every store the natural parameter of ρ λ_prior + η over N/τ, and s = h + δ with h at its start."""
    order = {id(p): k for k, p in enumerate(p for arranged in arrangements for p in arranged.group["params"])}
    named = {"mean": mean, "precision": precision, "duals[0]": duals[0], "duals[1]": duals[1]}
    shapes = [tuple(p.shape) for arranged in arrangements for p in arranged.group["params"]]
    for name, value in named.items():
        _check(name, value, shapes)
    if not 0 < rho < float("inf"):
        raise ValueError(f"rho: expected a positive number, got {rho!r}")
    for arranged in arrangements:
        group = arranged.group
        scale = float(group["temperature"]) / float(group["ess"])
        for store in arranged.stores:
            m, s, xi, eta = (_flat(value, store, order) for value in named.values())
            if not store.arrays:
                store.bind(state, 1.0, 0.0)
            store.arrays[CAVITY[0]], store.arrays[CAVITY[1]] = (s * m + xi / rho) * scale, (s + eta / rho) * scale
            store.arrays["precision"].copy_(s * scale + float(group["hess_init"]))
            store.publish(state)
        arranged.renew_runs()


def _check(name: str, value: Values, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError for another number of tensors, other shapes, and values that are not finite, or not positive."""
    if isinstance(value, int | float):
        _check_values(name, torch.tensor(float(value)), "")
        return
    if len(value) != len(shapes) or not all(isinstance(one, Tensor) for one in value):
        raise ValueError(f"{name}: expected a number or {len(shapes)} tensors like the parameters, got {len(value)}")
    for place, (one, shape) in enumerate(zip(value, shapes, strict=True)):
        if tuple(one.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape} for parameter {place}, got {tuple(one.shape)}")
        _check_values(name, one, f" for parameter {place}")


def _check_values(name: str, tensor: Tensor, where: str) -> None:
    positive = name == "precision"
    bad = ~tensor.isfinite() | (tensor <= 0) if positive else ~tensor.isfinite()
    if bool(bad.any()):
        expected = "positive" if positive else "finite"
        raise ValueError(f"{name}: expected {expected}, got {float(tensor[bad].flatten()[0])}{where}")


def _flat(value: Values, store: Store, order: dict[int, int]) -> Tensor:
    """A number or tensors like the parameters, as an array of the store."""
    if isinstance(value, int | float):
        return store.new(value)
    array = store.new()
    for slot, view in zip(store.slots, store.views(array), strict=True):
        view.copy_(value[order[id(slot.parameters[0])]])
    return array
