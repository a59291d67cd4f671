"""The slots and stores of a group's parameters, made anew where a user replaced, froze or moved one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from badmm.ivon.slots import STATE_DTYPES, Phase, Slot, slot_key
from badmm.ivon.stores import SMALL, Run, State, Store


class Arrangement:
    """One group: its slots in the order of its parameters, their stores, and the runs of what is trained.

    number: the group's. load: the kernels of a device.
    """

    def __init__(self, number: int, group: dict[str, Any], load: Callable[[torch.device], Any], phase: Phase) -> None:
        self.number, self.group, self._load, self._phase = number, group, load, phase
        self.slots: list[Slot] = []
        self.stores: list[Store] = []
        self.runs: list[Run] = []
        self.trained: list[Store] = []  # those that have runs
        self._seen: list[Any] = []
        for index, p in enumerate(group["params"]):
            _check(self._place(index), p)

    def moved(self) -> bool:
        """Whether a parameter is not what it was: the check of every block and step, about 1 µs per parameter."""
        seen = [(p.data_ptr(), p.requires_grad, p.shape, p.stride(), p.dtype) for p in self.group["params"]]
        same, self._seen = seen == self._seen, seen
        return not same

    def refresh(self, state: State, waiting: bool) -> None:
        """Follow the parameters and the optimizer's state.

        waiting: a sample waits for its step, which a parameter of another type, shape or device cannot take.
        """
        slots = self._slots(waiting)
        stores = self._stores(slots)
        start = float(self.group["hess_init"] + self.group["weight_decay"])
        for store in stores:
            if any(slot.active for slot in store.slots) and not store.bound(state):
                store.bind(state, start, float(self.group["weight_decay"]))
        self.slots, self.stores = slots, stores
        self.renew_runs()

    def renew_runs(self) -> None:
        """Cut the stores anew."""
        self.runs = [run for store in self.stores if store.arrays for run in store.runs()]
        self.trained = list({id(run.store): run.store for run in self.runs}.values())

    def seed(self, store: Store, rank: int) -> int:
        """The seed of a store's normals."""
        return _stream(self.group["seed"] % (1 << 64), self.number, store.number, rank)

    def _slots(self, waiting: bool) -> list[Slot]:
        """Slots of the parameters as they are; those that there were stay."""
        tied: dict[Any, list[tuple[int, Tensor]]] = {}
        for index, p in enumerate(self.group["params"]):
            _check(self._place(index), p)
            memory = p.data_ptr() if p.numel() else -index - 1
            several = tied.setdefault((memory, p.shape, p.stride(), p.dtype, p.device), [])
            if all(p is not known for _, known in several):
                several.append((index, p))
        known = {slot.key: slot for slot in self.slots}
        owners = {id(p): slot for slot in self.slots for p in slot.parameters}
        found = []
        for several in tied.values():
            parameters = [p for _, p in several]
            before = {id(owners[id(p)]) for p in parameters if id(p) in owners}
            if len(before) > 1:
                raise RuntimeError(
                    f"params: {self._place(several[1][0])} was tied to {self._place(several[0][0])} after the "
                    "optimizer was made; tie weights before"
                )
            slot, place = known.get(slot_key(parameters)), self._place(several[0][0])
            if slot is not None:
                slot.move()
            elif waiting and before:
                raise RuntimeError(
                    f"params: expected {place} with the device, dtype and shape it had when the sample was drawn, got "
                    "others; change them after the step"
                )
            found.append(slot or Slot(place, several[0][0], parameters, self._phase))
        return found

    def _stores(self, slots: Sequence[Slot]) -> list[Store]:
        """A store per large slot, and one for the small ones of every device and dtype; those that there were stay."""
        together: dict[Any, list[Slot]] = {}
        for slot in slots:
            alone = slot.number if slot.length >= SMALL else None
            together.setdefault((alone, slot.home.device, slot.home.dtype), []).append(slot)
        known = {store.key: store for store in self.stores}
        found = []
        for several in together.values():
            before = known.get(tuple(slot.key for slot in several))
            same = before is not None and all(a is b for a, b in zip(before.slots, several, strict=True))
            found.append(before if before and same else Store(several, self._load(several[0].home.device)))
        return found

    def _place(self, index: int) -> str:
        names = self.group.get("param_names")
        return f"parameter {index} of group {self.number}" + (f" ({names[index]})" if names else "")


@cache
def _stream(seed: int, group: int, store: int, rank: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=(group, store, rank)).generate_state(1, np.uint64)[0])


def _check(place: str, p: Tensor) -> None:
    """Raise ValueError for what has no memory of real numbers of its own."""
    expected = "a tensor in float32, float64, bfloat16 or float16"
    if isinstance(p, torch.nn.parameter.UninitializedParameter):
        raise ValueError(f"params: expected {expected}, got {place}, which a lazy module has yet to shape")
    if hasattr(type(p), "__tensor_flatten__") or type(p).__name__ == "DTensor":
        raise ValueError(
            f"params: expected {expected}, got {place}, a {type(p).__name__} that stands for other tensors"
        )
    if p.dtype not in STATE_DTYPES or p.layout != torch.strided or p.is_meta:
        got = p.dtype if p.dtype not in STATE_DTYPES else p.layout if p.layout != torch.strided else "no memory (meta)"
        raise ValueError(f"params: expected {expected}, got {got} for {place}")
    if p.numel() > 1 and 0 in [stride for stride, size in zip(p.stride(), p.shape, strict=True) if size > 1]:
        raise ValueError(f"params: expected elements with memory of their own, got {place}, which is expanded")


def check_apart(slots: Iterable[Slot]) -> None:
    """Raise ValueError where two slots share memory."""
    ordered = sorted((slot for slot in slots if slot.length), key=lambda s: (str(s.home.device), s.home.data_ptr()))
    reaching: list[Slot] = []
    for slot in ordered:
        begin, device = slot.home.data_ptr(), slot.home.device
        reaching = [s for s in reaching if s.home.device == device and s.home.data_ptr() + _span(s.home) > begin]
        for other in reaching:
            if np.intersect1d(_addresses(other.home), _addresses(slot.home)).size:
                raise ValueError(
                    f"params: {slot.place} shares memory with {other.place}; parameters that share memory have to be "
                    "in one group, and each the whole of it"
                )
        reaching.append(slot)


def _span(tensor: Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (extent + 1) * tensor.element_size()


def _addresses(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Where its elements are."""
    place = np.zeros(tensor.shape, np.int64)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        place += np.expand_dims(np.arange(size) * stride, tuple(k for k in range(tensor.ndim) if k != axis))
    return tensor.data_ptr() + place.ravel() * tensor.element_size()
