"""The samples that wait for a step: the last one's gradient, the sums of those before it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from badmm.ivon import ranks
from badmm.ivon.arrange import Arrangement
from badmm.ivon.slots import Slot
from badmm.ivon.stores import Run


class Waiting:
    """Samples since the last step.

    count: how many. pending: the last one's gradient still is where autograd left it, not in the sums. squares: the
    sums are of g and g², else of g and ε g. fault: what was not finite, for the step to raise unless a GradScaler skips
    it.
    """

    def __init__(self, squares: bool) -> None:
        self.squares, self.count, self.pending = squares, 0, False
        self.fault: ValueError | None = None
        self._norm: float | None = None

    def collect(self, runs: Sequence[Run], local: bool) -> None:
        """Take the gradients that there are as a sample's; local: each rank's own are kept beside them."""
        slots = [slot for run in runs for slot in run.slots]
        reached = [slot.collect() for slot in slots]
        if True not in reached:
            raise RuntimeError(
                "sampled_params: expected gradients at the end of a block with train=True, got none; call backward "
                "inside it, and let some parameter ask for gradients"
            )
        self._norm = ranks.norm(slots) if local else None
        self.count, self.pending = self.count + 1, True

    def flush(self, arrangements: Sequence[Arrangement], another: bool = False) -> None:
        """Add the last sample to the sums, before its normals go; another: since the next one is drawn."""
        if not self.pending:
            return
        runs = [run for arranged in arrangements for run in arranged.runs]
        for slot in [slot for run in runs for slot in run.slots] if another else []:
            slot.check_not_zeroed()
        if self._norm is not None:
            ranks.accumulate(runs, self._norm, self.squares)
        for run in runs if self._norm is None else []:
            try:
                run.accumulate(self.squares)
            except ValueError as error:
                self.fault = ValueError(f"{error}, in {run.place}")
        self._drop(arrangements)

    def settle(
        self, arrangements: Sequence[Arrangement], scale: Tensor | None, found: Tensor | None, average: bool
    ) -> bool:
        """Bring the sums to what a step takes; whether a GradScaler skips it for what it, or this, found infinite.

        scale: the sums are to be divided by it. average: over ranks.
        """
        if self.count > 1 or average or scale is not None or self.squares:
            self.flush(arrangements)
        lost = found is not None and bool(found > 0)
        if not self.pending:
            pairs = [store.totals for arranged in arrangements for store in arranged.stores if store.totals]
            for gradients, products in pairs if scale is not None else []:
                by = scale.to(gradients.device) if scale is not None else 1.0
                gradients.div_(by)
                products.div_(by * by if self.squares else by)
            totals = [total for pair in pairs for total in pair]
            if average:
                ranks.average(totals)
            lost = lost or (found is not None and not all(bool(total.isfinite().all()) for total in totals))
        if self.fault is not None and found is None:
            fault = self.fault
            self.forget(arrangements)
            raise fault
        return lost or self.fault is not None

    def forget(self, arrangements: Sequence[Arrangement]) -> None:
        """Begin a new step."""
        self._drop(arrangements)
        self.count, self.fault = 0, None
        for arranged in arrangements:
            for store in arranged.stores:
                store.clear()

    def _drop(self, arrangements: Sequence[Arrangement]) -> None:
        self.pending = False
        for arranged in arrangements:
            for slot in arranged.slots:
                slot.drop()


class Frame:
    """A block's samples in the place of what was shown before it; open: whether the block around it trains."""

    def __init__(self, open: bool) -> None:
        self.shown: list[tuple[Slot, Tensor, Tensor]] = []
        self.outer = open

    def show(self, slot: Slot, before: Tensor, sample: Tensor) -> None:
        """Let a slot's parameters view a sample."""
        self.shown.append((slot, before, sample))
        slot.show(sample)

    def restore(self) -> list[Slot]:
        """Put back what was shown before; the slots whose sample is not there any more."""
        lost = [slot for slot, _, sample in self.shown if not slot.shows(sample)]
        for slot, before, _ in self.shown:
            slot.show(before)
        return lost
