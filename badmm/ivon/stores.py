"""State of slots in flat arrays, and the kernels' calls on the pieces of them that are trained.

A large parameter has a store of its own, whose kernels read and write its memory where it is; small ones share a store
and are copied to and from one buffer, since a call costs more than they do. Half-precision parameters keep their mean
in float32 and are rounded from it.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

from badmm.ivon.backends import Address, Sweeps
from badmm.ivon.slots import Slot, flat

SMALL = 1 << 15  # entries below which a parameter shares a store: copying it takes less than calls of its own
CAVITY = ("cavity_precision_mean", "cavity_precision")
State = MutableMapping[Tensor, dict[str, Any]]


class Store:
    """Slots of one device and dtype with s = h + δ, the momentum, the cavity where one is set, and normals, all (P,).

    number: that of the first slot; normals come from its stream, one after the other through all slots, frozen ones
    too, so that no normal depends on what is frozen.
    """

    def __init__(self, slots: Sequence[Slot], kernels: Any) -> None:
        self.slots, self.kernels, self.number = list(slots), Sweeps(kernels), slots[0].number
        self.ends = list(accumulate(slot.length for slot in slots))
        self.device, self.dtype = slots[0].home.device, slots[0].dtype
        self.rounds = slots[0].home.dtype != self.dtype
        self.arrays: dict[str, Tensor] = {}
        self.totals: tuple[Tensor, ...] = ()
        self._buffers: dict[str, Tensor] = {}
        self._published: list[dict[str, Tensor]] = []

    @property
    def key(self) -> tuple[object, ...]:
        """What its arrays depend on."""
        return tuple(slot.key for slot in self.slots)

    def new(self, value: float = 0.0) -> Tensor:
        """Another array."""
        return torch.full((self.ends[-1],), value, dtype=self.dtype, device=self.device)

    def buffer(self, name: str) -> Tensor:
        """An array for passing values, made when first needed."""
        if name not in self._buffers:
            self._buffers[name] = self.new()
        return self._buffers[name]

    def views(self, array: Tensor, slots: Sequence[Slot] | None = None) -> list[Tensor]:
        """Parts of an array in the shapes of slots."""
        found = []
        for slot, end in zip(self.slots, self.ends, strict=True):
            if slots is None or slot in slots:
                found.append(array.as_strided(slot.shape, slot.strides, end - slot.length))
        return found

    def bound(self, state: State) -> bool:
        """Whether the optimizer's state still is these arrays."""
        for slot, published in zip(self.slots, self._published, strict=False):
            own = state.get(slot.parameters[0], {})
            if len(own) != len(published) or any(own.get(name) is not view for name, view in published.items()):
                return False
        return bool(self._published)

    def bind(self, state: State, start: float, weight: float) -> None:
        """Take the state that there is, in whatever place, type and order, and start the rest.

        start: s at the start. weight: δ, the cavity of a slot without one beside slots that have one.
        """
        given = [dict(state.get(slot.parameters[0], {})) for slot in self.slots]
        names = ["precision", "momentum", *(["mean"] if self.rounds else [])]
        names += CAVITY if any(CAVITY[1] in own for own in given) else ()
        begin = {"precision": start, CAVITY[1]: weight}
        self.arrays = {name: self.new(begin.get(name, 0.0)) for name in names}
        for name, array in self.arrays.items():
            for slot, own, view in zip(self.slots, given, self.views(array), strict=True):
                if name in own:
                    _check_shape(slot, name, own[name])
                    view.copy_(own[name])
                elif name == "mean":
                    view.copy_(slot.home)
        self.publish(state)

    def publish(self, state: State) -> None:
        """The state by parameter, as torch.optim keeps it: views of the arrays."""
        views = {name: self.views(array) for name, array in self.arrays.items()}
        self._published = [{name: own[k] for name, own in views.items()} for k in range(len(self.slots))]
        for slot, published in zip(self.slots, self._published, strict=True):
            for p in slot.parameters:
                state[p] = dict(published)

    def runs(self) -> Iterator[Run]:
        """Its trained pieces, as long as they come."""
        start, first = 0, True
        for trained, several in groupby(zip(self.slots, self.ends, strict=True), lambda pair: pair[0].active):
            members = list(several)
            if trained and members[-1][1] > start:
                yield Run(self, [slot for slot, _ in members], start, members[-1][1], first)
                first = False
            start = members[-1][1]

    def draw(self, name: str, at: Address) -> None:
        """Fill a buffer with the normals of a draw."""
        self.kernels.namespace.noise(*at, out=self.buffer(name))

    def clear(self) -> None:
        """Set the sums of samples to 0."""
        for total in self.totals:
            total.zero_()


class Run:
    """A piece of a store's arrays, from lo to hi, whose slots are all trained; first: before the store's others."""

    def __init__(self, store: Store, slots: Sequence[Slot], lo: int, hi: int, first: bool) -> None:
        self.store, self.slots, self.kernels, self._lo, self._hi = store, list(slots), store.kernels, lo, hi
        self._first, self._whole = first, lo == 0 and hi == store.ends[-1]
        one = slots[0]
        self.direct = len(slots) == 1 and one.length >= SMALL and one.dense and not store.rounds
        if self.direct:
            mean = self.kernels.array(flat(one.home))
        else:
            whole = store.arrays["mean"] if store.rounds else store.buffer("mean")
            mean, self._means = self._part(whole), store.views(whole, self.slots)
            self._theta, self._thetas = self.buffer("theta"), store.views(store.buffer("theta"), self.slots)
        self.state = (mean, self._part(store.arrays["precision"]), self._part(store.arrays["momentum"]))
        self.cavity = tuple(self._part(store.arrays[name]) for name in CAVITY if name in store.arrays)
        self.noise = self.buffer("noise")
        self._slopes: list[Tensor] = []
        self._parameters = [p for slot in slots for p in slot.parameters]
        self._samplers: dict[str, Any] = {}
        self._steps: dict[float, Any] = {}

    @property
    def place(self) -> str:
        """Which parameters these are."""
        return self.slots[0].place + (f" to {self.slots[-1].place}" if len(self.slots) > 1 else "")

    def gather(self) -> None:
        """Bring the parameters' values into `mean`; those in half precision only where someone else changed them."""
        if self.direct:
            return
        homes = [slot.home for slot in self.slots]
        if not self.store.rounds:
            _copy(self._means, homes)
            return
        for mean, home in zip(self._means, homes, strict=True):
            mean.copy_(torch.where(mean.to(home.dtype) == home, mean, home.to(mean.dtype)))

    def scatter(self) -> None:
        """Bring `mean` into the parameters, which autograd hears of."""
        if not self.direct:
            _copy([slot.home for slot in self.slots], self._means)
        torch.autograd.graph.increment_version(self._parameters)

    def sample(self, ess: float, normals: str, at: Address) -> list[Tensor]:
        """θ = m + ε/√(ess s), a new tensor per slot: a user may keep them.

        The normals of the draw `at` go into a buffer, in the same pass where the run is the whole of its store.
        """
        found = [torch.empty_like(slot.home) for slot in self.slots]
        theta = self.kernels.array(flat(found[0])) if self.direct else self._theta
        if normals not in self._samplers:
            make = self.kernels.drawer if self._whole else self.kernels.sampler
            self._samplers[normals] = make(*self.state[:2], self.buffer(normals))
        if self._whole:
            self._samplers[normals](theta, ess, at)
        else:
            if self._first:
                self.store.draw(normals, at)
            self._samplers[normals](theta, ess)
        if not self.direct:
            _copy(found, self._thetas)
        return found

    def update(self, scalars: tuple[float, ...], weight: float) -> None:
        """The step from the one sample that there is."""
        if weight not in self._steps:
            self._steps = {weight: self.kernels.updater(self.state, self.cavity or (0.0, weight), self.noise)}
        self._steps[weight](self.gradient(), scalars)

    def update_averaged(self, scalars: tuple[float, ...], weight: float, samples: int, squares: bool) -> None:
        """The step from the sums of samples."""
        calls, cavity = self.kernels.namespace, self.cavity or (0.0, weight)
        if squares:
            calls.update_averaged_squares(*self.sums(), *self.state, cavity, samples, *scalars[1:], out=self.state)
        else:
            calls.update_averaged(*self.sums(), *self.state, cavity, samples, *scalars, out=self.state)

    def accumulate(self, squares: bool) -> None:
        """Add the sample to the sums."""
        calls, sums = self.kernels.namespace, self.sums()
        if squares:
            calls.accumulate_squares(self.gradient(), *sums, out=sums)
        else:
            calls.accumulate(self.gradient(), *sums, noise=self.noise, out=sums)

    def gradient(self) -> Any:
        """The sample's gradient (P,)."""
        if self.direct and (whole := self.slots[0].flat_gradient()) is not None:
            return self.kernels.array(whole)
        if not self._slopes:
            self._slope, self._slopes = (
                self.buffer("gradient"),
                self.store.views(self.store.buffer("gradient"), self.slots),
            )
        several = [slot.gradients() for slot in self.slots]
        if {*map(len, several)} == {1}:
            _copy(self._slopes, [own[0] for own in several])
        else:
            for view, own in zip(self._slopes, several, strict=True):
                _add_up(view, own)
        return self._slope

    def sums(self) -> tuple[Any, Any]:
        """This piece of the sums of samples."""
        self.store.totals = self.store.totals or (self.store.new(), self.store.new())
        return self._part(self.store.totals[0]), self._part(self.store.totals[1])

    def buffer(self, name: str) -> Any:
        """This piece of a buffer: "noise" holds the training sample's normals."""
        return self._part(self.store.buffer(name))

    def _part(self, array: Tensor) -> Any:
        whole = self._lo == 0 and self._hi == len(array)
        return self.kernels.array(array if whole else array[self._lo : self._hi])


def _add_up(view: Tensor, gradients: Sequence[Tensor]) -> None:
    """Write a sum of tensors; 0 for none."""
    if not gradients:
        view.zero_()
        return
    view.copy_(gradients[0])
    for more in gradients[1:]:
        view.add_(more)


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    if len(to) == 1:
        to[0].copy_(source[0])
    else:
        torch._foreach_copy_(to, source)


def _check_shape(slot: Slot, name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.shape != slot.shape:
        kept = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise RuntimeError(
            f"params: expected the shape that the state of {slot.place} has ({name}), {kept}, got {tuple(slot.shape)}"
        )
