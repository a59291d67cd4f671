"""Averages over torch.distributed's ranks, each of which draws normals of its own.

The Hessian's estimate is the mean over ranks of ε g, a rank's normals times its own gradient. Where
DistributedDataParallel has averaged the gradients before a block ends, ε ḡ would be that estimate over the number of
ranks, so that slots keep each rank's own gradient as it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from badmm.ivon.slots import Slot
from badmm.ivon.stores import Run

if dist.is_available():  # else torch imports it for its first optimizer, whose process group is then never let go
    import torch.distributed.nn.functional


def rank() -> int:
    """This process's, or 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """How many there are, or 1."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def norm(slots: Iterable[Slot]) -> float:
    """‖g‖ of the gradients that slots have."""
    return sum(float(g.double().square().sum()) for slot in slots for g in slot.gradients()) ** 0.5


def accumulate(runs: Sequence[Run], norm_before: float, squares: bool) -> None:
    """Add the sample's gradient, and its own rank's times the normals (or squared), to the sums of every run.

    norm_before: ‖g‖ at the end of the block. What unscaled or clipped the gradients since is a factor that each rank's
    own gradient takes as well.
    """
    after = norm(slot for run in runs for slot in run.slots)
    factor = after / norm_before if norm_before > 0 and after != norm_before else 1.0
    for run in runs:
        gradients, products = map(torch.as_tensor, run.sums())
        gradient = torch.as_tensor(run.gradient())
        gradients.add_(gradient)
        own = torch.cat([_own(slot, factor) for slot in run.slots])
        other = own if squares else torch.as_tensor(run.noise)
        products.addcmul_(own, other)


def average(totals: Iterable[Tensor]) -> None:
    """Replace sums by their mean over ranks."""
    for total in totals:
        dist.all_reduce(total)
        total.div_(dist.get_world_size())


def _own(slot: Slot, factor: float) -> Tensor:
    """This rank's gradient (P,) in the order of the state."""
    found = torch.zeros(slot.length, dtype=slot.dtype, device=slot.home.device)
    view = found.as_strided(slot.shape, slot.strides)
    if slot.local is not None:
        view.copy_(slot.local).mul_(factor)
        return found
    for g in slot.gradients():  # set by hand
        view.add_(g)
    return found
