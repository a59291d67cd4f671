"""Local training of a stack of clients: who asks for gradients (`LocalSolver`) and the loop that supplies them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from badmm.clients.federation import LocalSettings, Task
from badmm.clients.penalty import Penalty
from badmm.networks.stacked import Gradient


class LocalSolver(ABC):
    """The local optimizer of k clients at once. Members are ordered so that the active ones are the first rows.

    Each step, for each of `samples` on the same minibatch: the loop reads `point`, writes the gradient of the mean loss
    there into `gradient` (k, P), perhaps the memory of those parameters, and calls `observe`; then it calls `step`. A
    method reads the end point from its own solver; see `badmm.methods`.
    """

    gradient: Tensor
    samples: int = 1

    @abstractmethod
    def point(self, active: int) -> Tensor:
        """Parameters (active, P) at which the next gradient is wanted; best in one place for one `active`."""

    def observe(self, active: int) -> None:  # noqa: B027  (what has no samples needs nothing)
        """Take in the first `active` rows of `gradient`."""

    @abstractmethod
    def step(self, active: int) -> None:
        """Move the first `active` rows."""


class Descent(LocalSolver):
    """torch.optim's fused SGD or Adam on variables (k, Q), whose gradient `complete` finishes; fresh every round.

    The optimizers are elementwise, so rows of one buffer are independent clients. Rows with equally many steps are one
    parameter; those whose steps are over have no gradient, which torch.optim skips.
    """

    def __init__(self, start: Tensor, task: Task) -> None:
        self.settings: LocalSettings = task.federation.settings
        self.variables = start.clone()
        self.slope = torch.zeros_like(self.variables)
        self.gradient = self.slope
        runs = [len(list(group)) for _, group in groupby(task.steps)]
        self.parts = list(zip(self.variables.split(runs), self.slope.split(runs), strict=True))
        self.ends = torch.tensor(runs).cumsum(0).tolist()
        for variables, slope in self.parts:
            variables.grad = slope
        self.optimizer = _optimizer([variables for variables, _ in self.parts], self.settings, task.lr)

    def point(self, active: int) -> Tensor:
        """The variables themselves."""
        return self.variables[:active]

    def complete(self, active: int) -> None:
        """Make of `slope` the gradient of the client's objective; it starts as `gradient`, the mean loss's."""

    def step(self, active: int) -> None:
        """One step of the optimizer on the active rows."""
        self.complete(active)
        if self.settings.clip is not None:
            slope = self.slope[:active]
            norms = torch.linalg.vector_norm(slope, dim=1, keepdim=True)
            slope.mul_((self.settings.clip / (norms + 1e-6)).clamp_(max=1.0))  # as torch's clip_grad_norm_
        for (variables, _), end in zip(self.parts, self.ends, strict=True):
            if end > active:
                variables.grad = None
        self.optimizer.step()


class PenalizedDescent(Descent):
    """Descent on f_k(θ) + penalty(θ), variables θ."""

    def __init__(self, start: Tensor, task: Task, penalty: Penalty | None) -> None:
        super().__init__(start, task)
        self.penalty = penalty

    def complete(self, active: int) -> None:
        """Add the penalty's gradient."""
        if self.penalty is not None:
            self.penalty.add_gradient(self.variables[:active], self.slope[:active])


def train(task: Task, solver: LocalSolver) -> Tensor:
    """Run every member's local steps; returns the mean loss of its minibatches (k,), before each step."""
    federation = task.federation
    index, weights = task.batches()
    streams = task.streams()
    losses = solver.gradient.new_zeros(len(task.members))
    steps = task.steps
    widths = (weights != 0).any(dim=1).sum(dim=1).tolist()
    for first, last, active in _phases(steps):
        inputs: dict[int, Tensor] = {}
        bound: dict[int, tuple[int, Gradient]] = {}
        total, slope = losses[:active], solver.gradient[:active]
        buffers = None if task.buffers is None else task.buffers[:active]
        parts = (whole[first:last, :active].unbind() for whole in (index, weights))
        for width, rows, weight in zip(widths[first:last], *parts, strict=True):
            if width < rows.shape[1]:
                rows, weight = rows[:, :width], weight[:, :width]
            read, y = federation.data.points(rows, federation.dtype, inputs.get(width))
            x = inputs.setdefault(width, read)
            if x is not read:
                x.copy_(read)
            for _ in range(solver.samples):
                theta = solver.point(active)
                place = theta.data_ptr()
                if width not in bound or bound[width][0] != place:
                    bound[width] = place, federation.stack.bind(theta, x, slope, buffers)
                seeds = [int(stream.integers(2**63)) for stream in streams[:active]]
                total += bound[width][1](y, weight, seeds)
                solver.observe(active)
            solver.step(active)
    points = sum(federation.counts[client] for client in task.members) * federation.settings.epochs
    task.tally.gradients += points * solver.samples
    return losses / losses.new_tensor([solver.samples * count for count in steps])


def _phases(steps: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """First step, last step (exclusive) and number of active members of each stretch, for falling numbers of steps."""
    first = 0
    for active in range(len(steps), 0, -1):
        if steps[active - 1] > first:
            yield first, steps[active - 1], active
            first = steps[active - 1]


def _optimizer(variables: list[Tensor], settings: LocalSettings, lr: float) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(variables, lr=lr, weight_decay=settings.weight_decay, fused=True)
    return torch.optim.SGD(variables, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True)
