"""One memory that is trained: the parameters that view it, the sample shown in its place, the sample's gradient."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# the type of a parameter's state by its own: sums of many small steps are lost in 8 or 11 bits
STATE_DTYPES = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}


@dataclass
class Phase:
    """What a backward pass that reaches a parameter means at present.

    open: it runs inside a training block, and its gradient is the sample's. local: ranks average, so that each
    rank's own gradient is kept beside the one that DistributedDataParallel averages in place.
    """

    open: bool = False
    local: bool = False


class Slot:
    """Parameters that view one memory; several where a network ties them through their data.

    home: that memory, the posterior's mean outside a block. strides: those of state and samples; the home's where it
    is dense. number: the first parameter's place in its group.
    """

    def __init__(self, place: str, number: int, parameters: Sequence[Tensor], phase: Phase) -> None:
        self.place, self.number, self.parameters, self.phase = place, number, list(parameters), phase
        self.home = parameters[0].data
        self.shape, self.length = self.home.shape, self.home.numel()
        self.strides = dense_strides(self.home)
        self.dense = self.strides == self.home.stride()
        self.dtype = STATE_DTYPES[self.home.dtype]
        self.key = slot_key(parameters)  # what its state depends on
        self.local: Tensor | None = None
        self._seen: list[Tensor | None] | None = None
        self._versions: list[int] = []
        self._cut = False
        self._guarded: list[weakref.finalize] = []
        self.guard()

    @property
    def active(self) -> bool:
        """Whether it is trained; a memory that one of its parameters asks gradients for is."""
        return any(p.requires_grad for p in self.parameters)

    def move(self) -> None:
        """Take the memory that its parameters view now as the home."""
        self.home = self.parameters[0].data
        self.dense = self.strides == self.home.stride()
        self.guard()

    def show(self, tensor: Tensor) -> None:
        """Let the parameters view another memory."""
        for p in self.parameters:
            p.data = tensor

    def shows(self, tensor: Tensor) -> bool:
        """Whether all parameters view it."""
        begin, dtype = tensor.data_ptr(), tensor.dtype
        return all(p.data_ptr() == begin and p.dtype is dtype for p in self.parameters)

    def guard(self) -> None:
        """Hear of gradients before they are added to `.grad`."""
        if self._guarded or not self.active:
            return
        guard = _Guard(self)
        for p in self.parameters:
            if p.requires_grad:
                self._guarded.append(weakref.finalize(self, p.register_hook(guard).remove))

    def arriving(self, gradient: Tensor) -> None:
        """A gradient is about to be added to `.grad`.

        Inside a training block it is the sample's. Between the block and the step it is not: the sample's gradient is
        copied before it changes, and from then on `.grad` says nothing of it.
        """
        if self.phase.open:
            if self.phase.local:
                own = gradient.to_dense() if gradient.layout != torch.strided else gradient.clone()
                self.local = own if self.local is None else self.local.add_(own)
        elif self._seen is not None and not self._cut:
            self._seen = [None if g is None else g.clone() for g in self._current()]
            self._cut = True

    def collect(self) -> bool:
        """Take the gradients there are as the sample's; whether there is one.

        They are kept as they are until the step, so that clipping or unscaling them in place counts.
        """
        self._seen, self._cut, self._versions = [], False, []
        found = False
        for p in self.parameters:
            gradient = p.grad
            found = found or gradient is not None
            self._seen.append(gradient)
            self._versions.append(0 if gradient is None else gradient._version)
        return found

    def drop(self) -> None:
        """Forget the sample's gradient."""
        self._seen = self.local = None

    def _current(self) -> list[Tensor | None]:
        """The sample's gradients by parameter: `.grad` as it is now, or as it was where it was set to None."""
        seen = self._seen or []
        if self._cut:
            return seen
        return [g if p.grad is None else p.grad for p, g in zip(self.parameters, seen, strict=True)]

    def gradients(self) -> list[Tensor]:
        """The sample's gradients, dense, to be added up; none where the loss did not reach the memory."""
        return [
            g if g.layout is torch.strided and not g.requires_grad else g.detach().to_dense()
            for g in self._current()
            if g is not None
        ]

    def flat_gradient(self) -> Tensor | None:
        """The sample's gradient (P,) in the order of the state without a copy, where there is one such tensor."""
        found = self.gradients()
        if len(found) == 1 and found[0].dtype == self.dtype and found[0].stride() == self.strides:
            return flat(found[0])
        return None

    def check_not_zeroed(self) -> None:
        """Raise RuntimeError where `.grad` was set to 0 in place since the sample: its gradient is lost."""
        if self._cut or self._seen is None:
            return
        for p, before, version in zip(self.parameters, self._seen, self._versions, strict=True):
            same = before is not None and p.grad is before and before.layout == torch.strided
            if same and before is not None and before._version != version and not bool(before.any()):
                raise RuntimeError(
                    f"params: {self.place} had its gradient set to 0 between two samples of one step; call zero_grad "
                    "inside the block, or with set_to_none=True"
                )


def slot_key(parameters: Sequence[Tensor]) -> tuple[object, ...]:
    """The key of a slot of these parameters."""
    p = parameters[0]
    return tuple(map(id, parameters)), p.shape, dense_strides(p), p.dtype, p.device


def dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """Those of a tensor, or those that fill memory in the same order of axes."""
    return torch.empty_like(tensor, device="meta").stride()


class _Guard:
    """A hook on parameters that tells their slot of gradients, and keeps nothing alive."""

    __torch_unserializable__ = True  # a pickled or shared parameter goes without it, and without a warning

    def __init__(self, slot: Slot) -> None:
        self.slot = weakref.ref(slot)

    def __call__(self, gradient: Tensor) -> None:
        slot = self.slot()
        if slot is not None:
            slot.arriving(gradient)


def flat(tensor: Tensor) -> Tensor:
    """A dense tensor's elements (P,) in their order in memory, which the result views."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))
